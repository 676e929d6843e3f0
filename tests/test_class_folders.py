"""Folders that sort images by what they show."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus.sources import write_image
from test_copies import NODULE, write

from vae_aug.ingest.formats.source import DEFAULTS, ReaderOptions
from vae_aug.ingest.formats.unread import read_with_doubts


def read(folder, options=DEFAULTS):
    annotations = read_with_doubts("coco", folder, "train", options).annotations
    told = [problem.file for problem in annotations.problems if "beside" in problem.reason]
    states = {image.source_id: image.annotation for image in annotations.images}
    assert told == [name for name, state in states.items() if state == "faulty"]
    return states


@pytest.mark.parametrize(
    ("nothing", "something"),
    [
        ("normal", "malignant"),  # as BUSI sorts ultrasound, with `benign`
        ("no_tumor", "glioma"),
        ("Healthy", "MS"),
        ("negative", "positive/p1"),
        ("notumor", "glioma"),
        ("NonCOVID", "COVID"),
        ("Normal cases", "Benign cases"),
        ("no_dr_images", "mild"),
        ("without_lesion", "with_lesion"),
        ("tumor-free", "tumor"),
        ("negativ", "positiv"),
        ("ohne_Befund", "mit_Befund"),
        ("keine Auffälligkeiten", "Auffälligkeiten"),
        ("unauffällig", "auffällig"),
        ("gesunde Probanden", "Kranke"),
        ("sain", "malade"),
        ("cas normaux", "cas pathologiques"),
        ("sans_lésion", "lésion"),
        ("pas_d_anomalie", "anomalie"),
        ("négatif", "positif"),
        ("sanos", "enfermos"),
        ("sin_hallazgos", "con_hallazgos"),
        ("negativo", "positivo"),
        ("pazienti_sani", "pazienti_malati"),
        ("senza_lesioni", "lesioni"),
        ("sem_lesão", "com_lesão"),
        ("saudável", "doente"),
        ("zdorovye", "bolnye"),
        ("bez_patologii", "patologiya"),
        ("норма", "опухоль"),
    ],
)
def test_no_boxes_beside_a_folder_of_images_without_findings(tmp_path, nothing, something):
    write(
        tmp_path,
        {
            f"images/{nothing}/a.png": [],
            f"images/{something}/b.png": [],
            f"images/{something}/c.png": [NODULE],
            "images/d.png": [],
        },
    )
    assert read(tmp_path) == {
        f"images/{nothing}/a.png": "complete",
        f"images/{something}/b.png": "faulty",
        f"images/{something}/c.png": "complete",
        "images/d.png": "complete",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("p1", "p2"),
        ("0", "1"),
        ("low_dose", "normal_dose"),
        ("raw", "normalized"),
        ("mit_Kontrast", "ohne_Kontrast"),
        ("sans_contraste", "avec_contraste"),
        ("Santos", "Sanchez"),
        ("train", "normal"),
        ("malignant", "benign"),
        ("background", "site_a"),
        ("control", "p001"),
    ],
)
def test_other_folders_say_nothing(tmp_path, one, other):
    write(tmp_path, {f"images/{one}/a.png": [], f"images/{other}/b.png": [NODULE]})
    assert set(read(tmp_path).values()) == {"complete"}


@pytest.mark.parametrize("moved", [["normal"], ["tumor"], ["normal", "tumor"]])
@pytest.mark.parametrize("above", ["", "p1/"])
@pytest.mark.parametrize("is_relative", [False, True])
def test_folders_in_a_folder_of_images_elsewhere(tmp_path, monkeypatch, moved, above, is_relative):
    monkeypatch.chdir(tmp_path)
    source, images = tmp_path / "set", tmp_path / "else" / "where"
    source.mkdir()
    tumors = {f"{above}tumor/b.png": [], f"{above}tumor/c.png": [NODULE], "d.png": []}
    write(source, {f"{above}normal/a.png": [], **tumors})
    for name in moved:
        (images / above).mkdir(parents=True, exist_ok=True)
        (source / above / name).rename(images / above / name)
    found = read(Path("set") if is_relative else source, ReaderOptions(images=images))
    assert list(found.values()) == ["complete", "faulty", "complete", "complete"]


def test_the_folder_of_images_elsewhere_may_be_one_of_a_class(tmp_path):
    write_image(tmp_path / "normal" / "a.png")
    (tmp_path / "tumor").mkdir()
    write(tmp_path / "tumor", {"a.png": [], "b.png": [], "c.png": [NODULE]})
    (tmp_path / "tumor" / "a.png").unlink()
    found = read(tmp_path / "tumor", ReaderOptions(images=tmp_path / "normal"))
    assert found == {"../normal/a.png": "complete", "b.png": "faulty", "c.png": "complete"}


def test_folders_without_findings_contradict_each_other_in_no_language(tmp_path):
    names = ("normal", "ohne_befund", "sain", "sano", "negativo", "saudavel", "norma")
    write(tmp_path, {f"images/{name}/{name}.png": [] for name in names})
    assert set(read(tmp_path).values()) == {"complete"}
