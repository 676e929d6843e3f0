"""Denoise files on disk: PNG, JPEG, TIFF and DICOM in, the same names and kinds out.

Every output carries a mark that names the checkpoint and the window (a PNG or JPEG comment, the
derivation description of a DICOM object, behind the end of a TIFF), so that a run can be resumed,
and files of another origin are neither taken for finished nor overwritten.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pydicom
import tensorflow as tf
from PIL import Image
from pydicom.errors import InvalidDicomError

from vae_aug.atomic import lock_folder, remove_temporaries, write_atomic
from vae_aug.augment.transform import VAEAugment
from vae_aug.codecs.exif import find_orientation
from vae_aug.codecs.extent import Extent, join_extents, measure_extent
from vae_aug.codecs.images import parse_image_header, read_image
from vae_aug.codecs.tiff import is_tiff
from vae_aug.config import DicomAs, check_choice, check_number
from vae_aug.errors import RecordError, VAEAugError
from vae_aug.ingest.dicom.derived import derive_dicom, read_picture
from vae_aug.ingest.dicom.file import is_dicom
from vae_aug.ingest.dicom.image import check_window, read_dicom
from vae_aug.ingest.dicom.values import Window, quantize
from vae_aug.ingest.formats.source import describe_fault
from vae_aug.ingest.hounsfield import find_stored_limits
from vae_aug.limits import MAX_IMAGE_BYTES, read_bounded
from vae_aug.model.network import Network

_Restore = Callable[[np.ndarray], np.ndarray]
"""Image `[H, W, 1 or 3]` to its reconstruction, same size and dtype."""

JPEG_QUALITY = 95

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
_KINDS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
}
_PNG_HEADER_BYTES = 33  # signature and IHDR
_ORIENTATION = 0x0112
_DIGEST_CHARACTERS = 16


@dataclasses.dataclass(frozen=True)
class DenoiseReport:
    """What `denoise_files` did.

    Attributes:
        written: Files denoised.
        kept: Files that an earlier run had denoised with the same checkpoint, window and strength.
        ignored: Files of other kinds (text, a DICOMDIR); hidden ones are not even counted.
        failed: Images left out, as (file relative to the source, reason).
        extent: What the images written that have 16 bits fill of their range, as the network saw
            them.
    """

    written: int
    kept: int
    ignored: int
    failed: tuple[tuple[str, str], ...]
    extent: Extent = dataclasses.field(default_factory=Extent)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One image: where it comes from, where it goes, what it is and becomes."""

    source: Path
    target: Path
    name: str
    kind: str
    becomes: str


def denoise_files(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    ckpt: str | os.PathLike[str] | Network,
    *,
    strict: bool = False,
    dicom_as: DicomAs = "dicom",
    window: Window | None = None,
    strength: Literal["auto"] | float = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> DenoiseReport:
    """Denoise an image or all images of a folder, one at a time.

    The profile `ladder` sees an image at its own resolution, with 0.3 GB of memory a megapixel;
    the profile `vector` sees it fitted into its square, and its output is scaled back.

    Names, sizes, bit depths (of at least 8) and channels are kept. In colour the luminance
    changes and the differences between channels stay; equal channels stay equal; the alpha of a PNG
    is copied. A JPEG is compressed anew at quality 95. Of the metadata of PNG and JPEG only EXIF's
    orientation is kept; text, colour profiles and palettes are left out. A TIFF is read as
    `vae_aug.codecs.tiff.decode_tiff` says, turned as its tag Orientation says, and loses its other
    tags, its resolution among them. A DICOM object comes out as `vae_aug.ingest.dicom.derived`
    says: same patient, same geometry, marked as derived.

    A run can be interrupted and started again: files appear whole or not at all, and those that
    are there are kept.

    Args:
        source: File or folder; folders are searched through. What a file is, is told from its
            first bytes, not its name.
        out: Folder, which gets the source's subfolders. For a single file also the name of the
            output, if it ends in the suffix of an image.
        ckpt: As `VAEAugment`.
        strict: Raise at the first image that cannot be denoised instead of leaving it out.
        dicom_as: What DICOM files become: `"dicom"`, or `"png"` of 16 bits (8 if the file stores
            no more), for which `.dcm` is replaced by `.png`.
        window: What the network is shown. Training data went through the same choice in `ingest`.
            Of DICOM images, as `read_dicom`; a derived DICOM keeps what lies outside of it. Of PNG
            and TIFF of 16 bits, as `vae_aug.ingest.hounsfield.show_stored`, in the values of the
            files, which the output keeps; pixels outside of the window stay as they are. `"auto"`
            shows such files from 0 to 65,535.
        strength: Share of the change that is made, 0 to 1; `"auto"` leaves out what is not noise,
            place by place, see `vae_aug.augment.adaptive`.
        progress: Called with (images done, images in all).

    Returns:
        The report.

    Raises:
        ValueError: On a bad argument, or an output that would replace a source.
        CheckpointError: If the checkpoint cannot be loaded.
        VAEAugError: If there are no images, two of them would get one name, a file of another
            origin has the name of an output, the disk refuses, or, under `strict`, on the first
            image that cannot be denoised.
    """
    check_choice("dicom_as", dicom_as, DicomAs)
    window = "auto" if window is None else window
    source, out = Path(source), Path(out)
    share = (
        1.0
        if strength == "auto"
        else check_number("strength", strength, 0, 1, hint='Or give "auto".')
    )
    augment = VAEAugment(ckpt, mode="denoise", factor=share, adaptive=strength == "auto")
    restore, marks = _trace(augment), _make_marks(augment, check_window(window))
    jobs, ignored = _plan(source, out, dicom_as)
    waiting = [job for job in jobs if not _is_done(job, marks[job.kind])]
    failed: list[tuple[str, str]] = []
    extent = Extent()
    with _clean_up([job.target for job in jobs]):
        for done, job in enumerate(waiting, start=1 + len(jobs) - len(waiting)):
            try:
                data, found = _denoise(job, restore, marks[job.kind], window)
            except VAEAugError as error:
                if strict:
                    raise
                failed.append((job.name, describe_fault(job.source, error)))
            else:
                _write(job.target, data)
                extent = join_extents((extent, found))
            if progress is not None:
                progress(done, len(jobs))
    return DenoiseReport(
        written=len(waiting) - len(failed),
        kept=len(jobs) - len(waiting),
        ignored=ignored,
        failed=tuple(failed),
        extent=extent,
    )


@contextlib.contextmanager
def _clean_up(targets: Sequence[Path]) -> Iterator[None]:
    """Remove what killed runs left of these files, unless another run is writing beside them."""
    folder = Path(os.path.commonpath([target.parent.absolute() for target in targets]))

    def remove_folder() -> None:
        with contextlib.suppress(OSError):  # unless something was written
            folder.rmdir()

    with contextlib.ExitStack() as stack:
        if not folder.exists():
            stack.callback(remove_folder)
        # Where a disk refuses, the first file that is written says so.
        with contextlib.suppress(RecordError, OSError):
            if stack.enter_context(lock_folder(folder)):
                remove_temporaries(*targets)
        yield


def _plan(source: Path, out: Path, dicom_as: str) -> tuple[list[_Job], int]:
    """List the images and count the files that are none."""
    if source.is_file():
        files, root = [source], source.parent
    elif source.is_dir():
        files, root = _list_files(source, out), source
    else:
        raise VAEAugError(f"{source}: no such file or folder.")
    jobs = []
    for path in files:
        kind = _find_kind(path)
        if kind is not None:
            becomes = "png" if kind == "dicom" and dicom_as == "png" else kind
            name = path.relative_to(root)
            target = out / (name if becomes == kind else _rename(name))
            if source.is_file() and out.suffix.lower() in _KINDS and not out.is_dir():
                target = _check_name(out, becomes)
            jobs.append(_Job(path, target, name.as_posix(), kind, becomes))
    if not jobs:
        raise VAEAugError(f"{source}: holds no PNG, JPEG, TIFF or DICOM image.")
    _check_targets(jobs)
    return jobs, len(files) - len(jobs)


def _list_files(source: Path, out: Path) -> list[Path]:
    """List the files of a folder but those that are hidden or output."""
    inside_out = out.resolve()
    return [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
        and (inside_out == source.resolve() or inside_out not in path.resolve().parents)
    ]


def _find_kind(path: Path) -> str | None:
    """Tell a value of `_KINDS` from a file's first bytes, else from its name."""
    if is_dicom(path):
        # The index of a medium has the prefix too, and never an image.
        return None if path.name == "DICOMDIR" else "dicom"
    start = b""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        start = file.read(8)
    if is_tiff(start):
        return "tiff"
    by_content = (kind for magic, kind in _SIGNATURES.items() if start.startswith(magic))
    # A name that promises an image makes a file that is none worth a word.
    return next(by_content, _KINDS.get(path.suffix.lower()))


def _rename(name: Path) -> Path:
    """Give a DICOM file's name the suffix of a PNG; UIDs as names have dots that are no suffix."""
    is_suffix = _KINDS.get(name.suffix.lower()) == "dicom"
    return name.with_suffix(".png") if is_suffix else name.with_name(f"{name.name}.png")


def _check_name(out: Path, becomes: str) -> Path:
    """Check that the name of a single output suits what it becomes."""
    if _KINDS[out.suffix.lower()] != becomes:
        suffixes = " or ".join(suffix for suffix, kind in _KINDS.items() if kind == becomes)
        raise ValueError(f"{out}: the output is {becomes}; its name must end in {suffixes}.")
    return out


def _check_targets(jobs: Sequence[_Job]) -> None:
    """Check that no output replaces a source or another output."""
    sources = {job.source.resolve() for job in jobs}
    by_target: dict[Path, _Job] = {}
    for job in jobs:
        if job.target.resolve() in sources:
            raise ValueError(f"{job.target}: is a source; give another folder for the output.")
        other = by_target.setdefault(job.target, job)
        if other is not job:
            raise VAEAugError(
                f"{job.name} and {other.name} would both become {job.target.name}; rename one."
            )


def _make_marks(augment: VAEAugment, window: Window) -> dict[str, str]:
    """Make the texts by which outputs of each kind of source are known again."""
    digest = augment.checkpoint.digest[:_DIGEST_CHARACTERS] or "unsaved"
    start = "Denoised by vae_aug (reconstruction by a variational autoencoder)"
    shown = window if isinstance(window, str) else f"{window[0]:.9g}/{window[1]:.9g}"
    config = augment.config
    if config.adaptive or config.factor != 1:
        start += f", strength {'auto' if config.adaptive else f'{config.factor:.9g}'}"
    plain, windowed = (
        f"{start}, checkpoint {digest}",
        f"{start}, window {shown}, checkpoint {digest}",
    )
    stored = plain if window == "auto" else windowed
    return {"png": stored, "tiff": stored, "jpeg": plain, "dicom": windowed}


def _is_done(job: _Job, mark: str) -> bool:
    """Tell whether an output is there and whole; refuse files of another origin."""
    try:
        data = job.target.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise VAEAugError(f"{job.target}: cannot be read ({error.strerror}).") from error
    if mark.encode() not in data:
        raise VAEAugError(
            f"{job.target}: exists, and was not denoised with this checkpoint, window and "
            "strength. Give another folder, or delete it."
        )
    match job.becomes:
        case "png":
            return data.endswith(b"IEND\xaeB`\x82")
        case "jpeg":
            return data.endswith(b"\xff\xd9")
        case "tiff":
            return data.endswith(mark.encode())
        case _:
            return _is_whole_dicom(data)


def _is_whole_dicom(data: bytes) -> bool:
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        expected = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
        return len(dataset.PixelData) >= expected
    except (InvalidDicomError, AttributeError, EOFError, OSError):
        return False


def _trace(augment: VAEAugment) -> _Restore:
    """Make one graph per dtype and number of channels, for any size.

    Some 400 small operations surround the network; one by one they take half of the time.
    """

    @functools.cache
    def trace(dtype: str, channels: int) -> Any:
        return tf.function(
            lambda pixels: augment(pixels),
            autograph=False,
            input_signature=[tf.TensorSpec([None, None, channels], dtype)],
        )

    return lambda pixels: trace(pixels.dtype.name, pixels.shape[2])(pixels).numpy()


def _denoise(job: _Job, restore: _Restore, mark: str, window: Window) -> tuple[bytes, Extent]:
    """Return the output file of an image, and what of its range the network saw filled."""
    if job.kind == "dicom":
        if job.becomes == "png":
            shown = read_dicom(job.source, window).pixels
            return _encode_png(restore(shown), mark), measure_extent(shown, windowed=True)
        picture = read_picture(job.source, window)
        extent = measure_extent(quantize(picture.pixels, 16), windowed=True)
        return derive_dicom(picture, restore(picture.pixels), mark), extent
    # PNG and JPEG as stored: the copy keeps the tag by which viewers turn it.
    stored = read_image(job.source, exif="apply" if job.kind == "tiff" else "ignore")
    pixels, extent = _restore_stored(stored, restore, window)
    if job.kind == "tiff":
        return _encode_tiff(pixels, mark), extent
    data = read_bounded(job.source, MAX_IMAGE_BYTES)
    orientation = find_orientation(data)
    if job.kind == "jpeg":
        return _encode_jpeg(pixels, mark, orientation), extent
    return _encode_png(_restore_alpha(pixels, data), mark, orientation), extent


def _restore_stored(
    stored: np.ndarray, restore: _Restore, window: Window
) -> tuple[np.ndarray, Extent]:
    """Restore `[H, W, 1 or 3]`, of 16 bits only what lies within the window."""
    if stored.dtype != np.uint16 or window == "auto":
        return restore(stored), measure_extent(stored, windowed=False)
    low, high = find_stored_limits(stored, window)
    span = max(high - low, 1e-9)  # of an image of one value
    shown = np.clip((stored - low) / span, 0, 1).astype(np.float32)
    change = np.rint((restore(shown) - shown) * span)
    inside = ((stored >= low) & (stored <= high)).all(axis=-1, keepdims=True)
    changed = np.clip(stored + change, 0, np.iinfo(np.uint16).max).astype(np.uint16)
    extent = measure_extent(quantize(shown, 16), windowed=True)
    return np.where(inside, changed, stored), extent


def _restore_alpha(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """Put the alpha channel of a PNG behind its denoised pixels."""
    if parse_image_header(data)[2] not in (2, 4):
        return pixels
    alpha = tf.io.decode_png(data, dtype=pixels.dtype).numpy()[..., -1:]
    return np.concatenate([pixels, alpha], axis=-1)


def _encode_png(pixels: np.ndarray, mark: str, orientation: int = 1) -> bytes:
    """Encode `[H, W, 1 to 4]` with the mark as a text chunk, PNG 11.3.3.3, and how it is turned."""
    data = tf.io.encode_png(pixels, compression=3).numpy()
    chunks = _make_chunk(b"tEXt", b"Comment\0" + mark.encode())
    if orientation != 1:
        chunks += _make_chunk(b"eXIf", _make_exif(orientation).removeprefix(b"Exif\0\0"))
    return data[:_PNG_HEADER_BYTES] + chunks + data[_PNG_HEADER_BYTES:]


def _make_chunk(kind: bytes, payload: bytes) -> bytes:
    chunk = kind + payload
    return struct.pack(">I", len(payload)) + chunk + struct.pack(">I", zlib.crc32(chunk))


def _make_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif.tobytes()


def _encode_tiff(pixels: np.ndarray, mark: str) -> bytes:
    """Encode `[H, W, 1 or 3]` with the mark behind the end, where readers do not look."""
    _, data = cv2.imencode(".tif", np.ascontiguousarray(pixels[..., ::-1]))  # OpenCV has BGR
    return data.tobytes() + mark.encode()


def _encode_jpeg(pixels: np.ndarray, mark: str, orientation: int) -> bytes:
    """Encode `[H, W, 1 or 3] uint8` with the mark as a comment, and how it is to be turned."""
    # Full chroma: sampled down, it would no longer be the source's.
    data = tf.io.encode_jpeg(
        pixels, quality=JPEG_QUALITY, optimize_size=True, chroma_downsampling=False
    ).numpy()
    segments = _make_segment(0xFE, mark.encode())
    if orientation != 1:
        segments = _make_segment(0xE1, _make_exif(orientation)) + segments
    (length,) = struct.unpack(">H", data[4:6])  # of the JFIF segment, which must stay first
    return data[: 4 + length] + segments + data[4 + length :]


def _make_segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _write(target: Path, data: bytes) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
    except OSError as error:
        raise VAEAugError(f"{target}: cannot be written ({error.strerror}).") from error
