"""What is held back to validate on where no split was made for that."""

from __future__ import annotations

import pytest
from test_train import write_images

from vae_aug.errors import RecordError
from vae_aug.train.feed import open_source
from vae_aug.train.holdout import hold_back


def open_images(folder, names):
    write_images(folder, names)
    return open_source(folder, "train")


def list_ids(sources):
    return {
        element["image/source_id"].numpy().decode()
        for source in sources
        for element in source.examples.map(source.parse)
    }


def list_patients(names):
    return {name.split("_")[0] for name in names}


def test_whole_patients_are_held_back(tmp_path):
    names = [(f"{p}_{i}", f"p{p}") for p in range(20) for i in range(3)]
    source = open_images(tmp_path, names)
    holdout = hold_back([source])
    trained, held = list_ids(holdout.training), list_ids(holdout.validation)
    assert trained | held == {name for name, _ in names}
    assert len(held) == 6 and not list_patients(trained) & list_patients(held)
    assert "6 of 60 images" in holdout.description
    assert "those of 2 of 20 patients" in holdout.description
    assert list_ids(hold_back([source]).validation) == held


@pytest.mark.parametrize("patient", ["one", ""])
def test_images_of_one_patient_or_none_are_held_back_one_by_one(tmp_path, patient):
    source = open_images(tmp_path, [(str(i), patient) for i in range(30)])
    holdout = hold_back([source])
    assert len(list_ids(holdout.training)) == 27 and len(list_ids(holdout.validation)) == 3
    assert "chosen one by one, since too few patients are known" in holdout.description


def test_a_patient_of_a_third_of_the_images_is_not_held_back_as_a_whole(tmp_path):
    names = [(f"{p}_{i}", f"p{p}") for p in range(3) for i in range(10)]
    holdout = hold_back([open_images(tmp_path, names)])
    assert len(list_ids(holdout.validation)) == 3
    assert "one by one" in holdout.description


def test_no_source_loses_all_its_images(tmp_path):
    sources = [open_images(tmp_path / str(i), [(f"{i}", f"p{i}")]) for i in range(3)]
    with pytest.raises(RecordError, match="too few images to hold one back"):
        hold_back(sources)
    sources.append(open_images(tmp_path / "more", [(f"m{i}", f"m{i}") for i in range(9)]))
    holdout = hold_back(sources)
    held = list_ids(holdout.validation)
    assert held and held <= {f"m{i}" for i in range(9)}
    sizes = [len(list(source.examples)) for source in holdout.training]
    assert sizes == [1, 1, 1, 9 - len(held)]
