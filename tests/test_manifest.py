"""The manifest: every field is of its type and in its range, or is named."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest

from vae_aug.config import ModelConfig
from vae_aug.errors import CheckpointError
from vae_aug.model.manifest import check_size, parse_manifest

PATH = Path("network.keras")
WHOLE = {
    "format": 1,
    "model": ModelConfig(image_size=32, latent_dim=16).to_dict(),
    "training": {"validation": {"psnr": 20.5, "step": 3}, "config": {"loss": "sigma"}},
    "fingerprint": {"images": 3, "patients": ["ab12"], "start_from": None},
    "variables": {"latent/bias": {"shape": [16], "sha256": "0" * 64}},
}
DELETE = object()
NOT_A_NUMBER = float("nan")


def parse(manifest):
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return parse_manifest(PATH, content)


def edit(field, value):
    """Return the whole manifest with one field, named by its path, replaced or deleted."""
    manifest = copy.deepcopy(WHOLE)
    *parents, last = field.split(".")
    part = manifest
    for name in parents:
        part = part[name]
    if value is DELETE:
        del part[last]
    else:
        part[last] = value
    return manifest


def refuse(manifest, message):
    with pytest.raises(CheckpointError, match=message) as error:
        parse(manifest)
    assert str(error.value).startswith("network.keras: ") and len(str(error.value)) < 1000


def test_a_whole_one_is_read():
    assert parse(WHOLE) == WHOLE
    assert parse({**WHOLE, "training": {"steps": 3}, "fingerprint": {}})["fingerprint"] == {}


WRONG = {
    "model": [None, [], 1, "x", True],
    "training": [None, [], "x"],
    "fingerprint": [None, [], "x"],
    "variables": [None, [], "x", {}],
    "model.profile": [None, 1, [], {}, "vectors", "x" * 10**6],
    "model.encoder": [None, True, [1], "resnet", ""],
    **{
        f"model.{name}": [None, True, 32.0, "32", [32], {}, -32, NOT_A_NUMBER, 10**30, 10**9]
        for name in ("image_size", "latent_dim", "decoder_repeats")
    },
    "training.validation": [None, [], 3],
    "training.validation.psnr": [None, True, "20", [], {}],
    "training.config": [None, [], "x"],
    "fingerprint.patients": [None, {}, "ab12", [1], [None], [["ab12"]]],
    "fingerprint.images": [None, True, 3.0, "3", -1],
    "fingerprint.start_from": [1, [], {}],
    "variables.latent/bias": [None, [], "x", {}, {"shape": [16]}],
    "variables.latent/bias.shape": [None, 16, "16", [True], [16.0], [-16], [0], [2**40], [1] * 9],
    "variables.latent/bias.sha256": [None, 0, "", "0" * 63, "G" * 64, "0" * 65, ["0"] * 64],
}


@pytest.mark.parametrize("field", WRONG)
def test_fields_of_another_type_or_range_are_named(field):
    for value in WRONG[field]:
        refuse(edit(field, value), field.rpartition(".")[2])


@pytest.mark.parametrize(
    "field",
    [
        *("model", "training", "fingerprint", "variables"),
        *(f"model.{name}" for name in WHOLE["model"]),
        *("variables.latent/bias.shape", "variables.latent/bias.sha256"),
    ],
)
def test_missing_fields_are_named(field):
    refuse(edit(field, DELETE), field.rpartition(".")[0].rpartition(".")[2] or field)


@pytest.mark.parametrize("field", ["run", "model.run", "variables.latent/bias.run"])
def test_unknown_fields_are_refused(field):
    refuse(edit(field, "import os"), "run|nothing else")


@pytest.mark.parametrize("version", [2, 0, "1", 1.0, True, None, [1], 10**30])
def test_other_versions_are_refused(version):
    refuse({**WHOLE, "format": version}, "this version reads 1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid"),
        (b"\x80", "not valid"),
        (b"\xef\xbb\xbf{}", "not valid"),
        (json.dumps(WHOLE).encode("utf-16"), "not valid"),
        (b"{", "not valid"),
        (b'{"format": 1, "format": 1}', "names a key twice"),
        (b"[" * 10**6, "not valid"),
        (b'{"a":' * 10**6, "not valid"),
        (b"[" * 90 + b"]" * 90, "nested deeper than 64"),
        (b'{"format": ' + b"9" * 10**5 + b"}", "not valid"),
        *((text, "must hold an object") for text in (b"[]", b"null", b"1", b'"x"', b"NaN")),
    ],
)
def test_what_is_no_object_is_refused(content, message):
    refuse(content, message)


def test_no_damage_raises_anything_else():
    whole = json.dumps(WHOLE).encode()
    rng = random.Random(3)
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3))):
            start = rng.randrange(len(content))
            new = rng.choice((b"", b"9", b"-", b"[", b"{}", b"null", b'"', b"\xff", b"1e999"))
            content[start : start + rng.choice((0, 1, 1, 5))] = new
        try:
            parse(bytes(content))
        except CheckpointError as error:
            assert str(error).startswith("network.keras: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 2**13 + 32}, "image_size must be at most 8192"),
        ({"decoder_repeats": 5}, "decoder_repeats must be at most 4"),
        # 26,000 * (1280 + 32 places of one) = 34,112,000 weights; 2**25 are 33,554,432.
        ({"image_size": 32, "latent_dim": 26_000}, "needs more than 34112000 weights"),
        # (2048 / 32)**2 = 4096 places: 512 * (1280 + 32 * 4096) = 67,764,224.
        ({"image_size": 2048, "latent_dim": 512}, "needs more than 67764224 weights"),
    ],
)
def test_sizes_that_no_network_has(settings, message):
    with pytest.raises(ValueError, match=message):
        check_size(ModelConfig(**settings))


def test_sizes_that_networks_have():
    check_size(ModelConfig(encoder="efficientnet-b1", image_size=512, decoder_repeats=0))
    # A ladder has no layer whose weights grow with the image.
    check_size(ModelConfig(profile="ladder", image_size=4096))
