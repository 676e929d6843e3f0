"""What the names of volumes and of their folders tell: image or labels, and of which patient.

Names count in any letter case and Unicode form.

Reference:
    Gorgolewski et al., The Brain Imaging Data Structure, Scientific Data 3 (2016), for names that
    begin with `sub-`; the published layouts of the data sets in `docs/sources.md` for the others.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from vae_aug.ingest.formats.layout import SPLIT_WORDS, fold_name

Kind = Literal["image", "labels", "brain", "map"]
Words = tuple[str, ...]

_LABELS = re.compile(
    r"(?:\d*labels?|segs?|segm|dseg|aseg|msk|lbl|gt|truth|annot|annotations?"
    r"|[a-z]*(?:masks?|segmentations?|labelmaps?|groundtruths?))\d*"
)
"""Words that name labels, and nothing else."""

_MARKED = re.compile(
    r"lesions?|tumou?rs?|rois?|[gcp]tv[a-z]?|wmh|consensus|infarcts?|contours?|nodules?"
)
"""Words for what labels mark, which name images, too; then the values decide."""

_MODIFIERS = re.compile(
    r"(?:manual|final|aggregated|maj|majority|staple|and|or|ground|instance"
    r"|expert|rater|reader|annotator|v)\d*"
)
"""What further describes labels."""

_RATERS = re.compile(
    r"(?:^|[\W_])(?:manualsegmentation|expert|rater|reader|annotator|annotation)[\W_]?\d+$"
    r"|aggregated_(?:and|or)_seg$"
)
"""Labels of one of several people, or a union of theirs, which a consensus stands for."""

_MAPS = re.compile(
    r"prob|probs|probseg|probmap|probability|probabilities|softmax|heatmap|uncertainty"
    r"|preds?|predicted|predictions?"
)
"""Maps of probabilities, and what a network predicted, which are no labels by people."""

_CONTRAST = re.compile(
    r"(?:3d|ce|hr|post|pre)?(?:t1|t2|pd|flair|t1w|t2w|pdw|t1n|t1c|t1ce|t1gd|t1km|t2f|t2s)"
    r"|dwi|adc|swi|hbv|tof|bold|mprage|ana|mri?|ct|ncct|cta|cbct|cbf|cbv|mtt|tmax|pet|pt|suv"
)
"""How names tell the images of one examination apart: BIDS' suffixes, those of BraTS and others."""

_LEADING = frozenset({"image", "img", "imaging", "volume", "vol"})
_PROCESSED = _LEADING | {
    *("images", "data", "org", "orig", "native", "norm", "normalized", "n4", "bet", "stripped"),
    *("skullstripped", "brain", "preprocessed", "preproc", "registered", "reg", "resampled"),
    *("corrected", "cropped", "resized"),
}
"""What further describes images."""

_TIME = re.compile(
    r"(?:frame|phase|time|timepoint|tp|visit|ses|session)\d+|4d|baseline|followup|ed|es|sa|la"
)
"""What tells apart images that were made of one patient: points in time, phases and planes."""

_DATATYPES = frozenset({"anat", "dwi", "func", "perf", "fmap", "pet", "ct", "mr", "mri"})
_IMAGE_FOLDERS = (
    _LEADING
    | _DATATYPES - {"fmap"}
    | {
        *("images", "imgs", "volumes", "scan", "scans", "cts", "ctscans", "data", "raw", "rawdata"),
        *("orig", "pre", "preprocessed", "preprocesseddata", "nifti", "flair", "t1", "t2"),
    }
)
_SPLIT_ENDINGS = {"tr": "train", "va": "validation", "ts": "test"}
_WORD = re.compile(
    r"(?:image|img|volume|vol|labels?|masks?|segmentation|seg|gt)(?=\d)|[^\W_]+", re.IGNORECASE
)
_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+(?![A-Za-z0-9])")
_DESCRIPTION = re.compile(r"_(?:label|desc)-(?!brain)[A-Za-z0-9]+", re.IGNORECASE)
_BRAIN_MASK = re.compile(r"(?:desc|label)-[a-z0-9]*brain")
# BIDS: what labels are of, and on which of several grids an image lies.
_ENTITIES_OF_LABELS = ("desc-", "label-", "seg-", "labels-", "lesion-")
_ENTITIES_OF_GRIDS = ("space-", "res-", "den-")


class Volume(NamedTuple):
    """What the path of a volume tells.

    Attributes:
        path: The file.
        kind: `"image"`, `"labels"`, `"brain"` (a mask of the brain), or `"map"` (probabilities,
            or what a network predicted).
        place: Folders from the source on, without that which tells images from labels.
        exact: Words of the name, without those that name labels.
        scan: Words that the images of one examination have in common with its labels.
        case: The same without BIDS' entities of grids.
        class_name: What labels may be called: BIDS' entity `label-`, or in a folder of labels a
            name without a word for labels, e.g. `liver`; `""` without one.
        patient: The patient, who has this name within `home`; `""` of labels.
        home: Folders from the source on, without those of one patient.
        split: Of the folder that has one; `""` of others.
        has_role: Whether a folder tells images from labels.
    """

    path: Path
    kind: Kind
    place: Words
    exact: Words
    scan: Words
    case: Words
    class_name: str
    patient: str
    home: Words
    split: str
    has_role: bool

    @property
    def channel(self) -> int | None:
        """The number that nnU-Net puts behind a name, None if there is none."""
        number = self.exact[-1] if len(self.exact) > 1 else ""
        return int(number) if re.fullmatch(r"[0-9]{4}", number) else None

    @property
    def is_of_a_rater(self) -> bool:
        """Whether the labels are those of one of several people."""
        return bool(_RATERS.search(fold_name(get_stem(self.path))))


def get_stem(path: Path) -> str:
    """Return the name of a volume without `.nii` or `.nii.gz`."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def names_mark(name: str) -> bool:
    """Tell whether a name is a word for what labels mark, as `tumour` is."""
    return _MARKED.fullmatch(fold_name(name)) is not None


def parse_volumes(
    paths: Sequence[Path], root: Path, has_labels: Callable[[Path], bool]
) -> list[Volume]:
    """Tell from their paths what volumes are.

    Args:
        paths: All volumes of the folder `root`.
        root: The folder.
        has_labels: Tells whether the values of a volume may be labels, where a name can be that of
            labels as well as that of an image, e.g. `case_lesion`.

    Returns:
        The volumes, in the same order.
    """
    named: dict[Path, set[Kind]] = {}
    for path in paths:
        kind, is_certain = _find_kind(_split_words(get_stem(path))[0], "")
        if is_certain:
            named.setdefault(path.parent, set()).add(kind)
    # A folder that holds "1.nii" and "1_seg.nii" is none of labels, whatever it is called.
    mixed = {folder for folder, kinds in named.items() if kinds >= {"image", "labels"}}
    return [_parse(path, root, path.parent in mixed, has_labels) for path in paths]


def _parse(path: Path, root: Path, is_mixed: bool, has_labels: Callable[[Path], bool]) -> Volume:
    folders = path.relative_to(root).parts[:-1]
    stem = unicodedata.normalize("NFC", get_stem(path))
    words, _ = _split_words(stem)
    role, split, place = _find_role(folders, is_mixed)
    subject = _SUBJECT.match(stem)
    if subject:
        place = _cut_at_subject(place)
    # Below "derivatives" of BIDS every name tells by itself what it is.
    kind, is_certain = _find_kind(words, "" if subject and "derivatives" in folders else role)
    if any(map(_MAPS.fullmatch, (*words, *map(str.casefold, folders)))):
        kind = "map"
    elif not is_certain and not has_labels(path):
        kind = "image"
    exact = _strip_labels(words) if kind == "labels" else words
    scan = _strip_scan(exact, is_labels=kind == "labels")
    case = tuple(word for word in scan if not word.startswith(_ENTITIES_OF_GRIDS))
    entity = re.search(r"_label-([^_]+)", stem) if subject else None
    class_name = stem if role == "labels" and _find_label_word(words) is None else ""
    class_name = entity[1] if entity else class_name
    own = [unicodedata.normalize("NFC", name) for name in folders if fold_name(name) in place]
    patient = _name_patient(stem, scan, own) if kind == "image" else ""
    return Volume(
        path=path,
        kind=kind,
        place=place,
        exact=exact,
        scan=scan,
        case=case,
        class_name=class_name,
        patient=patient,
        home=_find_home(own, patient),
        split=split,
        has_role=bool(role),
    )


def _split_words(stem: str) -> tuple[Words, list[tuple[int, int]]]:
    """Return the words of a name in one letter case, and where they begin and end."""
    stem = unicodedata.normalize("NFC", stem)
    if _SUBJECT.match(stem):
        matches = list(re.finditer(r"[^_]+", stem))
    else:
        stem = _DESCRIPTION.sub(lambda found: "_" * len(found[0]), stem)
        matches = list(_WORD.finditer(stem))
    return tuple(match[0].casefold() for match in matches), [match.span() for match in matches]


def _find_role(folders: Sequence[str], is_mixed: bool) -> tuple[str, str, Words]:
    """Return the role of the nearest folder with one, its split, and the other folders."""
    place, role, split = [fold_name(name) for name in folders], "", ""
    for index in reversed(range(len(place))):
        role, ending = _tell_folder(place[index])
        if role and not (role == "labels" and is_mixed and index == len(place) - 1):
            split = _SPLIT_ENDINGS.get(ending, "")
            place[index : index + 1] = [split] if split else []
            break
        role = ""
    split = split or next((name for name in place if name in SPLIT_WORDS), "")
    return role, split, tuple(place)


def _tell_folder(name: str) -> tuple[str, str]:
    """Return the role of a folder, `"images"`, `"labels"` or `""`, and `tr`, `va` or `ts`."""
    words = [word for word in _split_words(name)[0] if not (word in SPLIT_WORDS or word.isdigit())]
    if not words:
        return "", ""
    ending = next((end for end in _SPLIT_ENDINGS if re.fullmatch(rf"[a-z]+s{end}", words[-1])), "")
    words[-1] = words[-1].removesuffix(ending)
    if "".join(words) in _IMAGE_FOLDERS:
        return "images", ending
    is_labels = len(words) <= 2 and (words == ["instances"] or _LABELS.fullmatch(words[-1]))
    return ("labels" if is_labels else ""), ending


def tell_folder(name: str) -> str:
    """Return what a folder holds by its name: `"images"`, `"labels"` or `""`."""
    return _tell_folder(name)[0]


def _cut_at_subject(place: Words) -> Words:
    """Leave out the folders that BIDS makes, in which a subject is spread."""
    tops = ("derivatives", "rawdata", "sourcedata")
    ends = (i for i, name in enumerate(place) if name in tops or _SUBJECT.fullmatch(name))
    return place[: next(ends, len(place))]


def _find_kind(words: Words, role: str) -> tuple[Kind, bool]:
    """Return what a name says that a volume is, and whether it cannot be an image."""
    at = _find_label_word(words)
    if at is not None:
        is_brain = at > 0 and words[at - 1] in ("brain", "brains")
        is_brain |= words[at].startswith("brain") or any(map(_BRAIN_MASK.fullmatch, words))
        return "brain" if is_brain else "labels", True
    if role == "labels":
        return "labels", True
    ending = words[-1].rstrip("0123456789") if words else ""
    if ending in ("brain", "skullstripped"):
        return "brain", False
    last = next((i for i in reversed(range(len(words))) if not _is_tail(words[i])), -1)
    is_marked = last >= 0 and _MARKED.fullmatch(words[last].split("-")[0])
    if is_marked and (last > 0 or len(words) == 1):
        return "labels", False
    return "image", True


def _find_label_word(words: Words) -> int | None:
    """Return where a word names labels: at the end, or at the beginning."""
    for index in reversed(range(len(words))):
        if _LABELS.fullmatch(words[index].split("-")[0]):
            return index
        if not _is_tail(words[index]):
            break
    return 0 if words and _LABELS.fullmatch(words[0]) else None


def _is_tail(word: str) -> bool:
    """Tell whether a word may stand behind one that names labels."""
    patterns = (_MODIFIERS, _CONTRAST)
    return word.isdigit() or word in _PROCESSED or any(map(_matches(word), patterns))


def _matches(word: str) -> Callable[[re.Pattern[str]], bool]:
    return lambda pattern: pattern.fullmatch(word) is not None


def _strip_labels(words: Words) -> Words:
    """Leave out the words that name labels, and the number of one of several."""
    words = tuple(word for word in words if not word.startswith(_ENTITIES_OF_LABELS))
    while (at := _find_label_word(words)) is not None:
        rest = words[at + 1 :]
        if at > 0:
            rest = tuple(w for w in rest if _CONTRAST.fullmatch(w) or re.fullmatch(r"\d{3,}", w))
        words = words[:at] + rest
    return words


def _strip_scan(words: Words, *, is_labels: bool) -> Words:
    """Leave out one contrast, what was done to the image, and what labels mark."""
    words = tuple(word for word in words if not word.startswith("desc-"))
    words = _strip_end(words, is_labels=is_labels)
    if words and _CONTRAST.fullmatch(words[-1]):
        words = _strip_end(words[:-1], is_labels=is_labels)
    elif words and words[0].startswith("sub-") and "-" not in words[-1]:
        words = words[:-1]
    return words[1:] if words and words[0] in _LEADING else words


def _strip_end(words: Words, *, is_labels: bool) -> Words:
    def is_dropped(word: str) -> bool:
        of_labels = is_labels and (_MARKED.fullmatch(word) or _MODIFIERS.fullmatch(word))
        # A brain in a folder of organs is one of them.
        return bool(of_labels) or (word in _PROCESSED and not (is_labels and word == "brain"))

    while words and is_dropped(words[-1]):
        words = words[:-1]
    if len(words) > 1 and re.fullmatch(r"\d{1,2}", words[-1]) and is_labels:
        return _strip_end(words[:-1], is_labels=True) if is_dropped(words[-2]) else words
    return words


def _name_patient(stem: str, scan: Words, folders: Sequence[str]) -> str:
    """Return what the images of one patient have in common.

    That is BIDS' subject, or the name without its contrast and point in time, or the folders of a
    name that only says what an image is, as `imaging` and `T1`.
    """
    for name in (stem, *folders):
        if subject := _SUBJECT.match(name):
            return subject[0]
    if not scan:
        kept = [name for name in folders if not _is_of_examination(name)]
        return "/".join(kept) or stem
    named = [_split_words(name)[0] for name in folders]
    while len(scan) > 1 and (
        _TIME.fullmatch(scan[-1]) or (scan[:-1] in named and _CONTRAST.fullmatch(scan[-1]))
    ):
        scan = scan[:-1]
    words, spans = _split_words(stem)
    first = next(i for i in range(len(words)) if words[i : i + len(scan)] == scan)
    name = stem[spans[first][0] : spans[first + len(scan) - 1][1]]
    return re.sub(r"^(BraTS-[A-Za-z]+-\d+)-\d{3}$", r"\1", name)


def _is_of_examination(folder: str) -> bool:
    """Tell whether a folder is that of one of a patient's examinations, or of a kind of image."""
    name = fold_name(re.sub(r"[\W_]", "", folder))
    return name in _DATATYPES or _TIME.fullmatch(name) is not None


def _find_home(folders: Sequence[str], patient: str) -> Words:
    """Return the folders without those of a patient."""
    if any(map(_SUBJECT.fullmatch, folders)):
        return _cut_at_subject(tuple(folders))
    start = _split_words(patient)[0]
    home = []
    for name in folders:
        words = _split_words(name)[0]
        rest = words[len(start) :] if words[: len(start)] == start else words
        is_own = rest != words and all(w.isdigit() or _TIME.fullmatch(w) for w in rest)
        if not is_own and not _is_of_examination(name):
            home.append(name)
    return tuple(home)
