"""What a source says of an image beside its boxes: that there is something to mark, or nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from vae_aug.ingest.formats.layout import fold_name
from vae_aug.ingest.formats.table_file import fold_column

LABELS = (
    *("classname", "labelname", "categoryname", "label", "class", "category", "celltype"),
    *("findinglabel", "objectclass", "name"),
)
"""The columns of a class, folded."""

_MARKING = re.compile(
    r"(?:rle|(?:mask)?encodedpixels|polygons?|segmentations?|masks?(?:rle|path|file)?|points?|"
    r"contours?|outlines?|rois?|regions?|annotations?|shapes?|keypoints?|vertices|circles?|"
    r"radius|diameter|(?:category|class|label)ids)(?:px|pixels?)?|"
    + "|".join(set(LABELS) - {"name"})
)
"""Columns that mark something, and that are not read beside those of a box."""

_SEEN = (
    r"(?:lesions?|nodules?|findings?|polyps?|tumou?rs?|opacit(?:y|ies)|abnormalit(?:y|ies)"
    r"|fractures?|mass(?:es)?)"
)
_MARKS = rf"(?:b?box(?:es)?|annotations?|objects?|instances?|labels?|masks?|rois?|{_SEEN})"
_DISEASE = (
    rf"(?:{_SEEN}|patholog(?:y|ies|ical)|diagnos[ie]s|diseases?|cancers?|carcinomas?|malignan(?:cy|t)"
    r"|metastas[ie]s|defects?|cysts?|ha?emorrhages?|pneumonia|covid(?:19)?)"
)
_STATED = re.compile(
    r"(?:(?:is|has|image|img|slice|patient|case|study|exam|primary|final|ground)*"
    rf"{_DISEASE}+|classification|impression|outcome|severity)"
    r"(?:labels?|types?|subtypes?|class(?:es)?|names?|categor(?:y|ies)|codes?|status|grade|present"
    r"|presence|flag|results?)?"
)
"""Columns, keys and elements that say what an image shows, as `pathology` or `lesion_type`."""

_COUNT = re.compile(
    rf"(?:n|num|nr|number|count)(?:of)?{_MARKS}|{_MARKS}counts?|(?:has|with|any){_MARKS}"
    r"|(?:is)?(?:positive|abnormal|malignant)|target"
)
"""Columns and keys that say that an image has something to mark, as `num_boxes` or `has_lesion`."""

_REMARK = re.compile(
    r"(?:note|comment|remark|description|caption|report|tag|flag|keyword|label)s?|text"
)
"""Keys and elements in whose words a lesion may be named."""

_WITHIN = re.compile(r"attributes?|meta(?:data)?|properties|extra|info|user(?:data|meta)|custom")
"""Keys that hold further keys of the image."""

_ABOUT_FILES = re.compile(
    r"(?:events?|histor(?:y|ies)|versions?|logs?|sessions?|slots|channels|layers|files|urls|links"
    r"|sources?|licen[cs]es?|authors?|annotators?|users?)"
)
"""Keys whose lists of objects are no boxes."""

_LESIONS = (
    *("lesion", "lesions", "nodule", "nodules", "tumor", "tumour", "mass", "polyp", "fracture"),
    *("positive", "abnormal", "malignant"),
)
_DENIALS = {"no", "not", "non", "without", "free", "negative", "normal", "healthy", "exclude"}

NO_FINDING = ("no finding", "no findings")
"""Classes that say that there is nothing to mark."""

_NOTHING = (
    *("", "0", "-1", "[]", "{}", "false", "no", "normal", "healthy", "negative", "background"),
    *("none", "nan", "nil", "neg", "absent", "unremarkable", "healthy control", "control"),
    *NO_FINDING,
)
# Words between may turn the meaning: "no change of the nodule", "benign without callback".
_ABSENT = re.compile(
    r"(?:no|non|without|free of|negative for) (?:(?:evidence|signs?) of )?"
    rf"(?:(?:visible|acute|suspicious|focal|significant) )?{_DISEASE}"
)


# English, German, French, Spanish, Italian, Portuguese, Russian; accents are taken off.
_WHOSE = (
    r"(?:(?:control|case|image|img|patient|scan|slice)s?|patienten|probanden|kontrollen|fa(?:e)?lle"
    r"|bilder|aufnahmen|cas|sujets|casos?|pacientes?|controles|sujetos|imagen(?:es|s)|casi|pazienti"
    r"|controlli|soggetti|immagini|pacienty|snimki|пациенты|снимки|случаи)*"
)
_HEALTHY = (
    r"(?:normals?|healthy|negatives?|normale[nrs]?|gesunde?[nrs]?|negativ(?:e[nrs])?"
    r"|unauffa(?:e)?llige?[nrs]?|normaux|saine?s?|negatifs?|normales|san[ao]s?|negativ[ao]s?"
    r"|saludables?|normali|san[ie]|negativi|normais|saudave(?:l|is)|sadi[ao]s?"
    r"|norma|normaln[a-z]+|zdorov[a-z]*|otri(?:c|ts)ateln[a-z]+|норма|нормальн\w+|здоров\w*"
    r"|отрицательн\w+)"
)
_WITHOUT = (
    r"(?:ohne|keine?[nr]?|nicht|sans|aucune?|pasde?|sin|senza|nessuna?|non|sem|nenhuma?|nao|bez|без"
    r"|нет)"
    r"(?:befund|auffa(?:e)?llig|tum|la?esi|lesa|leso|path?olog|anomal|particular|hallazg|repert|achad"
    r"|alterac|krank|krebs|canc[er]|carcinom|kar[cz]inom|malad|malat|enferm|doen[ct]|nodul"
    r"|pol[iy]p|fra[ck]?t|opuk?hol|izmenen|zabolevan|nak?hod|патолог|опухол|изменен|заболеван"
    r"|наход)\w*"
)
_FREE = re.compile(
    rf"{_WHOSE}(?:{_HEALTHY}|(?:no[nt]?|without)(?:{_DISEASE}|findings?|dr|covid)|{_WITHOUT}"
    rf"|(?:{_DISEASE}|befund)(?:free|freie?[nrs]?)){_WHOSE}"
)
"""Folders of images without findings, by their letters: `normal_images`, `notumor`, `NonCOVID`,
`ohne_Befund`, `sains`, `sin_hallazgos`."""


def is_free_of_findings(folder: str) -> bool:
    """Tell whether a folder is called as one of images without findings.

    Args:
        folder: Its name; digits, accents and what parts words do not count.
    """
    # A letter and its accent are parted, and the accent is no letter.
    parted = unicodedata.normalize("NFD", fold_name(folder))
    return _FREE.fullmatch("".join(re.findall(r"[^\W\d_]+", parted))) is not None


def says_something(value: object) -> bool:
    """Tell whether a cell, value or text says anything else than that there is nothing."""
    said = str(value).strip().casefold().removesuffix(".0")
    words = re.sub(r"[\s_'\"-]+", " ", said).strip(" .[](){}")
    return said not in _NOTHING and words not in _NOTHING and not _ABSENT.fullmatch(words)


def may_mark(name: str) -> bool:
    """Tell whether a column that is not read may mark something, or tells what an image shows.

    Args:
        name: As `fold_column` makes it.
    """
    return any(pattern.fullmatch(name) for pattern in (_MARKING, _COUNT, _STATED))


def may_hold_marks(item: tuple[str, object], classes: Iterable[str] = ()) -> bool:
    """Tell whether a key that is not read may hold boxes, or says that there are some.

    Args:
        item: The key, and what it says.
        classes: As in `tells_of_object`.
    """
    name, value = fold_column(item[0]), item[1]
    if isinstance(value, dict) and _WITHIN.fullmatch(name):
        return any(may_hold_marks((str(key), inner), classes) for key, inner in value.items())
    values = value if isinstance(value, list) else [value] if value else []
    has_entries = any(isinstance(entry, dict) for entry in values) and isinstance(value, list)
    if has_entries and not _ABOUT_FILES.fullmatch(name):
        return True
    if isinstance(value, list | dict) and (_MARKING.fullmatch(name) or re.fullmatch(_MARKS, name)):
        return any(not isinstance(entry, str) or says_something(entry) for entry in values)
    if _COUNT.fullmatch(name) or _STATED.fullmatch(name):
        return any(map(says_something, values))
    return names_object(name, values, classes)


def names_object(name: str, values: Iterable[object], classes: Iterable[str] = ()) -> bool:
    """Tell whether one of the texts of a remark or tag names a lesion or class.

    Args:
        name: Of the key or element, as `fold_column` makes it; other keys hold no remarks.
        values: What it says.
        classes: As in `tells_of_object`.
    """
    is_remark = _REMARK.fullmatch(name) is not None
    return is_remark and any(isinstance(v, str) and tells_of_object(v, classes) for v in values)


def tells_of_object(text: str, classes: Iterable[str]) -> bool:
    """Tell whether a flag or tag of an image says that an object is in it.

    Args:
        text: The flag: the name of a class, or words with one or with a word for lesions among
            them, as `has_nodule`, and none that denies it, as `no lesion`.
        classes: Names of classes, as `fold_name` makes them.
    """
    folded = fold_name(text.strip())
    words = re.findall(r"[^\W_]+", folded)
    if folded in classes:
        return True
    padded = f" {' '.join(words)} "
    named = (*_LESIONS, *(" ".join(re.findall(r"[^\W_]+", name)) for name in classes))
    return _DENIALS.isdisjoint(words) and any(f" {name} " in padded for name in named if name)
