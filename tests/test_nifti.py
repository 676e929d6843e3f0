"""NIfTI volumes; nibabel writes them, and what must come out is worked by hand."""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from vae_aug.errors import AnnotationError, MissingPackageError, VAEAugError
from vae_aug.ingest import nifti
from vae_aug.ingest.formats import read_nifti
from vae_aug.ingest.formats.detect import detect_format
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.ingest import ingest
from vae_aug.ingest.nifti import read_grid, read_slice
from vae_aug.ingest.reading import find_hashed
from vae_aug.records.records import iterate_examples, read_records

nibabel = pytest.importorskip("nibabel")

RAS = np.diag([1.0, 1, 1, 1])
SHAPE = (4, 5, 6)  # towards right, anterior, superior


def write_volume(path, array, affine=RAS, slope=None, inter=0.0, kind=nibabel.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(np.asarray(array), affine)
    image.header.set_sform(affine, 1)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    return path


def mark(**voxels):
    """A volume of zeros with a value at each place, as `value_7=(x, y, z)`."""
    volume = np.zeros(SHAPE, np.uint8)
    for name, place in voxels.items():
        volume[place] = int(name.removeprefix("value_"))
    return volume


def find(path, axis, value):
    """(row, column, slice) of the voxel of a value in slices shown from 0 to 255."""
    grid = read_grid(path, axis)
    stack = np.stack([read_slice(path, axis, i, (128, 256))[..., 0] for i in range(grid.slices)])
    ((index, row, column),) = np.argwhere(stack == value)
    return (int(row), int(column), int(index))


# The voxel x=0 (right-most is 3), y=4 (anterior end), z=5 (superior end).
@pytest.mark.parametrize(
    ("axis", "place", "size"),
    [
        ("axial", (0, 3, 5), (5, 4, 6)),  # top row, at the patient's left, highest slice
        ("coronal", (0, 3, 0), (6, 4, 5)),  # top row, at the patient's left, front slice
        ("sagittal", (0, 0, 3), (6, 5, 4)),  # top row, front at the left, left-most slice
    ],
)
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_slices_lie_as_a_radiologist_sees_them(tmp_path, axis, place, size, codes):
    """The same anatomy stored in any order of axes gives the same slices."""
    orientations = nibabel.orientations
    image = nibabel.Nifti1Image(mark(value_200=(0, 4, 5)), RAS)
    stored = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(stored), tmp_path / "a.nii.gz")
    assert "".join(nibabel.aff2axcodes(nibabel.load(tmp_path / "a.nii.gz").affine)) == codes
    assert find(tmp_path / "a.nii.gz", axis, 200) == place
    assert read_grid(tmp_path / "a.nii.gz", axis)[:3] == size


def test_values_are_scaled_and_windowed(tmp_path):
    stored = np.arange(120, dtype=np.int16).reshape(SHAPE)
    path = write_volume(tmp_path / "a.nii", stored, slope=2.0, inter=-1000.0)
    # Axial slice 0, first row and column: x=3, y=4, z=0, stored as (3 * 5 + 4) * 6 = 114.
    value = 2.0 * 114 - 1000
    for window, low, high in (
        ("full", -1000, -762),
        ("auto", *np.percentile(2.0 * stored - 1000, (0.5, 99.5))),
        ((-900, 101), -950.5, -850.5),  # DICOM's linear window of width 101
    ):
        expected = np.floor(np.clip((value - low) / (high - low), 0, 1) * 65535 + 0.5)
        assert read_slice(path, "axial", 0, window)[0, 0, 0] == expected
        assert read_slice(path, "axial", 0, window).dtype == np.uint16
    eight = read_slice(path, "axial", 0, "full", bits=8)
    assert (eight.dtype, eight[0, 0, 0]) == (np.uint8, np.floor((228 / 238) * 255 + 0.5))


def test_the_range_is_that_of_the_volume_and_voxels_without_number_are_black(tmp_path):
    volume = np.zeros(SHAPE, np.float32)
    volume[..., 0], volume[..., 5] = 1, 4
    volume[0, 0, 0], volume[1, 0, 0], volume[2, 0, 0] = np.nan, np.inf, -np.inf
    path = write_volume(tmp_path / "a.nii", volume)
    shown = read_slice(path, "axial", 0, "full")[..., 0]
    # The last row is y=0, the columns are x from 3 to 0.
    assert shown[-1].tolist() == [16384, 0, 65535, 0] and shown[0].tolist() == [16384] * 4
    path = write_volume(tmp_path / "b.nii", np.full(SHAPE, 7, np.uint8))
    assert read_slice(path, "axial", 2).tolist() == np.zeros((5, 4, 1)).tolist()
    # Too few voxels for the percentiles to differ: the whole range.
    path = write_volume(tmp_path / "c.nii", mark(value_9=(0, 0, 0)).repeat(4, axis=0))
    assert sorted({int(v) for v in read_slice(path, "axial", 0).ravel()}) == [0, 255]


def test_two_and_four_dimensions_and_nifti_2(tmp_path):
    flat = np.arange(20, dtype=np.uint8).reshape(4, 5)
    path = write_volume(tmp_path / "flat.nii", flat)
    assert read_grid(path, "axial")[:4] == (5, 4, 1, 1)
    np.testing.assert_array_equal(
        read_slice(path, "axial", 0, (128, 256))[..., 0], flat[::-1, ::-1].T
    )
    series = np.stack([mark(value_7=(1, 1, 1)), mark(value_9=(1, 1, 1))], axis=-1)
    path = write_volume(tmp_path / "time.nii.gz", series, kind=nibabel.Nifti2Image)
    assert read_grid(path, "axial").volumes == 2
    assert find(path, "axial", 7) == (3, 2, 1)
    found = read_nifti(path)
    assert found.notes == ("1 of 1 volume has a fourth axis; its first was read",)


def change_header(path, key, value):
    image = nibabel.load(path)
    data = bytearray(path.read_bytes())
    header = image.header.copy()
    header[key] = value
    data[:348] = header.binaryblock
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "no NIfTI"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"damaged or not readable"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "cut short: 7 bytes are missing"),
        (lambda path: change_header(path, "dim", [3, 9999, 9999, 9999, 1, 1, 1, 1]), "at most"),
        (lambda path: change_header(path, "dim", [3, 4, 5, 0, 1, 1, 1, 1]), "two to four dim"),
        (lambda path: change_header(path, "dim", [5, 2, 5, 6, 1, 2, 1, 1]), "two to four dim"),
        (lambda path: change_header(path, "vox_offset", 2**30), "that is no header's end"),
        (lambda path: change_header(path, "srow_x", [0, 0, 0, 0]), "no direction"),
        (lambda path: write_volume(path, np.zeros(SHAPE, np.complex64)), "colours or complex"),
    ],
)
def test_bad_volumes_are_named_once(tmp_path, damage, message):
    path = write_volume(tmp_path / "in" / "a.nii", np.zeros(SHAPE, np.uint8))
    damage(path)
    with pytest.raises(VAEAugError, match=message) as caught:
        read_grid(path, "axial")
    assert str(caught.value).startswith(f"{path}: ")
    write_volume(tmp_path / "in" / "b.nii", np.zeros(SHAPE, np.uint8))
    found = read_nifti(tmp_path / "in")
    assert [problem.file for problem in found.problems] == ["a.nii"]
    assert len(found.images) == SHAPE[2]


def test_a_wrong_checksum_is_named(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the CRC-32, four bytes before the last four
    path.write_bytes(data)
    with pytest.raises(VAEAugError, match="damaged or not readable"):
        read_grid(path, "axial")


@pytest.fixture
def unpacked(monkeypatch):
    """How many bytes each read of a gzip file gave."""
    counts = []
    read = gzip.GzipFile.read

    def count(file, size=-1):
        data = read(file, size)
        counts.append(len(data))
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", count)
    return counts


def test_a_bomb_is_not_unpacked(tmp_path, unpacked):
    """What lies behind the declared size is never read."""
    path = write_volume(tmp_path / "a.nii", np.zeros(SHAPE, np.uint8))
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(path.read_bytes() + bytes(50_000_000)))
    assert read_grid(bomb, "axial").slices == 6
    assert read_slice(bomb, "axial", 0).shape == (5, 4, 1)
    assert 0 < sum(unpacked) < 100_000


LARGE = np.arange(64**3, dtype=np.int16).reshape(64, 64, 64)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_large_volume_is_unpacked_once(tmp_path, monkeypatch, unpacked, name):
    path = write_volume(tmp_path / name, LARGE)
    monkeypatch.setattr(nifti, "MAX_CHECKED_BYTES", 10_000)
    assert read_grid(path, "axial").slices == 64
    assert sum(unpacked) < 1000
    assert len({read_slice(path, "axial", index).tobytes() for index in range(64)}) == 64
    assert sum(unpacked) < 1.1 * LARGE.nbytes
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VAEAugError, match=r"cut short|damaged or not readable"):
        read_grid(path, "axial")


def test_what_is_wrong_within_a_large_volume_is_told_of_its_slices(tmp_path, monkeypatch, unpacked):
    path = write_volume(tmp_path / "in" / "a.nii.gz", LARGE)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the CRC-32
    path.write_bytes(data)
    monkeypatch.setattr(nifti, "MAX_CHECKED_BYTES", 10_000)
    write_volume(tmp_path / "in" / "b.nii", LARGE[:32, :32, :2])
    report = ingest(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert (report.images, report.unannotated) == (0, 2)
    skipped = [(p.file, p.reason) for p in report.problems if p.effect == "skipped"]
    assert skipped == [
        ("a.nii.gz", f"slice {index}: damaged or not readable (BadGzipFile)") for index in range(64)
    ]
    # Once to tell its values from labels, and once for all its slices.
    assert sum(unpacked) < 2.1 * LARGE.nbytes


def test_the_decathlon(tmp_path):
    labels = mark(value_1=(0, 4, 5), value_2=(3, 0, 0))
    write_volume(tmp_path / "imagesTr" / "liver_0.nii.gz", np.zeros(SHAPE, np.int16))
    write_volume(tmp_path / "imagesTr" / "._liver_0.nii.gz", np.zeros(SHAPE, np.int16))
    write_volume(tmp_path / "labelsTr" / "liver_0.nii.gz", labels)
    write_volume(tmp_path / "imagesTs" / "liver_9.nii.gz", np.zeros(SHAPE, np.int16))
    described = {"labels": {"0": "background", "1": "liver", "2": "cancer"}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    assert detect_format(tmp_path).format == "nifti"
    found = read_nifti(tmp_path)
    assert found.label_names == ("liver", "cancer") and not found.problems
    keys = [f"imagesTr/liver_0.nii.gz#{index}" for index in range(6)]
    assert [image.source_id for image in found.images] == keys
    boxes = {i: (im.labels, im.boxes.tolist()) for i, im in enumerate(found.images) if im.labels}
    # x=0 is the last of 4 columns and y=4 the first of 5 rows.
    assert boxes == {5: (("liver",), [[3, 0, 4, 1]]), 0: (("cancer",), [[0, 4, 1, 5]])}
    assert {image.patient for image in found.images} == {"liver_0"}
    sagittal = read_nifti(tmp_path, "train", ReaderOptions(axis="sagittal")).images[-1]
    assert (sagittal.item.index, sagittal.boxes.tolist()) == (3, [[0, 0, 1, 1]])
    assert [image.patient for image in read_nifti(tmp_path, "test").images] == ["liver_9"] * 6
    with pytest.raises(AnnotationError, match="imagesTr is train, imagesTs test"):
        read_nifti(tmp_path, "validation")


def test_nnunet_channels_share_labels_and_patient(tmp_path):
    for channel in range(2):
        path = tmp_path / "imagesTr" / f"case_0001_{channel:04}.nii.gz"
        write_volume(path, np.zeros(SHAPE, np.int16))
    write_volume(tmp_path / "labelsTr" / "case_0001.nii.gz", mark(value_1=(1, 1, 1)))
    described = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "tumour": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    found = read_nifti(tmp_path)
    assert found.label_names == ("tumour",)
    assert {image.patient for image in found.images} == {"case_0001"}
    assert [i for i, image in enumerate(found.images) if len(image.boxes)] == [1, 7]


@pytest.mark.parametrize("suffix", ["_mask", "_seg", "_label", "_dseg", "-seg"])
def test_labels_beside_the_volume(tmp_path, suffix):
    for folder in ("one", "two"):
        write_volume(tmp_path / folder / "scan.nii.gz", np.zeros(SHAPE, np.int16))
    write_volume(tmp_path / "one" / f"scan{suffix}.nii", mark(value_1=(0, 4, 5)))
    write_volume(tmp_path / "two" / f"gone{suffix}.nii", mark())
    found = read_nifti(tmp_path)
    assert found.label_names == ("object",)
    assert [image.boxes.tolist() for image in found.images] == [[]] * 5 + [[[3, 0, 4, 1]]] + [
        []
    ] * 6
    assert {image.patient for image in found.images} == {"one/scan", "two/scan"}
    problem, doubt = found.problems
    assert problem.file == f"two/gone{suffix}.nii" and "without the one" in problem.reason
    assert doubt.file == "two/scan.nii.gz" and "may be of this one" in doubt.reason


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["c_1_flair", "c_1_t1ce"], "c_1_seg"),
        (["c-1-t2f", "c-1-t1n"], "c-1-seg"),
        (["c_FLAIR", "c_T1w"], "c_label-L_desc-lesion_mask"),
    ],
)
def test_contrasts_of_an_examination_share_labels_and_patient(tmp_path, images, labels):
    for name in images:
        write_volume(tmp_path / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
    write_volume(tmp_path / f"{labels}.nii.gz", mark(value_1=(1, 1, 1)))
    found = read_nifti(tmp_path)
    assert not found.problems and len({image.patient for image in found.images}) == 1
    assert [i for i, image in enumerate(found.images) if len(image.boxes)] == [1, 7]
    (alone,) = {image.patient for image in read_nifti(tmp_path / f"{images[1]}.nii.gz").images}
    assert alone == found.images[0].patient


def test_a_bids_subject_is_one_patient(tmp_path):
    for session in "ses-1", "ses-2":
        name = f"sub-07_{session}_space-MNI"
        folder = tmp_path / "sub-07" / session / "anat"
        write_volume(folder / f"{name}_T1w.nii.gz", np.zeros(SHAPE, np.int16))
        write_volume(folder / f"{name}_label-L_mask.nii.gz", mark(value_1=(1, 1, 1)))
        write_volume(folder / f"{name}_desc-brain_mask.nii.gz", mark(value_1=(0, 0, 0)))
    found = read_nifti(tmp_path)
    assert {image.patient for image in found.images} == {"sub-07"} and not found.problems
    assert [i for i, image in enumerate(found.images) if len(image.boxes)] == [1, 7]
    assert "2 masks of the brain mark no lesion and were left out" in found.notes


def test_a_second_volume_of_labels_is_named(tmp_path):
    write_volume(tmp_path / "a.nii", np.zeros(SHAPE, np.int16))
    write_volume(tmp_path / "a_mask.nii", mark(value_1=(1, 1, 1)))
    write_volume(tmp_path / "a_seg.nii", mark(value_1=(1, 1, 1)))
    found = read_nifti(tmp_path)
    (problem,) = found.problems
    assert (problem.file, problem.reason) == (
        "a_seg.nii",
        "has labels that another volume has, too",
    )
    assert {image.annotation for image in found.images} == {"complete"}
    write_volume(tmp_path / "a_seg.nii", mark(value_1=(1, 1, 2)))
    found = read_nifti(tmp_path)
    assert {image.annotation for image in found.images} == {"faulty"}
    assert "2 volumes of labels of the image differ" in found.problems[0].reason


def test_labels_that_do_not_fit(tmp_path):
    moved = RAS.copy()
    moved[0, 3] = 5
    for name, labels, affine in (
        ("a", mark()[:3], RAS),
        ("b", mark(), moved),
        ("c", np.full(SHAPE, 0.5, np.float32), RAS),
    ):
        write_volume(tmp_path / f"{name}.nii", np.zeros(SHAPE, np.int16))
        write_volume(tmp_path / f"{name}_seg.nii", labels, affine)
    write_volume(tmp_path / "d.nii", np.zeros(SHAPE, np.int16))
    found = read_nifti(tmp_path)
    states = {(image.patient, image.annotation) for image in found.images}
    assert states == {("a", "faulty"), ("b", "faulty"), ("c", "faulty"), ("d", "none")}
    reasons = dict.fromkeys((problem.file, problem.reason) for problem in found.problems)
    assert [(file, "resample" in r, "whole numbers" in r) for file, r in reasons] == [
        ("a.nii", True, False),
        ("b.nii", True, False),
        ("c.nii", False, True),
    ]


def test_records_of_volumes(tmp_path, monkeypatch):
    volume = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)
    for name in ("doe", "roe"):
        write_volume(tmp_path / "in" / f"{name}.nii.gz", volume)
    write_volume(tmp_path / "in" / "doe_seg.nii.gz", mark(value_1=(0, 4, 5)))
    read, reads = nifti.read_volume, []
    monkeypatch.setattr(nifti, "read_volume", lambda *a: reads.append(a) or read(*a))
    report = ingest(
        tmp_path / "in", tmp_path / "out", salt="s", window=(2000, 4001), unannotated="negative"
    )
    assert (report.format, report.images, report.boxes, report.patients) == ("nifti", 12, 1, 2)
    assert len(reads) == 2
    element = next(iter(read_records(tmp_path / "out").as_numpy_iterator()))
    shown = np.floor(np.clip(volume[::-1, ::-1, 0].T / 4000 + 0.5 / 4000, 0, 1) * 65535 + 0.5)
    np.testing.assert_allclose(element["image"][..., 0], shown, atol=9)
    shard = tmp_path / "out" / "train-00000-of-00001.tfrecord"
    assert b"doe" not in shard.read_bytes()
    key = next(iter(iterate_examples(shard)))[1].features.feature["image/source_id"]
    value = key.bytes_list.value[0].decode()
    assert find_hashed(tmp_path / "in", [value], salt="s") == {value: "doe.nii.gz, slice 0"}
    other = ingest(tmp_path / "in", tmp_path / "sagittal", axis="sagittal", keep_ids=True)
    assert (other.images, other.unannotated) == (4, 4)


def test_another_axis_starts_anew(tmp_path):
    write_volume(tmp_path / "in" / "a.nii.gz", np.zeros((3, 40, 40), np.uint8))

    def interrupt(done, total):
        if done == 33:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path / "in", tmp_path / "out", axis="coronal", progress=interrupt)
    assert ingest(tmp_path / "in", tmp_path / "out", axis="axial").restarted


@pytest.mark.slow
def test_two_workers_write_what_one_writes(tmp_path):
    volume = np.random.default_rng(0).integers(0, 4000, (40, 40, 40)).astype(np.int16)
    write_volume(tmp_path / "in" / "a.nii.gz", volume)
    for workers in (1, 2):
        ingest(tmp_path / "in", tmp_path / f"{workers}", salt="s", workers=workers)
    name = "train_unannotated-00000-of-00001.tfrecord"
    one, two = ((tmp_path / n / name).read_bytes() for n in "12")
    assert one == two


def test_arguments_and_the_missing_package(tmp_path, monkeypatch):
    write_volume(tmp_path / "in" / "a.nii", np.zeros(SHAPE, np.uint8))
    with pytest.raises(ValueError, match="axis must be one of axial, coronal, sagittal"):
        ingest(tmp_path / "in", tmp_path / "out", axis="z")
    with pytest.raises(VAEAugError, match="has 6 slices; got the index 6"):
        read_slice(tmp_path / "in" / "a.nii", "axial", 6)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="holds no NIfTI volume"):
        read_nifti(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'vae-aug\[nifti\]'"):
        ingest(tmp_path / "in", tmp_path / "out")
