"""Random series of LIDC-IDRI, mutated."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from test_dicom import write_dicom

from corpus.sources import HEIGHT, WIDTH, XYXY, Truth

_BLANK = np.zeros((HEIGHT, WIDTH), np.uint8)
_SPACE = ' xmlns="http://www.nih.gov"'


def make(rng: random.Random, folder: Path) -> Truth:
    """Write one or two patients, each a series with its XML; see the package for the rest."""
    truth: Truth = {}
    for patient in range(rng.randint(1, 2)):
        series = f"1.2.9.{patient}.1"
        place = folder / f"LIDC-IDRI-{patient:04}"
        place.mkdir()
        slices = {}
        for number in range(rng.randint(1, 3)):
            uid = f"{series}.{number}"
            path = place / f"{number:06}.dcm"
            elements = {"SOPInstanceUID": uid, "SeriesInstanceUID": series}
            elements["ImagePositionPatient"] = [0, 0, -1.25 * number]
            write_dicom(path, _BLANK, bits_stored=8, **elements)
            slices[uid] = path.relative_to(folder).as_posix()
            truth[slices[uid]] = []
        sessions = [_make_session(rng, slices, truth) for _ in range(rng.randint(1, 4))]
        text = make_xml(series, sessions, rng.choice((_SPACE, "")))
        if rng.random() < 0.5:
            text = rng.choice(_MUTATIONS)(rng, text)
        (place / f"{rng.randint(60, 90):03}.xml").write_bytes(
            text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16")))
        )
    return truth


def _make_session(rng: random.Random, slices: dict[str, str], truth: Truth) -> str:
    nodules = []
    for index in range(rng.randint(0, 2)):
        rois = []
        for uid in rng.sample(list(slices), rng.randint(1, len(slices))):
            box, edges = _make_outline(rng)
            truth[slices[uid]].append(("nodule", box))
            rois.append(make_roi(uid, edges, z=-1.25 * int(uid.rpartition(".")[2])))
        nodules.append(make_nodule(index, rois))
    mark = "<nonNodule><nonNoduleID>9</nonNoduleID><locus><xCoord>3</xCoord></locus></nonNodule>"
    return "".join([*nodules, mark])


def _make_outline(rng: random.Random) -> tuple[XYXY, list[tuple[int, int]]]:
    left, top = rng.randrange(WIDTH - 20), rng.randrange(HEIGHT - 14)
    right, bottom = left + rng.randint(4, 18), top + rng.randint(4, 12)
    # The outline lies outside: its first column and its last row are not the nodule's.
    edges = [(left, top + 1), (left + 1, top), (right, bottom - 1), (right - 1, bottom)]
    return (left + 1, top + 1, right, bottom), edges


def make_roi(
    uid: str, edges: list[tuple[int, int]], inclusion: str = "TRUE", z: float = 0.0
) -> str:
    """Return one outline."""
    points = "".join(
        f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in edges
    )
    return (
        f"<roi><imageZposition>{z}</imageZposition><imageSOP_UID> {uid} </imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{points}</roi>"
    )


def make_nodule(index: int, rois: list[str]) -> str:
    """Return one nodule of one reader."""
    return (
        f"<unblindedReadNodule><noduleID>Nodule {index}</noduleID>{''.join(rois)}"
        "</unblindedReadNodule>"
    )


def make_xml(series: str, sessions: list[str], space: str = _SPACE) -> str:
    """Return a whole file."""
    inside = "".join(f"<readingSession>{session}</readingSession>" for session in sessions)
    return (
        f"<LidcReadMessage{space}><ResponseHeader><SeriesInstanceUid>{series}"
        f"</SeriesInstanceUid></ResponseHeader>{inside}</LidcReadMessage>"
    )


def _cut(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text))]


def _replace(rng: random.Random, text: str) -> str:
    """Break one element, where there is one."""
    old, new = rng.choice(
        (
            ("<imageSOP_UID> 1", "<imageSOP_UID> 7"),
            ("<inclusion>TRUE", "<inclusion>maybe"),
            ("<xCoord>", "<xCoord>x"),
            ("</imageSOP_UID>", "9</imageSOP_UID>"),
            ("<SeriesInstanceUid>1", "<SeriesInstanceUid>7"),
            ("<SeriesInstanceUid>", "<StudyInstanceUid/><SeriesInstanceUid>"),
            ("LidcReadMessage", "IdriReadMessage"),
            ("edgeMap>", "EdgeMap>"),
            ("<inclusion>TRUE</inclusion>", ""),
        )
    )
    return text.replace(old, new, -1 if "Read" in old or "dge" in old else 1)


def _lose_points(rng: random.Random, text: str) -> str:
    """Leave an outline without its points, or all but one."""
    start = text.find("<edgeMap>")
    start = text.find("<edgeMap>", start + 1) if rng.random() < 0.5 else start
    return text if start < 0 else text[:start] + text[text.find("</roi>", start) :]


_MUTATIONS = (_cut, _replace, _replace, _lose_points)
