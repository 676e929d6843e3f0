"""Files are put together from pickle opcodes here, since torch is no dependency."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct

import numpy as np
import pytest

from vae_aug.errors import CheckpointError
from vae_aug.model.legacy_torch import read_legacy_torch

HEADER = b"".join(
    pickle.dumps(value, protocol=2)
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)
SIX = np.arange(6, dtype="<f4")


def read(folder, data):
    path = folder / "weights.pth"
    path.write_bytes(data)
    return read_legacy_torch(path, hashlib.sha256(data).hexdigest())


def make_tuple(values):
    return "(" + "".join(f"I{value}\n" for value in values) + "t"


def make_tensor(key, *, offset=0, shape=(), strides=(), kind="FloatStorage"):
    storage = f"(Vstorage\nctorch\n{kind}\nV{key}\nVcpu\nI6\nNtQ"
    view = f"I{offset}\n{make_tuple(shape)}{make_tuple(strides)}"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{view}I00\nNtR"


def make_file(tensors, storages):
    items = "".join(f"V{name}\n{tensor}" for name, tensor in tensors.items())
    state = f"ccollections\nOrderedDict\n)R({items}u.".encode()
    raw = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    return HEADER + state + pickle.dumps(list(storages), protocol=2) + raw


def test_reads_views_of_storages(tmp_path):
    state = read(
        tmp_path,
        make_file(
            {
                "rows": make_tensor("a", shape=(2, 3), strides=(3, 1)),
                "columns": make_tensor("a", shape=(3, 2), strides=(1, 3)),
                "tail": make_tensor("a", offset=4, shape=(2,), strides=(1,)),
                "steps": make_tensor("b", kind="LongStorage"),
            },
            {"a": SIX, "b": np.array([7], "<i8")},
        ),
    )
    np.testing.assert_array_equal(state["rows"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(state["columns"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(state["tail"], [4, 5])
    assert state["steps"].shape == () and state["steps"] == 7
    assert [array.dtype for array in state.values()] == ["f4", "f4", "f4", "i8"]


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("pickles_before", range(5))
def test_refuses_a_malicious_pickle_wherever_it_stands(tmp_path, protocol, pickles_before):
    trace = tmp_path / "trace"
    payload = pickle.dumps(Attack(os.system, f"echo > {trace}"), protocol=protocol)
    pickle.loads(payload)
    assert trace.exists()  # the attack works where nothing stops it
    trace.unlink()

    data = pickle.dumps({}, protocol=2) * pickles_before + payload
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.system, which was not run"):
        read(tmp_path, data)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "torch\nload", "torch._utils\n_rebuild_tensor", "os\npath.join"]
)
def test_refuses_every_other_name(tmp_path, name):
    with pytest.raises(CheckpointError, match=name.replace("\n", ".")):
        read(tmp_path, f"c{name}\n.".encode())


def test_refuses_attributes_of_an_allowed_name(tmp_path):
    # Protocol 4 looks dotted names up attribute by attribute.
    dotted = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93."
    with pytest.raises(CheckpointError, match=r"OrderedDict\.__init__"):
        read(tmp_path, dotted)


def test_refuses_a_view_that_leaves_the_file(tmp_path):
    data = make_file({"x": make_tensor("a", shape=(7,), strides=(1,))}, {"a": SIX})
    with pytest.raises(ValueError, match="strides is incompatible"):
        read(tmp_path, data)


def test_opens_no_other_file_than_the_pinned_one(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"as altered")
    digest = hashlib.sha256(b"as published").hexdigest()
    with pytest.raises(CheckpointError, match=f"sha256 {digest}; got"):
        read_legacy_torch(path, digest)
    with pytest.raises(CheckpointError, match="Cannot read"):
        read_legacy_torch(tmp_path / "none", digest)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match=r"Cannot read .*pipe"):
        read_legacy_torch(tmp_path / "pipe", digest)
