"""What SECURITY.md promises names the tests that hold it, and the network is not used."""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from fake_vae import BrighteningVAE
from test_augment_records import make_augment
from test_ingest import GOOD, write_coco

from vae_aug.extras.augment_records import augment_records
from vae_aug.ingest.ingest import ingest
from vae_aug.model.stored import list_packaged

CONNECTING = {
    *("aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "socketserver"),
    *("ssl", "telnetlib", "urllib", "urllib3", "xmlrpc"),
}
"""Modules that connect to other machines."""


def read_promises() -> list[tuple[str, list[str]]]:
    """Return each promise with the names of its tests."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = text.partition("| promise | held by |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", table, re.MULTILINE)[1:]
    return [(promise, re.findall(r"`([^`]+)`", tests)) for promise, tests in rows]


def list_tests(path: Path) -> set[str]:
    """Return the names of the tests that a file defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def list_imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_every_promise_names_tests_that_exist() -> None:
    promises = read_promises()
    assert len(promises) >= 8
    for promise, tests in promises:
        assert tests, promise
        for test in tests:
            file, _, name = test.partition("::")
            assert name in list_tests(ROOT / file), test


def test_a_test_that_is_gone_is_noticed() -> None:
    assert "test_every_promise_names_tests_that_exist" in list_tests(Path(__file__))
    assert "test_that_is_gone" not in list_tests(Path(__file__))


def test_no_module_imports_what_connects() -> None:
    assert CONNECTING & list_imports(Path(__file__)) == {"socket"}
    for folder in ("vae_aug", "tfds_builders"):
        for path in (ROOT / folder).rglob("*.py"):
            if not path.name.endswith("_test.py"):
                assert not CONNECTING & list_imports(path), path


def test_a_denied_network_is_not_missed(tmp_path, monkeypatch, config_home) -> None:
    """From a data set to augmented records; connections that C++ makes are not seen here."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(AssertionError, match="the network was used"):
        socket.create_connection(("localhost", 9))
    source = write_coco(tmp_path / "in", GOOD)
    ingest(source, tmp_path / "records", format="coco")
    report = augment_records(tmp_path / "records", tmp_path / "out", make_augment(BrighteningVAE()))
    assert report.augmented["train"].images == len(GOOD)


def test_listed_digests_are_those_of_the_packaged_checkpoints() -> None:
    lines = (ROOT / "docs" / "checkpoints" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    packaged = {f"vae_aug/checkpoints/{path.name}": path for path in list_packaged().values()}
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in packaged.items()}
    assert listed == found


def test_a_signature_of_the_digests_can_be_checked(tmp_path: Path) -> None:
    if not shutil.which("ssh-keygen") or not shutil.which("sha256sum"):
        pytest.skip("ssh-keygen (OpenSSH 8.2 or later) and sha256sum are needed")
    (tmp_path / "docs" / "checkpoints").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "vae_aug").symlink_to(ROOT / "vae_aug")
    sums = tmp_path / "docs" / "checkpoints" / "SHA256SUMS"
    shutil.copy(ROOT / "docs" / "checkpoints" / sums.name, sums)
    key = tmp_path / "key"
    make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(make_key, check=True, stdin=subprocess.DEVNULL)
    sums.with_name("SHA256SUMS.sig").write_text("of another list")
    assert subprocess.run(["make", "sign"], cwd=tmp_path, capture_output=True).returncode
    subprocess.run(["make", "sign", f"KEY={key}"], cwd=tmp_path, check=True, capture_output=True)
    kind, public, *_ = key.with_suffix(".pub").read_text().split()
    (tmp_path / "signers").write_text(f"releaser {kind} {public}\n")
    verify = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "signers"), "-I", "releaser"]
    verify += ["-n", "vae_aug", "-s", f"{sums}.sig"]
    content = sums.read_bytes()
    assert subprocess.run(verify, input=content, capture_output=True).returncode == 0
    changed = content.replace(b"demo", b"dome")
    assert subprocess.run(verify, input=changed, capture_output=True).returncode != 0
