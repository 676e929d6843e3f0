from __future__ import annotations

import hashlib
import hmac
import stat

import pytest

from vae_aug.errors import VAEAugError
from vae_aug.ingest.privacy import get_salt_path, hash_identifier, read_salt

pytestmark = pytest.mark.usefixtures("config_home")


def test_argument_then_variable_then_file(monkeypatch, config_home):
    monkeypatch.setenv("VAE_AUG_SALT", "from the variable")
    assert read_salt("given") == b"given"
    assert read_salt() == b"from the variable"
    assert not config_home.exists()
    monkeypatch.delenv("VAE_AUG_SALT")
    stored = read_salt()
    assert len(stored) == 64 and read_salt() == stored


def test_key_file_is_for_the_user_alone(config_home):
    read_salt()
    path = config_home / "vae-aug" / "salt"
    assert path == get_salt_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["salt"]


def test_relative_config_home_is_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert get_salt_path() == tmp_path / ".config" / "vae-aug" / "salt"


def test_empty_salts_are_refused(monkeypatch, config_home):
    with pytest.raises(ValueError, match="must not be empty"):
        read_salt("")
    monkeypatch.setenv("VAE_AUG_SALT", "")
    with pytest.raises(ValueError, match=r"\$VAE_AUG_SALT"):
        read_salt()
    monkeypatch.delenv("VAE_AUG_SALT")
    get_salt_path().parent.mkdir(parents=True)
    get_salt_path().write_text("\n")
    with pytest.raises(ValueError, match="key file is empty"):
        read_salt()


def test_home_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(VAEAugError, match=r"pass a salt or set \$VAE_AUG_SALT"):
        read_salt()


@pytest.mark.parametrize("error", [FileExistsError, PermissionError])
def test_another_process_or_no_hard_links(monkeypatch, config_home, error):
    path = config_home / "vae-aug" / "salt"

    def link(source, target):
        if error is FileExistsError:
            path.write_text("of the other process")
        raise error

    monkeypatch.setattr("os.link", link)
    salt = read_salt()
    assert (salt == b"of the other process") == (error is FileExistsError)
    assert [p.name for p in path.parent.iterdir()] == ["salt"] and read_salt() == salt


def test_hash_is_an_hmac_cut_to_64_bits():
    expected = hmac.new(b"salt", b"patient\0TCGA_DU_5849", hashlib.sha256).hexdigest()[:16]
    assert hash_identifier("patient", "TCGA_DU_5849", b"salt") == expected


def test_hash_depends_on_kind_identifier_and_salt():
    hashes = {
        hash_identifier("patient", "a", b"x"),
        hash_identifier("source", "a", b"x"),
        hash_identifier("patient", "b", b"x"),
        hash_identifier("patient", "a", b"y"),
    }
    assert len(hashes) == 4
    assert hash_identifier("patient", "", b"x") == ""


def test_names_of_files_that_are_no_unicode():
    assert len(hash_identifier("source", "caf\udce9.png", b"x")) == 16
