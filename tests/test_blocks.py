"""An ingest that is cut short goes on from the blocks that it left."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_ingest import GOOD, list_files, make_noise, read_files, write_coco

from vae_aug.codecs.images import write_image
from vae_aug.errors import RecordError
from vae_aug.ingest import blocks
from vae_aug.ingest.convert import convert_image
from vae_aug.ingest.ingest import ingest, ingest_by_patient

pytestmark = pytest.mark.usefixtures("config_home")

MANY = {f"P{i % 9}_{i}.png": [(i % 60, 2, 1 + i % 30, 4, 1 + i % 2)] for i in range(80)}
MANY |= {"P7_bad.png": [(99, 99, 1, 1, 1)], "P7_text.png": []}


def write_many(folder):
    source = write_coco(folder, MANY)
    (source / "images" / "P7_text.png").write_text("no image")
    return source


def interrupt_after(count):
    def progress(done, total):
        if done == count:
            raise KeyboardInterrupt

    return progress


def count_conversions(monkeypatch):
    """Record the source ids of the images that are converted."""
    converted = []

    def convert(item, conversion):
        converted.append(item.source_id)
        return convert_image(item, conversion)

    monkeypatch.setattr(blocks, "convert_image", convert)
    return converted


def test_a_run_cut_short_goes_on_and_converts_only_what_is_missing(tmp_path, monkeypatch):
    source, out = write_many(tmp_path / "in"), tmp_path / "out"
    whole = ingest(source, tmp_path / "whole", shards=3, salt="s")
    with pytest.raises(KeyboardInterrupt):
        ingest(source, out, shards=3, salt="s", progress=interrupt_after(40))
    assert list_files(out)[0].startswith(".ingest_train.") and len(list_files(out)) == 1
    converted, done = count_conversions(monkeypatch), []
    report = ingest(source, out, shards=3, salt="s", progress=lambda *a: done.append(a))
    # 82 images in blocks of 32; the 40th is in the second, which is whole when it is counted.
    assert converted == [f"images/{name}" for name in list(MANY)[64:]]
    assert done[0] == (1, 82) and done[-1] == (82, 82)
    assert report == whole and (report.resumed, whole.resumed) == (64, 0)
    assert read_files(out) == read_files(tmp_path / "whole")
    assert list_files(out) == list_files(tmp_path / "whole")


def test_splits_of_patients_go_on_too(tmp_path, monkeypatch):
    source, out = write_many(tmp_path / "in"), tmp_path / "out"
    shares = (0.6, 0.4)
    whole = ingest_by_patient(source, tmp_path / "whole", shares, salt="s")
    of_train = whole[0].images + whole[0].faulty + len(whole[0].skipped)
    calls = []

    def interrupt(done, total):
        calls.append(done)
        if len(calls) == of_train + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_by_patient(source, out, shares, salt="s", progress=interrupt)
    assert list((out).glob("train-*.tfrecord")) and not list(out.glob("validation-*"))
    converted = count_conversions(monkeypatch)
    assert ingest_by_patient(source, out, shares, salt="s") == whole
    assert len(converted) == max(82 - of_train - 32, 0)
    assert read_files(out) == read_files(tmp_path / "whole")


@pytest.mark.parametrize("change", ["image", "box", "bits"])
def test_other_images_or_settings_start_anew(tmp_path, monkeypatch, change):
    source, out = write_many(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        ingest(source, out, salt="s", progress=interrupt_after(1))
    settings = {"salt": "s"}
    if change == "image":
        write_image(source / "images" / "P0_0.png", make_noise(99))
    elif change == "box":
        write_coco(source, MANY | {"P0_0.png": [(1, 1, 2, 2, 1)]})
    else:
        settings["bits"] = 8
    converted = count_conversions(monkeypatch)
    report = ingest(source, out, **settings)
    assert report.restarted and report.resumed == 0 and len(converted) == 82
    ingest(source, tmp_path / "whole", **settings)
    assert read_files(out) == read_files(tmp_path / "whole")
    assert list_files(out) == list_files(tmp_path / "whole")


def test_number_of_shards_and_workers_may_change_on_the_way(tmp_path):
    source, out = write_many(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        ingest(source, out, salt="s", progress=interrupt_after(40))
    assert ingest(source, out, salt="s", shards=2, workers=2).resumed == 64
    ingest(source, tmp_path / "whole", salt="s", shards=2)
    assert read_files(out) == read_files(tmp_path / "whole")


def test_a_damaged_block_is_refused_by_name(tmp_path):
    source, out = write_many(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        ingest(source, out, salt="s", progress=interrupt_after(1))
    block = next(out.glob(".ingest_train.*/00000000.zip"))
    block.write_bytes(block.read_bytes()[:-40])
    with pytest.raises(RecordError, match=r"00000000\.zip: damaged \(BadZipFile\); delete"):
        ingest(source, out, salt="s")


@pytest.mark.slow
def test_a_command_killed_in_the_middle_writes_the_same_bytes_when_run_again(tmp_path):
    """The real command, killed by SIGKILL when the second of five blocks is there."""
    source, out = tmp_path / "in", tmp_path / "out"
    boxes = {f"P{i % 9}_{i}.png": [(i, 2, 3, 4, 1 + i % 2)] for i in range(150)}
    (source / "images").mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 1)).astype(np.uint8)
    write_image(tmp_path / "image.png", image)
    for name in boxes:
        shutil.copy(tmp_path / "image.png", source / "images" / name)
    write_coco(source, boxes, size=(256, 256))
    whole = ingest(source, tmp_path / "whole", shards=3, salt="s")
    (tmp_path / "salt").write_text("s")
    command = [sys.executable, "-c", "from vae_aug.cli import app; app()", "ingest"]
    command += [source, out, "--shards", "3", "--salt-file", tmp_path / "salt"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob(".ingest_train.*/00000032.zip")):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [name for name in list_files(out) if not name.startswith(".")] == []
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in again.stdout.splitlines() if "cut short" in line]
    assert 64 <= int(line.split()[0]) < 150
    assert "150 images written" in again.stdout and whole.images == 150
    assert read_files(out) == read_files(tmp_path / "whole")
    assert list_files(out) == list_files(tmp_path / "whole")


def test_what_an_unfinished_run_left_lets_no_other_run_replace_a_split(tmp_path):
    source, out = write_coco(tmp_path / "in", GOOD), tmp_path / "out"
    ingest(source, out, salt="s")
    with pytest.raises(KeyboardInterrupt):
        ingest(source, out, salt="t", overwrite=True, progress=interrupt_after(1))
    before = read_files(out)
    with pytest.raises(RecordError, match="has train"):
        ingest(source, out, salt="u")
    assert read_files(out) == before
    # The run that may replace it goes on without being allowed to again.
    assert ingest(source, out, salt="t").images == 3
