"""Identifiers planted in files, folders and elements reach nothing that `vae-aug ingest` leaves."""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from test_dicom import write_dicom
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.codecs.images import decode_image
from vae_aug.ingest import blocks
from vae_aug.ingest.ingest import ingest
from vae_aug.records.check import check_records, iterate_examples
from vae_aug.records.records import read_info

NAME, UID_ROOT, DATE, TIME = "ZZQXW", "1.2.826.0.1.3680043.9.7771", "19370219", "031415.926535"
PLANTED = [NAME, UID_ROOT, DATE, TIME]
BY_VR = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), NAME),
    **{"DA": DATE, "DT": DATE + TIME, "TM": TIME, "UI": f"{UID_ROOT}.1"},
}
# What tells how to read the file.
NEEDED = {
    *("SpecificCharacterSet", "SOPClassUID", "PhotometricInterpretation", "VOILUTFunction"),
    *("PresentationLUTShape", "PixelPresentation", "SegmentationType"),
}
MOST_IMPORTANT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "OtherPatientIDs"),
    *("AccessionNumber", "InstitutionName", "ReferringPhysicianName", "StudyDescription"),
    *("Manufacturer", "StationName", "ImageComments", "Modality", "StudyInstanceUID", "StudyDate"),
    *("SeriesInstanceUID", "FrameOfReferenceUID", "StudyTime", "BurnedInAnnotation"),
)


def choose_elements():
    """Every eighth text element of the standard and what identifies most often."""
    known = {
        keyword: BY_VR[vr]
        for tag, (vr, _, _, retired, keyword) in DicomDictionary.items()
        if vr in BY_VR and not retired and tag >> 16 > 2 and keyword not in NEEDED
    }
    chosen = dict(list(known.items())[::8])
    return chosen | {k: known.get(k, NAME) for k in MOST_IMPORTANT}


def write_planted(path, index, **elements):
    """Write a slice in which each text element holds an identifier."""
    stored = np.random.default_rng(index).integers(0, 4096, (16, 24), np.uint16)
    planted = choose_elements() | {"PatientID": f"{NAME}{index}"}
    planted |= {"SOPInstanceUID": f"{UID_ROOT}.{index}"}
    dataset = write_dicom(path, stored, **(planted | elements))
    dataset.preamble = NAME.encode().ljust(128, b"\0")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.SourceApplicationEntityTitle = NAME
    block = dataset.private_block(0x0011, f"{NAME} PRIVATE", create=True)
    block.add_new(0x01, "LO", NAME)
    item = Dataset()
    item.PatientID = NAME
    dataset.OtherPatientIDsSequence = [item]
    dataset.DataSetTrailingPadding = NAME.encode() + b"\0"
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def write_voc(path, box):
    sides = "".join(
        f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    path.write_text(
        f"<annotation><filename>{NAME}.dcm</filename><path>/home/{NAME}/{NAME}.dcm</path>"
        f"<owner><name>{NAME}</name></owner><object><name>nodule</name><bndbox>{sides}</bndbox>"
        "</object></annotation>"
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six slices with boxes, and nine files of which each has another fault."""
    root = tmp_path_factory.mktemp("source")
    folder = root / f"{NAME}_{DATE}"
    folder.mkdir()
    for index in range(6):
        write_planted(folder / f"{NAME}_{index}.dcm", index)
        write_voc(folder / f"{UID_ROOT}.{index}.xml", (2, 3, 30 if index == 1 else 9, 12))
    write_voc(folder / f"{UID_ROOT}.5.xml", (50, 50, 60, 60))
    write_voc(folder / f"{NAME}_lost.xml", (1, 1, 2, 2))
    (folder / f"{UID_ROOT}.4.xml").write_text(f"<{NAME}")
    bad = folder / f"bad_{NAME}"
    bad.mkdir()
    (bad / f"{NAME}_text.dcm").write_text(NAME)
    (bad / f"{NAME}_cut.dcm").write_bytes(cut(write_planted(bad / "cut", 10), bad / "cut"))
    write_planted(bad / f"{NAME}_photometric.dcm", 11, PhotometricInterpretation=NAME)
    write_planted(bad / f"{NAME}_class.dcm", 12, SOPClassUID=f"{UID_ROOT}.1", Rows=0)
    window = {"WindowCenter": 40, "WindowWidth": 400}
    write_planted(bad / f"{NAME}_voi.dcm", 13, VOILUTFunction=NAME, **window)
    dataset = write_planted(bad / f"{NAME}_syntax.dcm", 14)
    syntax = f"{UID_ROOT}.99"
    content = (bad / f"{NAME}_syntax.dcm").read_bytes()
    assert content.count(b"1.2.840.10008.1.2.1\0") == 1
    # Set in the bytes: pydicom would not write a syntax that it does not know.
    old = b"\x02\x00\x10\x00UI" + struct.pack("<H", 20) + b"1.2.840.10008.1.2.1\0"
    padded = syntax.encode() + b"\0" * (len(syntax) % 2)
    new = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(padded)) + padded
    length = struct.unpack("<I", content[140:144])[0] + len(new) - len(old)
    changed = content[:140] + struct.pack("<I", length) + content[144:].replace(old, new)
    (bad / f"{NAME}_syntax.dcm").write_bytes(changed)
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    return root


def cut(dataset, path):
    """Return the file without the end of its pixels, and remove it."""
    content = path.read_bytes()
    path.unlink()
    return content[: content.index(dataset.PixelData) + 100]


def search(content, where):
    for planted in PLANTED:
        for encoded in (planted.encode(), planted.lower().encode(), planted.encode("utf-16-le")):
            assert encoded not in content, f"{planted} in {where}"


def check_png(data, where):
    """A PNG holds its header and pixels and nothing else, since text may be compressed."""
    position, kinds = 8, set()
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kinds.add(data[position + 4 : position + 8])
        position += 12 + length
    assert kinds == {b"IHDR", b"IDAT", b"IEND"}, where


def search_folder(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        search(path.relative_to(folder).as_posix().encode(), "a name")
        search(path.read_bytes(), path.name)
        if path.suffix == ".png":
            check_png(path.read_bytes(), path.name)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    search(archive.read(name), f"{path.name}/{name}")
        if path.suffix == ".tfrecord":
            for _, example in iterate_examples(path):
                search_example(example)
    return files


def search_example(example):
    for key, feature in example.features.feature.items():
        for value in feature.bytes_list.value:
            search(value, key)
    encoded = example.features.feature["image/encoded"].bytes_list.value[0]
    check_png(encoded, "image/encoded")
    search(decode_image(encoded).tobytes(), "pixels")


def remove_paths(printed, source):
    """Take out the paths of the source, by which the user is told of a file."""
    paths = [path.relative_to(source).as_posix() for path in source.rglob("*")]
    for path in [str(source), *sorted(paths, key=len, reverse=True)]:
        printed = printed.replace(path, "")
    return printed


def run(*arguments):
    environment = {"COLUMNS": "250", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(cli.app, ["ingest", *map(str, arguments)], env=environment)


@pytest.fixture(autouse=True)
def salt(monkeypatch):
    monkeypatch.setenv("VAE_AUG_SALT", "s")


WORKERS = pytest.param(
    ("--workers", "2", "--split-by-patient", "0.5,0.5"), 2, marks=pytest.mark.slow
)


@pytest.mark.parametrize(
    ("options", "splits"),
    [((), 1), (("--format", "dicom", "--split-by-patient", "0.5,0.25,0.25"), 3), WORKERS],
)
def test_planted_identifiers_reach_nothing(source, tmp_path, monkeypatch, capfd, options, splits):
    monkeypatch.setattr(blocks, "BLOCK", 2)  # so that there is work for two workers
    out = tmp_path / "out"
    result = run(source, out, *options)
    captured = capfd.readouterr()
    assert result.exit_code == 0, result.output
    # Of the six the annotation of one is no XML, and the one with a dropped box is faulty.
    assert sum(check_records(out, part) for part in read_info(out).parts) == 6
    printed = result.stdout + result.stderr + captured.out + captured.err
    search(remove_paths(printed, source).encode(), "what is printed")
    described = read_info(out)
    # Two for the set; a report and the shards of each split; a sheet for those with boxes.
    expected = 2 + splits + len(described.parts)
    expected += sum(info.boxes > 0 for info in described.splits.values())
    assert len(search_folder(out)) == expected
    reports = [json.loads(path.read_bytes()) for path in sorted(out.glob("ingest_*.json"))]
    problems = [problem for report in reports for problem in report["problems"]]
    effects = sorted(problem["effect"] for problem in problems)
    bare = sum(effect == "unannotated" for effect in effects)
    assert effects == ["clipped", "dropped", *["skipped"] * 7, *["unannotated"] * bare, "unread"]
    assert all(len(problem["file"]) == 16 for problem in problems)
    assert f"skipped {NAME}_{DATE}/bad_{NAME}/{NAME}_cut.dcm: " in printed


def test_strict_names_no_identifier(source, tmp_path):
    result = run(source, tmp_path / "out", "--strict")
    assert result.exit_code == 1 and "Correct it, or run without strict" in result.stderr
    search(remove_paths(result.output, source).encode(), "what is printed")


def test_what_an_interrupted_run_leaves_names_no_identifier(source, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 2)

    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(source, tmp_path / "out", progress=interrupt)
    assert len(search_folder(tmp_path / "out")) == 2


def test_the_search_finds_what_is_planted(source, tmp_path):
    """The tests above would pass on files without identifiers too."""
    path = next(source.rglob(f"{NAME}_0.dcm"))
    for planted in PLANTED:
        assert planted.encode() in path.read_bytes()
    result = run(source, tmp_path / "out", "--keep-ids")
    assert result.exit_code == 0 and NAME in result.output
    with pytest.raises(AssertionError, match=f"{NAME} in"):
        search_folder(tmp_path / "out")
