"""HDF5 without its library: what Keras's weights need is read, everything else is refused."""

from __future__ import annotations

import random

import h5py
import numpy as np
import pytest

from vae_aug.errors import CheckpointError
from vae_aug.model.hdf5 import read_arrays

# Twenty groups are more than a node of a B-tree's first level holds (8).
EXPECTED = {
    **{f"layers/dense_{i}/vars/0": np.full((2, 3), i, np.float32) for i in range(20)},
    "vars/0": np.array([0.5, -2.0], np.float16),
    "vars/1": np.array(3.0, np.float32),
}


def write(path, edit=None, libver="earliest"):
    with h5py.File(path, "w", libver=libver) as file:
        for name, values in EXPECTED.items():
            file.create_dataset(name, data=values)
            file[name].parent.attrs["name"] = "layer"
        if edit is not None:
            edit(file)
    return path.read_bytes()


def read(content):
    return read_arrays(content, 10_000)


def test_arrays_are_those_that_h5py_wrote(tmp_path):
    arrays = read(write(tmp_path / "a.h5"))
    assert set(arrays) == set(EXPECTED)
    for name, values in EXPECTED.items():
        assert arrays[name].dtype == values.dtype and arrays[name].shape == values.shape
        np.testing.assert_array_equal(arrays[name], values, err_msg=name)


def replace(file, **options):
    del file["vars/0"]
    file["vars"].create_dataset("0", **options)


def link_to_itself(file):
    file["vars/again"] = file["vars"]


def virtual(file):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2,))
    file["vars"].create_virtual_dataset("2", layout)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            # For it h5py turns the group into one of another layout.
            lambda f: f.update({"vars/2": h5py.ExternalLink("/etc/passwd", "x")}),
            "vars: message 0x2",
        ),
        (lambda f: f.update({"vars/2": h5py.SoftLink("/vars/0")}), "vars: a link"),
        (virtual, "vars/2: a message is missing"),
        (
            lambda f: replace(f, shape=(2,), dtype="f4", external=[("/etc/passwd", 0, 8)]),
            "vars/0: message 0x7",
        ),
        (
            lambda f: replace(f, data=np.zeros(10**6, np.float32), compression="gzip"),
            "vars/0: message 0xb",
        ),
        (lambda f: replace(f, shape=(10**12,), dtype="f4", chunks=(9,)), "not lie in one piece"),
        (lambda f: replace(f, shape=(10**12,), dtype="f4"), "beyond the end"),
        (lambda f: replace(f, data=np.zeros(2, np.float64)), "vars/0: its numbers are no float16"),
        (lambda f: replace(f, data=np.zeros(2, ">f4")), "vars/0: its numbers are no float16"),
        (lambda f: replace(f, data=np.zeros(2, np.int32)), "vars/0: its numbers are no float16"),
        (lambda f: replace(f, data="text"), "vars/0: its numbers are no float16"),
        (lambda f: replace(f, data=np.zeros(0, np.float32)), "does not fit 0 bytes"),
        (link_to_itself, "vars/again.*is nested deeper"),
    ],
)
def test_what_weights_do_not_need_is_refused(tmp_path, edit, message):
    with pytest.raises(CheckpointError, match=message):
        read(write(tmp_path / "a.h5", edit))


def test_other_layouts_say_how_to_write_this_one(tmp_path):
    with pytest.raises(CheckpointError, match="libver='earliest'"):
        read(write(tmp_path / "a.h5", libver="latest"))
    with pytest.raises(CheckpointError, match="no HDF5 file"):
        read(b"PK" + bytes(200))


@pytest.mark.parametrize("size", [0, 7, 95, 300, 5000, -1])
def test_a_file_that_ends_early_is_refused(tmp_path, size):
    with pytest.raises(CheckpointError):
        read(write(tmp_path / "a.h5")[:size])


def test_no_damage_raises_anything_else(tmp_path):
    whole = write(tmp_path / "a.h5")
    rng = random.Random(5)
    refused = 0
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            start = rng.randrange(len(content))
            if rng.random() < 0.5:
                content[start] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            else:
                other = rng.randrange(len(content) - 8)
                content[start : start + 8] = content[other : other + 8]
        try:
            arrays = read(bytes(content))
        except CheckpointError:
            refused += 1
        else:
            assert sum(array.size for array in arrays.values()) <= len(content)
    assert refused > 300
