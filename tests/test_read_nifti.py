"""Layouts of NIfTI data sets; volumes are made here and box values worked by hand."""

from __future__ import annotations

import gzip
import json
import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from corpus import nifti as corpus

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest import nifti
from vae_aug.ingest.formats import nifti_folder, read_nifti
from vae_aug.ingest.formats.source import ReaderOptions
from vae_aug.ingest.nifti import count_values, read_grid, read_slice

nibabel = pytest.importorskip("nibabel")

AFFINE = np.diag([1.0, 1, 2, 1])
SHAPE = (6, 5, 4)  # towards right, anterior, superior
CASES = Path(__file__).parents[2] / "shared" / "cases" / "field"

# The voxels x=1..2, y=3, z=2 in slice 2: x grows to the left from column 5, y upwards from row 4.
BOX = [3.0, 1.0, 5.0, 2.0]
STATES = {"complete", "faulty", "none"}


def make_scan(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(-1000, 2000, shape).astype(np.int16)


def make_labels(value=1, dtype=np.uint8, shape=SHAPE):
    labels = np.zeros(shape, dtype)
    labels[1:3, 3, 2] = value
    return labels


def write(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def write_all(folder, images, labels):
    for seed, name in enumerate(images):
        write(folder / name, make_scan(seed))
    for name in labels:
        write(folder / name, make_labels())


def summarize(found):
    """The state of each volume and its boxes as (slice, label, xyxy)."""
    volumes = {}
    for image in found.images:
        name = image.source_id.split("#")[0]
        states, boxes, patients = volumes.setdefault(name, (set(), [], set()))
        states.add(image.annotation)
        patients.add(image.patient)
        boxes += [
            (image.item.index, label, xyxy)
            for label, xyxy in zip(image.labels, image.boxes.tolist(), strict=True)
        ]
    return volumes


LAYOUTS = {
    "KiTS": (
        {"case_00000/imaging.nii.gz": "case_00000", "case_00001/imaging.nii.gz": "case_00001"},
        ["case_00000/segmentation.nii.gz", "case_00001/segmentation.nii.gz"],
    ),
    "KiTS21": (
        {"case_00000/imaging.nii.gz": "case_00000"},
        ["case_00000/aggregated_MAJ_seg.nii.gz", "case_00000/aggregated_AND_seg.nii.gz"],
    ),
    "KiTS23": (
        {"case_00000/imaging.nii.gz": "case_00000"},
        [
            "case_00000/segmentation.nii.gz",
            "case_00000/instances/tumor_instance-1_annotation-1.nii.gz",
            "case_00000/instances/tumor_instance-1_annotation-2.nii.gz",
        ],
    ),
    "LiTS": (
        {"Training Batch 1/volume-0.nii": "0", "Training Batch 1/volume-10.nii": "10"},
        ["Training Batch 1/segmentation-0.nii", "Training Batch 1/segmentation-10.nii"],
    ),
    "LiTS in two folders": (
        {"volume_pt1/volume-0.nii": "0", "volume_pt1/volume-1.nii": "1"},
        ["segmentations/segmentation-0.nii", "segmentations/segmentation-1.nii"],
    ),
    "ACDC": (
        {
            "training/patient001/patient001_frame01.nii.gz": "patient001",
            "training/patient001/patient001_frame12.nii.gz": "patient001",
        },
        [
            "training/patient001/patient001_frame01_gt.nii.gz",
            "training/patient001/patient001_frame12_gt.nii.gz",
        ],
    ),
    "BTCV": (
        {"RawData/Training/img/img0001.nii.gz": "0001"},
        ["RawData/Training/label/label0001.nii.gz"],
    ),
    "nnU-Net": (
        {"imagesTr/case_01_0000.nii.gz": "case_01", "imagesTr/case_01_0001.nii.gz": "case_01"},
        ["labelsTr/case_01.nii.gz"],
    ),
    "nnU-Net in a folder": (
        {"Dataset001_X/imagesTr/a_0001_0000.nii.gz": "a_0001"},
        ["Dataset001_X/labelsTr/a_0001.nii.gz"],
    ),
    "BraTS": (
        {
            "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz": "BraTS-GLI-00001",
            "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii.gz": "BraTS-GLI-00001",
            "BraTS-GLI-00001-001/BraTS-GLI-00001-001-t2f.nii.gz": "BraTS-GLI-00001",
        },
        [
            "BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii.gz",
            "BraTS-GLI-00001-001/BraTS-GLI-00001-001-seg.nii.gz",
        ],
    ),
    "BraTS 2020": (
        {
            "BraTS20_Training_001/BraTS20_Training_001_flair.nii": "BraTS20_Training_001",
            "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii": "BraTS20_Training_001",
        },
        ["BraTS20_Training_001/BraTS20_Training_001_seg.nii"],
    ),
    "BIDS": (
        {
            "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz": "sub-01",
            "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz": "sub-01",
        },
        [
            "derivatives/lesions/sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz",
            "derivatives/lesions/sub-01/ses-2/anat/sub-01_ses-2_space-orig_desc-x_dseg.nii.gz",
        ],
    ),
    "ATLAS": (
        {"ATLAS/sub-r1s1/ses-1/anat/sub-r1s1_ses-1_space-MNI_T1w.nii.gz": "sub-r1s1"},
        ["ATLAS/sub-r1s1/ses-1/anat/sub-r1s1_ses-1_space-MNI_label-L_desc-T1lesion_mask.nii.gz"],
    ),
    "ISLES": (
        {
            "rawdata/sub-s1/ses-1/dwi/sub-s1_ses-1_dwi.nii.gz": "sub-s1",
            "rawdata/sub-s1/ses-1/anat/sub-s1_ses-1_FLAIR.nii.gz": "sub-s1",
        },
        ["derivatives/sub-s1/ses-1/sub-s1_ses-1_msk.nii.gz"],
    ),
    "VerSe": (
        {"rawdata/sub-gl003/sub-gl003_dir-ax_ct.nii.gz": "sub-gl003"},
        ["derivatives/sub-gl003/sub-gl003_dir-ax_seg-vert_msk.nii.gz"],
    ),
    "spine generic": (
        {"sub-a1/anat/sub-a1_T2w.nii.gz": "sub-a1"},
        ["derivatives/labels/sub-a1/anat/sub-a1_T2w_seg.nii.gz"],
    ),
    "images and labels": ({"images/p1.nii.gz": "p1"}, ["labels/p1.nii.gz"]),
    "Images and GroundTruth": ({"Images/p1.nii.gz": "p1"}, ["GroundTruth/P1.nii.gz"]),
    "images and masks with an ending": ({"images/p1.nii.gz": "p1"}, ["masks/p1_mask.nii.gz"]),
    "images and annotations": ({"image/p1_ct.nii.gz": "p1"}, ["Annotations/p1.nii"]),
    "a folder of each patient": (
        {"images/p1/t1.nii.gz": "p1", "images/p2/t1.nii.gz": "p2"},
        ["masks/p1/seg.nii.gz", "masks/p2/seg.nii.gz"],
    ),
    "splits below": ({"images/train/7.nii.gz": "7"}, ["labels/train/7.nii.gz"]),
    "AMOS": (
        {"imagesTr/amos_0001.nii.gz": "amos_0001", "imagesTr/amos_0004.nii.gz": "amos_0004"},
        ["labelsTr/amos_0001.nii.gz", "labelsTr/amos_0004.nii.gz"],
    ),
    "HECKTOR": (
        {"imagesTr/CHUM-001__CT.nii.gz": "CHUM-001", "imagesTr/CHUM-001__PT.nii.gz": "CHUM-001"},
        ["labelsTr/CHUM-001.nii.gz"],
    ),
    "MM-WHS": (
        {
            "ct_train_1001_image.nii.gz": "ct_train_1001",
            "mr_train_1001_image.nii.gz": "mr_train_1001",
        },
        ["ct_train_1001_label.nii.gz", "mr_train_1001_label.nii.gz"],
    ),
    "MSSEG": (
        {"Center_01/P1/Preprocessed_Data/FLAIR_preprocessed.nii.gz": "Center_01/P1"},
        [
            "Center_01/P1/Masks/Consensus.nii.gz",
            "Center_01/P1/Masks/ManualSegmentation_1.nii.gz",
            "Center_01/P1/Masks/ManualSegmentation_2.nii.gz",
        ],
    ),
    "MSLesSeg": (
        {"P1/T1/P1_T1_FLAIR.nii.gz": "P1", "P1/T2/P1_T2_FLAIR.nii.gz": "P1"},
        ["P1/T1/P1_T1_MASK.nii.gz", "P1/T2/P1_T2_MASK.nii.gz"],
    ),
    "WMH": (
        {"0/orig/FLAIR.nii.gz": "0", "0/pre/T1.nii.gz": "0", "2/pre/T1.nii.gz": "2"},
        ["0/wmh.nii.gz", "2/wmh.nii.gz"],
    ),
    "SegTHOR": ({"Patient_01/Patient_01.nii.gz": "Patient_01"}, ["Patient_01/GT.nii.gz"]),
    "StructSeg": (
        {"1/data.nii.gz": "1", "2/data.nii.gz": "2"},
        ["1/label.nii.gz", "2/label.nii.gz"],
    ),
    "CT-ORG": ({"volume-0.nii.gz": "0"}, ["labels-0.nii.gz"]),
    "IBSR": ({"IBSR_01/IBSR_01_ana.nii.gz": "IBSR_01"}, ["IBSR_01/IBSR_01_seg_ana.nii.gz"]),
    "M&Ms": (
        {"A0S9V9/A0S9V9_ED.nii.gz": "A0S9V9", "A0S9V9/A0S9V9_ES.nii.gz": "A0S9V9"},
        ["A0S9V9/A0S9V9_ED_gt.nii.gz", "A0S9V9/A0S9V9_ES_gt.nii.gz"],
    ),
    "what is marked": (
        {"a_ct.nii.gz": "a", "b.nii.gz": "b", "c.nii.gz": "c", "d.nii.gz": "d"},
        ["a_lesion.nii.gz", "b_GTVp.nii.gz", "c-tumor-mask.nii.gz", "d_roi_1.nii.gz"],
    ),
    "upper case": ({"P1_T1.NII.GZ": "P1"}, ["p1_SEG.nii"]),
    "one site each": (
        {"a/p1/t1.nii.gz": "a/p1", "b/p1/t1.nii.gz": "b/p1"},
        ["a/p1/mask.nii.gz", "b/p1/mask.nii.gz"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_paired(tmp_path, layout):
    patients, labels = LAYOUTS[layout]
    write_all(tmp_path, patients, labels)
    found = read_nifti(tmp_path)
    assert not found.problems
    assert {name: volume[1:] for name, volume in summarize(found).items()} == {
        name: ([(2, "object", BOX)], {patient}) for name, patient in patients.items()
    }
    assert {image.annotation for image in found.images} == {"complete"}


def test_the_4d_series_of_acdc_is_not_annotated(tmp_path):
    write_all(tmp_path, ["p1/p1_frame01.nii.gz"], ["p1/p1_frame01_gt.nii.gz"])
    write(tmp_path / "p1" / "p1_4d.nii.gz", make_scan(1, (*SHAPE, 3)))
    found = summarize(read_nifti(tmp_path))
    assert found["p1/p1_frame01.nii.gz"] == ({"complete"}, [(2, "object", BOX)], {"p1"})
    assert found["p1/p1_4d.nii.gz"] == ({"none"}, [], {"p1"})


def test_splits_stay_apart(tmp_path):
    write_all(
        tmp_path,
        ["imagesTr/a_0000.nii.gz", "imagesTs/b_0000.nii.gz", "imagesTs/c_0000.nii.gz"],
        ["labelsTr/a.nii.gz", "labelsTs/b.nii.gz"],
    )
    train, test = (summarize(read_nifti(tmp_path, split)) for split in ("train", "test"))
    assert train == {"imagesTr/a_0000.nii.gz": ({"complete"}, [(2, "object", BOX)], {"a"})}
    assert test == {
        "imagesTs/b_0000.nii.gz": ({"complete"}, [(2, "object", BOX)], {"b"}),
        "imagesTs/c_0000.nii.gz": ({"none"}, [], {"c"}),
    }
    write_all(
        tmp_path / "btcv", ["RawData/Training/img/img1.nii", "RawData/Testing/img/img2.nii"], []
    )
    assert list(summarize(read_nifti(tmp_path / "btcv"))) == ["RawData/Training/img/img1.nii"]
    with pytest.raises(AnnotationError, match="has no images for the split 'validation'"):
        read_nifti(tmp_path / "btcv", "validation")


def test_one_file_an_organ_is_one_class_each(tmp_path):
    for case in ("s0000", "s0001"):
        write(tmp_path / case / "ct.nii.gz", make_scan())
        write(tmp_path / case / "segmentations" / "liver.nii.gz", make_labels())
        write(
            tmp_path / case / "segmentations" / "brain.nii.gz", make_labels(255).transpose()[::1].T
        )
    (tmp_path / "s0001" / "segmentations" / "brain.nii.gz").unlink()
    found = read_nifti(tmp_path)
    assert found.label_names == ("brain", "liver")
    assert summarize(found) == {
        "s0000/ct.nii.gz": ({"complete"}, [(2, "brain", BOX), (2, "liver", BOX)], {"s0000"}),
        "s0001/ct.nii.gz": ({"complete", "none"}, [(2, "liver", BOX)], {"s0001"}),
    }
    # Where a class is missing, a slice without a box may have one of it.
    states = [image.annotation for image in found.images if image.patient == "s0001"]
    assert states == ["none", "none", "complete", "none"]
    ((file, reason),) = [(problem.file, problem.reason) for problem in found.problems]
    assert file == "s0001/ct.nii.gz" and reason.startswith("has no labels of brain, as other")
    assert "that other images have: brain;" in found.notes[-1]
    several = make_labels(1) + make_labels(1)[::-1] * 2
    write(tmp_path / "s0000" / "segmentations" / "liver.nii.gz", several)
    found = read_nifti(tmp_path)
    assert summarize(found)["s0000/ct.nii.gz"][:2] == ({"faulty"}, [])
    assert "has several values" in found.problems[0].reason


def test_one_volume_of_labels_each_of_another_class(tmp_path):
    """Nobody says that the first has no tumour, or the second no liver."""
    for case, name in (("s1", "liver"), ("s2", "tumour")):
        write(tmp_path / case / "ct.nii.gz", make_scan())
        write(tmp_path / case / "segmentations" / f"{name}.nii.gz", make_labels())
    found = read_nifti(tmp_path)
    assert found.label_names == ("liver", "tumour")
    assert summarize(found) == {
        "s1/ct.nii.gz": ({"complete", "none"}, [(2, "liver", BOX)], {"s1"}),
        "s2/ct.nii.gz": ({"complete", "none"}, [(2, "tumour", BOX)], {"s2"}),
    }


@pytest.mark.parametrize("names", [("s1", "s2"), ("case_7", "case_8"), ("liver", "liver")])
def test_the_names_of_cases_are_no_classes(tmp_path, names):
    for case, name in zip(("s1", "s2"), names, strict=True):
        write(tmp_path / case / "ct.nii.gz", make_scan())
        write(tmp_path / case / "segmentations" / f"{name}.nii.gz", make_labels())
    assert {image.annotation for image in read_nifti(tmp_path).images} == {"complete"}


def test_labels_that_bids_names_apart_are_classes(tmp_path):
    write_all(tmp_path, ["sub-1/anat/sub-1_T1w.nii.gz"], ["sub-1/anat/sub-1_label-L_mask.nii.gz"])
    write(tmp_path / "sub-1/anat/sub-1_label-R_mask.nii.gz", make_labels())
    assert summarize(read_nifti(tmp_path)) == {
        "sub-1/anat/sub-1_T1w.nii.gz": ({"complete"}, [(2, "L", BOX), (2, "R", BOX)], {"sub-1"})
    }


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("p1/ct.nii.gz", "p1/organs.nii.gz"),
        ("p1.nii.gz", "p1_organs.nii.gz"),
        ("scans/p1.nii.gz", "results/p1.nii.gz"),
        ("imagesTr/p1_0000.nii.gz", "imagesTr/p2_0000.nii.gz"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_labels_that_only_their_values_tell_are_refused(tmp_path, image, labels, dtype):
    write(tmp_path / image, make_scan())
    write(tmp_path / labels, make_labels(3, dtype))
    with pytest.raises(AnnotationError, match=r"1 volume has at most 64 different") as caught:
        read_nifti(tmp_path)
    message = str(caught.value)
    assert f"{labels}. If they are labels, name labels NAME_seg" in message
    assert f"{image}," not in message
    write(tmp_path / labels, make_labels(3, dtype)[1:])
    if "/" in labels or "_" in labels:
        with pytest.raises(AnnotationError, match="1 volume has at most 64 different"):
            read_nifti(tmp_path)
    # By itself it is an image, as the message says.
    (tmp_path / image).unlink()
    assert {i.annotation for i in read_nifti(tmp_path).images} == {"none"}


def test_a_channel_that_is_a_mask_is_refused_and_one_with_own_labels_is_not(tmp_path):
    write_all(tmp_path, ["a_t1.nii.gz"], ["a_flair.nii.gz", "a_seg.nii.gz"])
    with pytest.raises(AnnotationError, match=r"a_flair\.nii\.gz"):
        read_nifti(tmp_path)
    (tmp_path / "a_flair.nii.gz").rename(tmp_path / "b.nii.gz")
    write(tmp_path / "b_seg.nii.gz", make_labels())
    assert {image.annotation for image in read_nifti(tmp_path).images} == {"complete"}


def test_a_phantom_beside_scans_of_another_size_is_an_image(tmp_path):
    write(tmp_path / "scan.nii.gz", make_scan())
    write(tmp_path / "phantom.nii.gz", make_labels(3, np.int16, (9, 9, 9)))
    states = {name: volume[0] for name, volume in summarize(read_nifti(tmp_path)).items()}
    assert states == {"scan.nii.gz": {"none"}, "phantom.nii.gz": {"none"}}


def test_an_empty_volume_does_not_stop_a_run(tmp_path):
    write_all(tmp_path, ["a.nii.gz"], ["a_seg.nii.gz"])
    write(tmp_path / "b.nii.gz", np.zeros(SHAPE, np.int16))
    found = read_nifti(tmp_path)
    assert list(summarize(found)) == ["a.nii.gz"]
    assert [(p.file, p.reason) for p in found.problems] == [
        ("b.nii.gz", "all its voxels have one value")
    ]


def test_what_is_named_as_labels_but_holds_a_scan(tmp_path):
    """By a word for what is marked, values decide; after others, labels make an image faulty."""
    write_all(tmp_path, ["a.nii.gz", "a_lesion.nii.gz", "b.nii.gz", "b_mask.nii.gz"], [])
    soft = np.clip(make_scan() / 2000, 0, 1).astype(np.float32)
    write_all(tmp_path, ["c.nii.gz", "d.nii.gz"], [])
    write(tmp_path / "c_lesion.nii.gz", soft)
    write(tmp_path / "d_prob.nii.gz", soft)
    found = read_nifti(tmp_path)
    states = {name: volume[0] for name, volume in summarize(found).items()}
    assert states == {
        "a.nii.gz": {"none"},
        "a_lesion.nii.gz": {"none"},
        "b.nii.gz": {"faulty"},
        "c.nii.gz": {"faulty"},
        "d.nii.gz": {"none"},
    }
    reasons = dict.fromkeys((problem.file, problem.reason[:30]) for problem in found.problems)
    assert ("d_prob.nii.gz", "named as probabilities or a pr") in reasons


@pytest.mark.parametrize(
    "name", ["a_brain_mask", "a_brainmask", "a_brain", "a_skullstripped", "a_desc-brain_mask"]
)
def test_a_mask_of_the_brain_says_nothing_of_lesions(tmp_path, name):
    write_all(tmp_path, ["a.nii.gz"], [f"{name}.nii.gz"])
    found = read_nifti(tmp_path)
    assert summarize(found) == {"a.nii.gz": ({"none"}, [], {"a"})}
    assert found.notes == ("1 mask of the brain marks no lesion and was left out",)
    write(tmp_path / "a_brain.nii.gz", make_scan(2))
    assert summarize(read_nifti(tmp_path))["a_brain.nii.gz"] == ({"none"}, [], {"a"})


def test_labels_without_image_cast_doubt_on_images_of_the_same_beginning(tmp_path):
    write_all(tmp_path, ["a.nii.gz", "b.nii.gz"], ["a_seg.nii.gz", "a_liver_seg.nii.gz"])
    write(tmp_path / "b_seg.nii.gz", make_labels())
    found = read_nifti(tmp_path)
    states = {name: volume[0] for name, volume in summarize(found).items()}
    assert states == {"a.nii.gz": {"faulty"}, "b.nii.gz": {"complete"}}
    assert found.problems[0].file == "a_liver_seg.nii.gz"
    assert "without the one that it is of" in found.problems[0].reason


def test_only_labels(tmp_path):
    write_all(tmp_path, [], ["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"])
    for source in (tmp_path, tmp_path / "labelsTr"):
        with pytest.raises(AnnotationError, match="holds only labels; give the folder"):
            read_nifti(source)
    write(tmp_path / "c_seg.nii.gz", make_labels())
    with pytest.raises(AnnotationError, match="is named as labels are; give the image"):
        read_nifti(tmp_path / "c_seg.nii.gz")


def test_one_image_alone(tmp_path):
    write_all(tmp_path, ["a.nii.gz", "b.nii.gz"], ["a_seg.nii.gz", "c_seg.nii.gz"])
    found = read_nifti(tmp_path / "a.nii.gz")
    assert summarize(found) == {"a.nii.gz": ({"complete"}, [(2, "object", BOX)], {"a"})}
    assert not found.problems
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(AnnotationError, match="is no NIfTI volume"):
        read_nifti(tmp_path / "a.txt")


def test_any_name_is_read_or_refused(tmp_path):
    words = [
        "seg",
        "sub-1",
        "T1w",
        "ct",
        "_",
        "-",
        ".",
        " ",
        "0001",
        "\u00b2",
        "label-L",
        "img",
        "x",
    ]
    rng = random.Random(0)
    content = write(tmp_path / "a.nii", make_scan()).read_bytes()
    for index in range(60):
        folder = tmp_path / str(index)
        for _ in range(3):
            parts = ["".join(rng.choices(words, k=rng.randint(1, 4))) for _ in range(2)]
            path = folder / f"d{parts[0]}" / f"{parts[1]}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            assert {image.annotation for image in read_nifti(folder).images} <= {"none", "faulty"}
        except AnnotationError as error:
            assert "only labels" in str(error) or "no NIfTI" in str(error)


def test_a_further_folder_of_images(tmp_path):
    write_all(tmp_path, ["scans/a.nii.gz"], ["source/labels/a.nii.gz"])
    found = read_nifti(tmp_path / "source", options=ReaderOptions(images=tmp_path / "scans"))
    assert [image.boxes.tolist() for image in found.images] == [[], [], [BOX], []]
    found = read_nifti(
        tmp_path / "source" / "labels", options=ReaderOptions(images=tmp_path / "scans")
    )
    assert [image.boxes.tolist() for image in found.images] == [[], [], [BOX], []]


def test_links_out_of_the_source(tmp_path):
    write_all(tmp_path, ["in/a.nii.gz", "out/b.nii.gz"], ["out/a_seg.nii.gz"])
    for name in ("b.nii.gz", "a_seg.nii.gz"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "out" / name)
    found = read_nifti(tmp_path / "in")
    assert summarize(found) == {"a.nii.gz": ({"faulty"}, [], {"a"})}
    reasons = dict.fromkeys((problem.file, problem.reason) for problem in found.problems)
    assert [(file, "outside the source" in reason) for file, reason in reasons] == [
        ("b.nii.gz", True),
        ("a.nii.gz", True),
    ]


def test_letter_case_and_unicode_form(tmp_path):
    composed, apart = (unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD"))
    write_all(tmp_path, [f"{composed}_T1.nii.gz"], [f"{apart}_seg.nii.gz"])
    for name, place in (("P1", 1), ("p1", 2)):
        write(tmp_path / f"{name}.nii.gz", make_scan(place))
        labels = np.zeros(SHAPE, np.uint8)
        labels[place, 0, 0] = 1
        write(tmp_path / f"{name}_seg.nii.gz", labels)
    found = summarize(read_nifti(tmp_path))
    assert found[f"{composed}_T1.nii.gz"] == ({"complete"}, [(2, "object", BOX)], {composed})
    # x=1 is column 4 of 6, x=2 is column 3; y=0 is the last of 5 rows.
    assert found["P1.nii.gz"][1] == [(0, "object", [4, 4, 5, 5])]
    assert found["p1.nii.gz"][1] == [(0, "object", [3, 4, 4, 5])]


@pytest.mark.parametrize(
    ("change", "state", "boxes", "reason"),
    [
        (lambda v: v * 1.0005, "complete", 1, None),
        (lambda v: v * 1.01, "faulty", 0, "whole numbers"),
        (lambda v: v * 1e-5, "faulty", 0, "all of them below 0.001"),
        (lambda v: v + 1e-5, "complete", 1, None),
        (lambda v: np.where(v == 0, np.nan, v), "faulty", 1, "labels that are no number"),
        (lambda v: v * 1e12, "faulty", 0, "beyond 32 bits"),
        (lambda v: np.stack([v, v], -1), "faulty", 0, "2 volumes of labels"),
        (lambda v: v[..., None], "complete", 1, None),
        (lambda v: v[:, :, :3], "faulty", 0, "3 slices of 5 x 6 are not those of the image"),
        (lambda v: v[:5], "faulty", 0, "resample"),
    ],
)
def test_values_and_grids_of_labels(tmp_path, change, state, boxes, reason):
    write(tmp_path / "a.nii.gz", make_scan())
    write(tmp_path / "a_seg.nii.gz", change(make_labels(1, np.float64)))
    found = read_nifti(tmp_path)
    assert state in {image.annotation for image in found.images} <= {state, "complete"}
    assert sum(len(image.boxes) for image in found.images) == boxes
    assert reason is None or reason in found.problems[0].reason
    assert (reason is None) == (not found.problems)


def test_labels_in_a_folder_of_each_class_leave_no_negatives(tmp_path):
    """Only one of the two masks of p2 is there, so it is told by its name alone."""
    write_all(
        tmp_path,
        ["images/p1.nii.gz", "images/p2.nii.gz"],
        ["masks/liver/p1.nii.gz", "masks/spleen/p1.nii.gz"],
    )
    write(tmp_path / "masks" / "spleen" / "p2.nii.gz", make_labels(0))
    found = read_nifti(tmp_path)
    assert {image.annotation for image in found.images} == {"faulty"}
    assert [p.file for p in found.problems if "without the one" in p.reason] == [
        "masks/liver/p1.nii.gz",
        "masks/spleen/p1.nii.gz",
    ]


@pytest.mark.parametrize("name", ["b.nii.gz.part", "b.nii.zip", "b.nrrd", "b.mha"])
def test_labels_that_are_not_read_leave_no_image_merely_unannotated(tmp_path, name):
    images = ["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz"]
    write_all(tmp_path, images, [])
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "labelsTr" / name).write_bytes(b"\0")
    assert {image.annotation for image in read_nifti(tmp_path).images} == {"faulty"}


def test_labels_that_lost_their_image_may_be_of_any_without_labels(tmp_path):
    images = ["imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz"]
    write_all(tmp_path, images, ["labelsTr/a.nii.gz", "labelsTr/renamed.nii.gz"])
    found = read_nifti(tmp_path)
    states = {(image.patient, image.annotation) for image in found.images}
    assert states == {("a", "complete"), ("b", "faulty")}


def test_what_is_wrong_with_a_grid_is_told_once_with_its_numbers(tmp_path):
    write(tmp_path / "a.nii.gz", make_scan())
    moved = AFFINE.copy()
    moved[0, 3], moved[1, 1] = 0.0123456, 1.0117
    write(tmp_path / "a_seg.nii.gz", make_labels(), moved)
    found = read_nifti(tmp_path)
    assert [image.annotation for image in found.images] == ["faulty"] * 4
    (problem,) = found.problems
    assert "0.0123456" in problem.reason and "instead of 0 in row 1, column 4" in problem.reason
    assert "1.0117" in problem.reason and "instead of 1 in row 2, column 2" in problem.reason


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_labels_may_be_stored_from_another_side(tmp_path, axis):
    scan, labels = nibabel.Nifti1Image(make_scan(), AFFINE), make_labels()
    write(tmp_path / "a.nii.gz", make_scan())
    write(tmp_path / "a_seg.nii.gz", labels)
    expected = summarize(read_nifti(tmp_path, options=ReaderOptions(axis=axis)))
    turned = nibabel.Nifti1Image(labels, AFFINE).as_reoriented(
        nibabel.orientations.axcodes2ornt(("P", "S", "L"))
    )
    write(tmp_path / "a_seg.nii.gz", np.asarray(turned.dataobj), turned.affine)
    assert turned.shape != scan.shape
    assert summarize(read_nifti(tmp_path, options=ReaderOptions(axis=axis))) == expected


def test_regions_without_a_name_are_faults_of_their_slice(tmp_path):
    labels = make_labels(1, np.int16)
    labels[0, 0, 0], labels[0, 0, 1], labels[0, 0, 3] = -1, 7, 4
    write(tmp_path / "a.nii.gz", make_scan())
    write(tmp_path / "a_seg.nii.gz", labels)
    described = {"labels": {"background": 0, "tumour": "1", "ignore": 4}}
    (tmp_path / "dataset.json").write_text(json.dumps(described), "utf-8-sig")
    found = read_nifti(tmp_path)
    assert [image.annotation for image in found.images] == [
        "faulty",
        "faulty",
        "complete",
        "faulty",
    ]
    assert [problem.reason for problem in found.problems] == [
        "slice 0: a region of value -1, which has no name",
        "slice 1: a region of value 7, which has no name",
        "slice 3: a region that is not annotated (ignore)",
    ]
    assert found.label_names == ("tumour",) and found.images[2].labels == ("tumour",)
    described["labels"]["cyst"] = 1.0
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(AnnotationError, match="has the value 1 twice"):
        read_nifti(tmp_path)


def test_colours_are_no_labels(tmp_path):
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    write(tmp_path / "a.nii.gz", make_scan())
    write(tmp_path / "a_seg.nii.gz", np.zeros(SHAPE, rgb))
    found = read_nifti(tmp_path)
    assert {image.annotation for image in found.images} == {"faulty"}
    assert "colours or complex" in found.problems[0].reason


def test_labels_of_one_volume_for_a_series(tmp_path):
    write(tmp_path / "imagesTr" / "a.nii.gz", make_scan(0, (*SHAPE, 4)))
    write(tmp_path / "labelsTr" / "a.nii.gz", make_labels())
    found = read_nifti(tmp_path)
    assert [image.boxes.tolist() for image in found.images] == [[], [], [BOX], []]
    assert found.notes == ("1 of 1 volume has a fourth axis; its first was read",)


def test_noise_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti_folder, "MAX_VOLUME_REGIONS", 20)
    labels = np.random.default_rng(0).integers(1, 200, SHAPE).astype(np.uint8)
    write(tmp_path / "a.nii.gz", make_scan())
    write(tmp_path / "a_seg.nii.gz", labels)
    found = read_nifti(tmp_path)
    assert {image.annotation for image in found.images} == {"faulty"}
    assert "more than 20 regions" in found.problems[0].reason


def test_files_of_other_formats_are_named(tmp_path):
    write_all(tmp_path, ["a.nii.gz"], [".git/annex/MD5E-1.nii.gz", "__MACOSX/._a_seg.nii.gz"])
    for name in ("a_seg.nrrd", "b.hdr", "b.img", "c.mhd"):
        (tmp_path / name).write_bytes(b"")
    found = read_nifti(tmp_path)
    assert summarize(found) == {"a.nii.gz": ({"none"}, [], {"a"})}
    assert [problem.file for problem in found.problems] == ["a_seg.nrrd", "b.hdr", "b.img", "c.mhd"]


def test_a_named_pipe_is_not_opened(tmp_path):
    write_all(tmp_path, ["a.nii.gz"], [])
    os.mkfifo(tmp_path / "b.nii")
    os.mkfifo(tmp_path / "a_seg.nii")
    found = read_nifti(tmp_path)
    assert summarize(found) == {"a.nii.gz": ({"faulty"}, [], {"a"})}
    assert "is no regular file" in found.problems[0].reason


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_scale_without_a_value_scales_nothing(tmp_path, slope):
    path = write(tmp_path / "a.nii", make_labels())
    data = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(bytes(data[:348]))
    header["scl_slope"], header["scl_inter"] = slope, 5
    data[:348] = header.binaryblock
    path.write_bytes(data)
    assert read_slice(path, "axial", 2, (128, 256)).sum() == 2


def test_what_a_file_is_counts_not_its_ending(tmp_path):
    path = write(tmp_path / "a.nii", make_scan())
    zipped, plain = tmp_path / "b.nii", tmp_path / "c.nii.gz"
    halves = path.read_bytes()[:500], path.read_bytes()[500:]
    zipped.write_bytes(b"".join(map(gzip.compress, halves)))
    plain.write_bytes(path.read_bytes())
    expected = read_slice(path, "axial", 1)
    for other in (zipped, plain):
        np.testing.assert_array_equal(read_slice(other, "axial", 1), expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dim", [3, -6, 5, 4, 1, 1, 1, 1], "two to four|damaged"),
        ("dim", [3, 32767, 32767, 1, 1, 1, 1, 1], "at most"),
        ("datatype", 32, "colours or complex|damaged"),
        ("datatype", 9999, "damaged"),
        ("pixdim", [np.nan] * 8, "no direction|damaged"),
        ("vox_offset", np.nan, "no header's end|damaged"),
        ("magic", b"ni2", "damaged|no NIfTI"),
        ("magic", b"", "damaged|no NIfTI"),
    ],
)
def test_headers_that_lie(tmp_path, key, value, message):
    path = write(tmp_path / "a.nii", make_scan())
    data = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(bytes(data[:348]))
    header["sform_code"] = 0
    header[key] = value
    data[:348] = header.binaryblock
    path.write_bytes(data)
    with pytest.raises(VAEAugError, match=message):
        read_grid(path, "axial")


def test_a_volume_is_in_memory_once_and_as_it_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "MAX_VOLUME_BYTES", 239)
    path = write(tmp_path / "a.nii", make_scan())
    with pytest.raises(VAEAugError, match="120 voxels of 2 bytes; at most 239 bytes"):
        read_grid(path, "axial")
    path = write(tmp_path / "b.nii", make_labels())
    assert nifti.read_volume(path, "axial").slices.dtype == np.uint8


def test_values_are_counted_up_to_those_of_labels(tmp_path):
    path = tmp_path / "a.nii.gz"
    many = np.arange(1000).reshape(10, 10, 10) % 65
    for array, expected in (
        (many, None),
        (np.minimum(many, 63), 64),
        (np.zeros(SHAPE, np.uint8), 1),
        (np.full(SHAPE, np.nan, np.float32), 1),
        (np.arange(120).reshape(SHAPE) % 20, None),
    ):
        write(path, array.astype(np.float32))
        assert count_values(path) == expected


@pytest.mark.parametrize("name", ["kits", "imglabels"])
def test_the_case_of_the_field(name):
    folder = CASES / "04-nifti-label-volumes-become-images" / name
    if not folder.is_dir():
        pytest.skip("needs ../shared/cases")
    found = read_nifti(folder)
    for volume in {image.path for image in found.images}:
        boxes = [image.boxes.tolist() for image in found.images if image.path == volume]
        assert boxes == [[], [[3, 2, 7, 5]], [[10, 8, 12, 10]]]
    assert {image.annotation for image in found.images} == {"complete"}
    patients = {"kits": {"case_00000", "case_00001"}, "imglabels": {"p1"}}[name]
    assert {image.patient for image in found.images} == patients


def read_boxes(folder):
    """The state of each image and its sorted boxes; None if the source is refused."""
    try:
        found = read_nifti(folder)
    except AnnotationError:
        return None
    return {
        image.path.relative_to(folder).as_posix(): (
            image.annotation,
            sorted(zip(image.labels, image.boxes.tolist(), strict=True)),
        )
        for image in found.images
    }


def test_an_image_with_boxes_is_never_complete_without_them(tmp_path):
    outcomes = []
    for seed in range(300):
        folder = tmp_path / str(seed)
        folder.mkdir()
        stated = corpus.make(random.Random(seed), folder)
        read = read_boxes(folder)
        outcomes.append("refused" if read is None else "read")
        for name, (state, boxes) in (read or {}).items():
            assert name in stated, (seed, name)
            expected = sorted((label, list(xyxy)) for label, xyxy in stated[name])
            assert state != "complete" or boxes == expected, (seed, name)
            outcomes.append(state)
    # The corpus is of use only if each of these is frequent.
    assert min(outcomes.count(kind) for kind in ("read", "refused", *STATES)) >= 20
