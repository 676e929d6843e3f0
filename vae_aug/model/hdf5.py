"""Read the arrays of an HDF5 file with NumPy, if it has the layout that Keras's weights have.

The HDF5 library ends the process on some damaged files, and follows what a file says: links into
other files, values computed from them, filters that inflate. Weights need none of that. What is
read here is superblock 0, groups of symbol tables, and float arrays that lie in one piece, which is
what h5py writes with `libver="earliest"`; everything else is refused.

Reference: The HDF Group, HDF5 File Format Specification Version 3.0; the numerals in the comments
are its sections.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator

import numpy as np

from vae_aug.errors import CheckpointError

_SUPERBLOCK = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0])
_UNDEFINED = 2**64 - 1
_ENTRY_BYTES = 40
_DATASPACE, _DATATYPE, _LAYOUT, _CONTINUATION, _SYMBOL_TABLE = 0x01, 0x03, 0x08, 0x10, 0x11
# Fill values (old, new), attributes and the time of the last change say nothing of the values.
_IGNORED = (0x00, 0x04, 0x05, 0x0C, 0x12)
_SHARED = 0x02
_MAX_RANK = 8
_MAX_NAME_BYTES = 256
_MAX_PATH = 1000
"""Most characters of a path; paths of Keras's weights have about fifty."""

_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
"""Names of attributes and layers in Python, and numbers."""

_DTYPES: dict[bytes, np.dtype] = {
    bytes.fromhex("11200f00 02000000 00001000 0a05000a 0f000000"): np.dtype("<f2"),
    bytes.fromhex("11201f00 04000000 00002000 17080017 7f000000"): np.dtype("<f4"),
}
"""Datatype messages (IV.A.2.d) of IEEE floats, little endian, from files that h5py wrote."""


def read_arrays(content: bytes, max_reads: int) -> dict[str, np.ndarray]:
    """Read all arrays of an HDF5 file.

    Args:
        content: The whole file.
        max_reads: Most structures (headers, messages, nodes, entries) that are read. Structures
            that contain themselves would never end.

    Returns:
        Path such as `"latent/vars/0"` to a view of `content`, float16 or float32.

    Raises:
        CheckpointError: If the file is damaged, or has anything but groups and such arrays.
    """
    return _Reader(content, max_reads).read()


class _Reader:
    """A reader of one file, which counts the structures that it may still read."""

    def __init__(self, content: bytes, max_reads: int) -> None:
        self.content, self.reads_left = content, max_reads

    def read(self) -> dict[str, np.ndarray]:
        # II.A. Version 0 Superblock, and III.C. Symbol Table Entry of the root group
        if self.take(0, len(_SUPERBLOCK), "superblock") != _SUPERBLOCK:
            raise CheckpointError(
                "it is no HDF5 file of superblock version 0 with 8 bytes an address; h5py writes "
                "one with libver='earliest'"
            )
        base, _, end, driver, _, root = self.unpack("<6Q", 24, "superblock")
        if (base, end, driver) != (0, len(self.content), _UNDEFINED):
            raise CheckpointError(f"it has {len(self.content)} bytes, {end} of which were expected")
        arrays = {}
        pending = [("", root)]
        while pending:
            path, address = pending.pop()
            if len(path) > _MAX_PATH:
                raise CheckpointError(f"{path[:80]}...: is nested deeper than layers are")
            messages = self.read_messages(path, address)
            if _SYMBOL_TABLE in messages:
                prefix = f"{path}/" if path else ""
                table = messages[_SYMBOL_TABLE]
                pending.extend((prefix + name, at) for name, at in self.list_group(path, table))
            elif path in arrays:
                raise CheckpointError(f"{path} is there twice")
            else:
                arrays[path] = self.read_array(path, messages)
        return arrays

    def spend(self, reads: int, where: str) -> None:
        """Count structures that are read."""
        self.reads_left -= reads
        if self.reads_left < 0:
            raise CheckpointError(f"{where or 'root'}: it has more structures than its arrays need")

    def take(self, start: int, size: int, where: str) -> bytes:
        """Return `size` bytes from `start` on; refuse to read beyond the end."""
        self.spend(1, where)
        if start + size > len(self.content):
            raise CheckpointError(f"{where or 'root'}: lies beyond the end of the file")
        return self.content[start : start + size]

    def unpack(self, form: str, start: int, where: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(start, struct.calcsize(form), where))

    def read_messages(self, path: str, address: int) -> dict[int, bytes]:
        """Read the object header of a group or an array, IV.A.1.a: message type to message."""
        version, _, _, _, size = self.unpack("<BBHII", address, path)
        if version != 1:
            raise CheckpointError(f"{path or 'root'}: object header of version {version}, not 1")
        messages: dict[int, bytes] = {}
        blocks = [(address + 16, size)]
        while blocks:
            start, size = blocks.pop()
            end = start + size
            while start + 8 <= end:
                kind, size, flags = self.unpack("<HHB", start, path)
                data = self.take(start + 8, min(size, end - start - 8), path)
                start += 8 + size
                if kind == _CONTINUATION and len(data) == 16:
                    blocks.append(struct.unpack("<QQ", data))
                elif kind in messages or (flags & _SHARED and kind not in _IGNORED):
                    raise CheckpointError(f"{path or 'root'}: message {kind:#x} twice or shared")
                elif kind in (_DATASPACE, _DATATYPE, _LAYOUT, _SYMBOL_TABLE):
                    messages[kind] = data
                elif kind not in _IGNORED:
                    raise CheckpointError(
                        f"{path or 'root'}: message {kind:#x}, which plain arrays do not have "
                        "(a filter or another file, for one)"
                    )
        return messages

    def list_group(self, path: str, table: bytes) -> Iterator[tuple[str, int]]:
        """Yield the names in a group, each with the address of its object header."""
        tree, heap = self.unpack_from("<QQ", table, path)
        # III.D. Local Heaps
        magic, _, heap_bytes, _, names = self.unpack("<4sIQQQ", heap, path)
        if magic != b"HEAP":
            raise CheckpointError(f"{path or 'root'}: no heap where one was expected")
        pending = [tree]
        while pending:
            node = pending.pop()
            magic, kind, used = self.unpack("<4sHH", node, path)
            self.spend(used, path)
            # III.A.1. Version 1 B-trees: in nodes of groups children stand between keys.
            if magic == b"TREE" and kind % 256 == 0:
                pending.extend(self.unpack(f"<{2 * used}Q", node + 24, path)[1::2])
                continue
            # III.B. Symbol Table Nodes, version 1
            if magic != b"SNOD" or kind != 1:
                raise CheckpointError(f"{path or 'root'}: no node where one was expected")
            for start in range(node + 8, node + 8 + used * _ENTRY_BYTES, _ENTRY_BYTES):
                offset, address, cache = self.unpack("<QQI", start, path)
                if cache not in (0, 1):
                    raise CheckpointError(f"{path or 'root'}: a link, which was not followed")
                yield self.read_name(path, names + offset, names + heap_bytes), address

    def read_name(self, path: str, start: int, end: int) -> str:
        """Read a name that ends with a zero byte before the end of its heap."""
        stop = self.content.find(b"\0", start, min(end, start + _MAX_NAME_BYTES))
        name = self.content[start : max(stop, start)].decode("ascii", "replace")
        if stop < 0 or not _NAME.fullmatch(name):
            raise CheckpointError(f"{path or 'root'}: a name in it is damaged")
        return name

    def read_array(self, path: str, messages: dict[int, bytes]) -> np.ndarray:
        """Read an array that lies in one piece."""
        dtype = _DTYPES.get(messages.get(_DATATYPE, b"")[:20])
        if dtype is None:
            raise CheckpointError(f"{path}: its numbers are no float16 or float32, little endian")
        # IV.A.2.b. Dataspace, version 1
        space = messages.get(_DATASPACE, b"")
        version, rank = self.unpack_from("<BB", space, path)
        if version != 1 or rank > _MAX_RANK or len(space) < 8 + 8 * rank:
            raise CheckpointError(f"{path}: its dataspace is damaged or of another version")
        shape = struct.unpack_from(f"<{rank}Q", space, 8)
        # IV.A.2.i. Data Layout, version 3, contiguous
        layout = messages.get(_LAYOUT, b"")
        version, kind = self.unpack_from("<BB", layout, path)
        address, size = self.unpack_from("<QQ", layout[2:], path)
        if (version, kind) != (3, 1):
            raise CheckpointError(f"{path}: it does not lie in one piece, e.g. is compressed")
        if not size or size != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(f"{path}: shape {shape} of {dtype} does not fit {size} bytes")
        if address + size > len(self.content):
            raise CheckpointError(f"{path}: lies beyond the end of the file")
        count = size // dtype.itemsize
        return np.frombuffer(self.content, dtype, count, address).reshape(shape)

    def unpack_from(self, form: str, data: bytes, path: str) -> tuple[int, ...]:
        if len(data) < struct.calcsize(form):
            raise CheckpointError(f"{path or 'root'}: a message is missing or too short")
        return struct.unpack_from(form, data)
