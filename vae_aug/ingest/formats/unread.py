"""Files that look like annotations and that no reader opened: whose they may be is in doubt."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.all_splits import SplitsRead, read_splits
from vae_aug.ingest.formats.borders import list_borders, note_opened
from vae_aug.ingest.formats.class_folders import doubt_class_folders
from vae_aug.ingest.formats.copies import doubt_copies
from vae_aug.ingest.formats.labelme import parse_labelme
from vae_aug.ingest.formats.layout import SPLIT_WORDS, fold_name, lies_in_other_split
from vae_aug.ingest.formats.mask_files import is_mask_name, split_name
from vae_aug.ingest.formats.nifti_names import tell_folder
from vae_aug.ingest.formats.nifti_pairs import UNREAD_SUFFIXES
from vae_aug.ingest.formats.other_formats import doubt_contradicted
from vae_aug.ingest.formats.source import AnnotatedImage, Annotations, Problem, ReaderOptions
from vae_aug.ingest.formats.suspects import is_packed, is_telling, survey
from vae_aug.ingest.formats.voc import parse_voc
from vae_aug.ingest.formats.walk import walk
from vae_aug.ingest.nifti import is_nifti
from vae_aug.limits import MAX_ANNOTATION_BYTES, read_bounded

_BY_IMAGE = frozenset({"yolo", "voc", "labelme", "supervisely", "lidc", "masks", "nifti", "dicom"})
"""Formats in which what is said of an image lies in a file of its own, so that it may be lost.

A format whose one file lists all images says itself of which it has nothing to say.
"""

_OF_VOLUMES = (*UNREAD_SUFFIXES, ".nii", ".nii.gz", ".roi", ".stl", ".vtk", ".mrk.json", ".fcsv")
_OF_ARRAYS = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".obj", ".ply", ".dcm")
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+)+")
_BY_NAME = "bears the name or UID of an image and was not read, so that it may hold boxes of it"
_BY_FOLDER = "lies in the folder of a patient and was not read, so that it may hold boxes of it"
_BY_ANY = "may hold annotations and was not read; unpack, convert or remove it"


def read_with_doubts(
    format: str,
    source: Path,
    split: str,
    options: ReaderOptions,
    named: Sequence[str] = (),
    *,
    is_told: bool = False,
) -> SplitsRead:
    """Read a data set, and mark images without boxes as faulty that files left unread may describe.

    Such a file bears the name of an image; or it is a volume in a patient's folder, or an archive,
    where each image has a file of its own; or it lies beside DICOM and is called like annotations,
    or may be a segmentation; or it is of another format, and says that the image has boxes. Copies
    of an image that are described differently are faulty, too, and so are images without boxes
    beside a folder such as `normal`.

    Args:
        format: As `read_splits`.
        source: As `read_splits`.
        split: As `read_splits`; files in the folders of other splits are not looked at.
        options: As `read_splits`.
        named: Files that the format's reader does not read, relative to the source.
        is_told: Whether the user named the format, so that there may be annotations of others.

    Returns:
        What was read. Its problems name the files that leave doubts, but for those of `named`.
    """
    with note_opened() as opened:
        annotations, files = read_splits(format, source, split, options)
    is_searched = source.is_dir() and (format in _BY_IMAGE or is_told)
    left = {source / p.file for p in annotations.problems if p.effect == "skipped"}
    unopened = (
        _list_unopened(source, format, split, opened - left, annotations.images)
        if is_searched
        else []
    )
    root = source if source.is_dir() else source.parent
    annotations = doubt_copies(annotations)
    annotations = doubt_class_folders(annotations, list_borders(source, options.images))
    annotations = _doubt(annotations, root, format, named, unopened)
    read = SplitsRead(annotations, files)
    return doubt_contradicted(read, format, source, split, options, is_told=is_told)


def _list_unopened(
    source: Path, format: str, split: str, opened: Set[Path], images: Iterable[AnnotatedImage]
) -> list[Path]:
    """List the files of a source that look like annotations and that its reader did not open."""
    files = survey(source)
    found = [path for path in files.suspects if path not in opened]
    if format == "nifti":
        paths = map(Path, walk(source, lambda name: name[0] != "."))
        found += [path for path in paths if path.name.lower().endswith(UNREAD_SUFFIXES)]
    if format == "dicom":
        taken = {image.path for image in images}
        pictures = [path for path in files.images if path not in taken and path not in files.dicom]
        found += [*files.volumes, *(path for path in pictures if is_mask_name(path, source))]
    return sorted(
        path for path in found if not lies_in_other_split(path.relative_to(source), split)
    )


def _doubt(
    annotations: Annotations,
    source: Path,
    format: str,
    named: Iterable[str],
    unopened: Iterable[Path],
) -> Annotations:
    """Mark the images without boxes that a file may describe, and report further such files."""
    index = _Index(annotations.images)
    told = dict.fromkeys(source / name for name in named)
    reported = {source / p.file for p in annotations.problems if p.effect == "skipped"}
    doubted: set[str] = set()
    problems: list[Problem] = []
    for path in dict.fromkeys([*told, *unopened]):
        # BIDS and dcm2niix describe each volume in a JSON file of its name.
        if format == "nifti" and path.suffix.lower() == ".json" and index.knows(path.stem):
            continue
        meant, reason = index.find(path), _BY_NAME
        if meant and path not in told and _is_negative(path):
            continue
        if not meant and format in _BY_IMAGE and _may_be_of_any(path, source, format):
            meant, reason = index.everyone, _BY_ANY
        if not meant and format in _BY_IMAGE and _is_volume(path):
            meant, reason = index.find_in_folder(path, source), _BY_FOLDER
        if not meant and format == "dicom":
            meant = _find_mentioned(path, index.everyone)
        if meant and path not in told and path not in reported:
            problems.append(Problem(path.relative_to(source).as_posix(), reason, "skipped"))
        doubted |= meant
    return annotations.doubt(doubted, problems)


def _is_negative(path: Path) -> bool:
    """Tell whether a file says in a format of its own that its image has no boxes.

    Data sets that are exported in two formats have such a file for each negative.
    """
    suffix = path.suffix.lower()
    with contextlib.suppress(AnnotationError, OSError):
        if suffix == ".xml":
            return parse_voc(path).entries == ()
        if suffix == ".json":
            content = parse_labelme(path)
            return not (content.entries or content.flags or content.is_unannotated)
        return suffix == ".txt" and path.is_file() and not path.stat().st_size
    return False


def _may_be_of_any(path: Path, source: Path, format: str) -> bool:
    """Tell whether a file may hold annotations of images whose name it does not bear."""
    if is_packed(path):
        # What was unpacked lies beside the archive.
        return not (path.parent / path.name.partition(".")[0]).is_dir()
    name = path.relative_to(source)
    is_volume = path.name.lower().endswith(_OF_VOLUMES)
    return format == "dicom" and (is_volume or any(map(is_telling, name.parts)))


def _is_volume(path: Path) -> bool:
    """Tell whether a file is one of a volume, or an array that is called like annotations."""
    name = path.name.lower()
    return name.endswith(_OF_VOLUMES) or (name.endswith(_OF_ARRAYS) and is_telling(name))


def _find_mentioned(path: Path, source_ids: Set[str]) -> set[str]:
    """Return the DICOM images whose SOP Instance UID stands in a file."""
    if path.is_symlink():
        return set()
    try:
        uids = set(_UID.findall(read_bounded(path, MAX_ANNOTATION_BYTES)))
    except VAEAugError:
        return set()
    return {name for name in source_ids if name.partition("#")[0].encode() in uids}


class _Index:
    """Finds images by the names of files beside them."""

    def __init__(self, images: Sequence[AnnotatedImage]) -> None:
        empty = [image for image in images if not image.labels]
        self.everyone = {image.source_id for image in empty}
        self._images: dict[str, dict[Path, set[str]]] = {}
        self._folders: dict[Path, list[AnnotatedImage]] = {}
        # Of an image with boxes the name counts too: a file of its name is not another's.
        for image in images:
            self._folders.setdefault(image.path.parent, []).append(image)
            for name in dict.fromkeys(map(fold_name, _list_names(image.path))):
                folders = self._images.setdefault(name, {})
                folders.setdefault(image.path.parent, set()).add(image.source_id)

    def knows(self, name: str) -> bool:
        """Tell whether a name is that of an image."""
        return fold_name(name) in self._images

    def find(self, file: Path) -> set[str]:
        """Return the ids of the images that a file names, those in its own folder before others."""
        for name in _list_stems(file.name):
            for stem in (name, *(stem for _, stem in split_name(name))):
                if folders := self._images.get(stem):
                    found = folders.get(file.parent)
                    return (found or set().union(*folders.values())) & self.everyone
        return set()

    def find_in_folder(self, file: Path, source: Path) -> set[str]:
        """Return the ids of the images in the folder of a file, if that is one of a patient.

        It is that of the file, or the nearest above it in which images lie, also in folders. Its
        images are of one patient, or it is neither the source nor called after a split or a kind of
        files, and the file is called like annotations.
        """
        for folder in (path for path in file.parents if path.is_relative_to(source)):
            places = [place for place in self._folders if place.is_relative_to(folder)]
            images = [image for place in places for image in self._folders[place]]
            if images:
                name = fold_name(folder.name)
                is_shared = folder == source or name in SPLIT_WORDS or tell_folder(name)
                is_of_one = len({image.patient or image.source_id for image in images}) == 1
                is_meant = is_of_one or (not is_shared and is_telling(file.name))
                return {image.source_id for image in images} & self.everyone if is_meant else set()
        return set()


def _list_names(image: Path) -> Iterator[str]:
    yield image.name
    yield image.stem
    if is_nifti(image):
        yield image.name[: image.name.lower().rindex(".nii")]


def _list_stems(name: str) -> list[str]:
    """Return a name and its beginnings up to a point, `a.b.json`, `a.b`, `a`, folded."""
    parts = fold_name(name).split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
