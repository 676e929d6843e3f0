"""What of this package works on this machine: versions, decoders, engines, devices, caches."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tensorflow as tf
from pydicom import uid
from pydicom.pixels import get_decoder

from vae_aug.augment.transform import make_engine
from vae_aug.config import AugmentConfig, Engine, ModelConfig
from vae_aug.engines.graphs import get_cache_dir
from vae_aug.errors import CheckpointError, EngineError, MissingPackageError
from vae_aug.model.noise import Noise, NoiseSpec
from vae_aug.model.stored import list_packaged, read_manifest
from vae_aug.version import __version__

PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "pydicom")
"""Packages whose versions are told first."""

CODECS = {
    "JPEG": (uid.JPEGBaseline8Bit,),
    "JPEG, lossless": (uid.JPEGLossless, uid.JPEGLosslessSV1),
    "JPEG-LS": (uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    "JPEG 2000": (uid.JPEG2000Lossless, uid.JPEG2000),
    "RLE": (uid.RLELossless,),
}
"""Transfer syntaxes of compressed DICOM files. Reference: DICOM PS3.5, section 8.2."""

CACHED = {
    "graphs": (r"[0-9a-f]{64}|transform", r"\.?[0-9a-f]{64}\.graph(\.[0-9a-f]{8}\.tmp)?"),
    "openvino": ("", r"[0-9a-f]{64}\.(xml|bin)|\.[0-9a-f]{64}\.xml\.[0-9a-f]{8}\.(xml|bin|tmp)"),
}
"""Folders of the cache, each with the names of its folders and of its files; see
`vae_aug.engines.graphs.find_graph` and `vae_aug.engines.openvino.keep_model`."""

_SIZE_PX = 32


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that this machine has, or could have.

    Attributes:
        name: Of the package, codec, engine or checkpoint.
        state: `"works"` if it ran here, `"installed"` if it is there and was not run, `"missing"`
            if it is not installed or the machine lacks what it needs, or `"broken"` if it is
            installed and fails.
        detail: Its version, decoders or digest; else what is wrong.
        remedy: What to run; empty if there is nothing to do.
    """

    name: str
    state: str
    detail: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True)
class CacheFolder:
    """A folder of the cache on disk.

    Attributes:
        path: The folder, which need not exist.
        files: Number of this package's files in it.
        bytes: Their size together.
    """

    path: Path
    files: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    Attributes:
        version: Of this package.
        python: Version of Python.
        platform: Operating system and kind of processor.
        cores: Number of processor cores that this process may use.
        devices: Names of the devices that TensorFlow sees.
        packages: Those that every installation has.
        extras: The packages of each extra, by the extra's name.
        codecs: Decoders of compressed DICOM files.
        engines: Of `VAEAugment`.
        checkpoints: Those that are packaged.
        caches: The folders of the cache.
    """

    version: str
    python: str
    platform: str
    cores: int
    devices: list[str]
    packages: list[Part]
    extras: dict[str, list[Part]]
    codecs: list[Part]
    engines: list[Part]
    checkpoints: list[Part]
    caches: list[CacheFolder]

    @property
    def broken(self) -> list[Part]:
        """What is installed and fails."""
        groups = (self.packages, *self.extras.values(), self.codecs, self.engines, self.checkpoints)
        return [part for group in groups for part in group if part.state == "broken"]


def diagnose() -> Diagnosis:
    """Look at everything that this package uses; every engine runs a small network.

    Returns:
        What was found. It names no user and no data but by the path of the cache.
    """
    return Diagnosis(
        version=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cores=_count_cores(),
        devices=[device.name for device in tf.config.list_logical_devices()],
        packages=[_find_package(name, "") for name in PACKAGES],
        extras=list_extras(),
        codecs=[check_codec(name) for name in CODECS],
        engines=[check_engine(name) for name in get_args(Engine)],
        checkpoints=[check_checkpoint(name) for name in list_packaged()],
        caches=measure_cache(),
    )


def _count_cores() -> int:
    """Count the cores that this process may use, where the system tells; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def list_extras() -> dict[str, list[Part]]:
    """List the packages of each extra of this package, but for those that develop it.

    Returns:
        By the extra's name; an extra's extras are not repeated. Empty if this package runs from a
        folder without being installed.
    """
    try:
        required = importlib.metadata.requires("vae-aug") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    extras: dict[str, list[Part]] = {}
    for line in required:
        match = re.match(r"""([\w.-]+)(?!.*\[).*;\s*extra\s*==\s*['"]([\w-]+)['"]""", line)
        if match and match[2] not in ("dev", "docs"):
            extras.setdefault(match[2], []).append(_find_package(match[1], match[2]))
    return extras


def _find_package(name: str, extra: str) -> Part:
    """Find the version of a package by what is installed, without importing it."""
    try:
        return Part(name, "installed", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        remedy = f"pip install 'vae-aug[{extra}]'" if extra else f"pip install {name}"
        # What every installation needs is broken where it is not there.
        return Part(name, "missing" if extra else "broken", "not installed", remedy)


def check_codec(name: str) -> Part:
    """Find the packages that decode all transfer syntaxes of a codec.

    Args:
        name: One of `CODECS`.

    Returns:
        The codec, with the decoders that pydicom can use.
    """
    decoders = [get_decoder(syntax) for syntax in CODECS[name]]
    if all(decoder.is_available for decoder in decoders):
        plugins = sorted({plugin for one in decoders for plugin in one.available_plugins})
        return Part(name, "installed", ", ".join(plugins))
    return Part(name, "missing", "no decoder is installed", "pip install 'vae-aug[dicom]'")


class _Probe:
    """A network that halves grey values, which every engine has to be able to run."""

    digest = "probe"
    variables = ()
    config = ModelConfig(image_size=_SIZE_PX)

    @staticmethod
    def list_noise(*_: Any) -> dict[str, NoiseSpec]:
        """List no noise; see `Network`."""
        return {}

    def vary(self, images: tf.Tensor, noise: Noise, **_: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Halve images; see `Network`."""
        return 0.5 * images, 0.5 * images


def check_engine(engine: Engine) -> Part:
    """Run a small network on an engine.

    Args:
        engine: Its name.

    Returns:
        The engine; `"missing"` if its package or an instruction of the processor is missing.
    """
    config = AugmentConfig(mode="denoise", engine=engine)
    images = tf.ones([1, _SIZE_PX, _SIZE_PX, 1])
    try:
        found = make_engine(_Probe(), config)(images, tf.zeros([1, 2], tf.int32))  # type: ignore[arg-type]
        if not np.allclose(found, 0.5, atol=0.01):
            return Part(engine, "broken", "computes wrong values")
    except MissingPackageError as error:
        return Part(engine, "missing", "not installed", _find_command(str(error)))
    except EngineError as error:
        return Part(engine, "missing", str(error))
    except Exception as error:
        # Whatever a broken installation raises is what is to be reported.
        return Part(engine, "broken", f"{type(error).__name__}: {_shorten(str(error))}")
    return Part(engine, "works", "ran a small network")


def _find_command(text: str) -> str:
    """Return the command of pip in a message."""
    match = re.search(r"pip install '[^']+'", text)
    return match[0] if match else ""


def _shorten(text: str) -> str:
    """Return the first line of a message."""
    return (text.strip().splitlines() or [""])[0]


def check_checkpoint(name: str) -> Part:
    """Read the digest of a packaged checkpoint.

    Args:
        name: Of the checkpoint.

    Returns:
        The checkpoint, with its digest.
    """
    try:
        return Part(name, "installed", read_manifest(name)["digest"])
    except CheckpointError as error:
        return Part(name, "broken", str(error), "install vae-aug again")


def measure_cache() -> list[CacheFolder]:
    """Count this package's files in the folders of the cache.

    Returns:
        The folders; one that is not there or may not be read has no files.
    """
    sizes = {name: [size for _, size in _list_cached(name)] for name in CACHED}
    return [CacheFolder(get_cache_dir() / name, len(of), sum(of)) for name, of in sizes.items()]


def empty_cache() -> list[CacheFolder]:
    """Remove this package's files from the folders of the cache, and folders that are then empty.

    Files of other names stay. A process that uses a graph has it in memory and goes on.

    Returns:
        The folders, each with the number and size of what was removed.

    Raises:
        OSError: If a file may not be removed.
    """
    return [_empty_folder(name) for name in CACHED]


def _empty_folder(name: str) -> CacheFolder:
    folder = get_cache_dir() / name
    count = size = 0
    for path, length in list(_list_cached(name)):
        path.unlink(missing_ok=True)
        count, size = count + 1, size + length
        if path.parent != folder:
            with contextlib.suppress(OSError):  # it holds other files, or another run's
                path.parent.rmdir()
    return CacheFolder(folder, count, size)


def _list_cached(name: str) -> Iterator[tuple[Path, int]]:
    """Yield the files of a folder of the cache by their names, with their sizes in bytes."""
    below, files = CACHED[name]
    folder = get_cache_dir() / name
    folders = [folder]
    if below:
        folders = [path for path in _list_entries(folder) if re.fullmatch(below, path.name)]
    for each in folders:
        for path in _list_entries(each):
            if re.fullmatch(files, path.name) and path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # gone since
                    yield path, path.stat().st_size


def _list_entries(folder: Path) -> list[Path]:
    """List what is in a folder, nothing if it is a link, not there, or not this user's."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return []


def hide_home(value: Any) -> Any:
    """Write `~` for the user's home folder in every text and path of JSON values.

    Args:
        value: Values as `vae_aug.json_values.make_json` returns them.

    Returns:
        The same values with other texts.
    """
    if isinstance(value, dict):
        return {key: hide_home(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [hide_home(entry) for entry in value]
    if not isinstance(value, str):
        return value
    homes = sorted({os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))}, key=len)
    for home in reversed(homes):
        if home not in ("~", os.sep):
            whole = rf"(?<![\w.-]){re.escape(home.rstrip(os.sep))}(?![\w.-])"
            value = re.sub(whole, "~", value)
    return value
