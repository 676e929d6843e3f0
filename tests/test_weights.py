"""The weights of a checkpoint are those that its manifest describes, whatever their names."""

from __future__ import annotations

import hashlib

import h5py
import numpy as np
import pytest

from vae_aug.errors import CheckpointError
from vae_aug.model.checkpoint import read_manifest
from vae_aug.model.weights import describe_variable, load_weights


def put(file, name, values):
    """Put an array in the place of another."""
    del file[name]
    file.create_dataset(name, data=values)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.pop("latent/vars/1"), "has 224 arrays of .* weights; the manifest has 225"),
        (lambda f: f.create_dataset("latent/vars/2", data=np.zeros(1, "f4")), "has 226 arrays"),
        (lambda f: put(f, "latent/vars/1", np.zeros(17, "f4")), "has 225 arrays of"),
        (
            lambda f: put(f, "latent/vars/1", f["latent/vars/1"][:].reshape(4, 4)),
            "latent/vars/1 has the shape and SHA-256 of no variable in the manifest",
        ),
        (
            lambda f: put(f, "latent/vars/1", np.full(16, np.nan, "f4")),
            "latent/vars/1 has the shape and SHA-256 of no variable in the manifest",
        ),
        (lambda f: f.update({"more": h5py.ExternalLink("/dev/zero", "x")}), "root: message 0x2"),
    ],
)
def test_weights_that_are_not_the_manifests_are_refused(blank_vae, saved_copy, edit, message):
    with h5py.File(saved_copy / "model.weights.h5", "r+") as file:
        edit(file)
    content = (saved_copy / "model.weights.h5").read_bytes()
    variables = read_manifest(saved_copy)["variables"]
    before = [np.array(variable) for variable in blank_vae.weights]
    with pytest.raises(CheckpointError, match=message) as error:
        load_weights(saved_copy, blank_vae, content, variables)
    assert str(error.value).startswith(f"{saved_copy}: ")
    for variable, values in zip(blank_vae.weights, before, strict=True):
        np.testing.assert_array_equal(variable, values)


def test_weights_are_known_by_their_digest_and_not_by_their_name(blank_vae, saved_copy):
    with h5py.File(saved_copy / "model.weights.h5", "r+") as file:
        file.move("latent", "other")
    variables = read_manifest(saved_copy)["variables"]
    load_weights(saved_copy, blank_vae, (saved_copy / "model.weights.h5").read_bytes(), variables)
    for variable in blank_vae.weights:
        assert describe_variable(variable) == variables[variable.path]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(blank_vae, saved_copy, value):
    array = np.full(16, value, "<f4")
    with h5py.File(saved_copy / "model.weights.h5", "r+") as file:
        put(file, "latent/vars/1", array)
    content = (saved_copy / "model.weights.h5").read_bytes()
    variables = read_manifest(saved_copy)["variables"]
    variables["latent/bias"]["sha256"] = hashlib.sha256(array.tobytes()).hexdigest()
    with pytest.raises(CheckpointError, match="variable latent/bias has values that are no numb"):
        load_weights(saved_copy, blank_vae, content, variables)
