"""Random pseudonyms: one an identifier, for good, drawn from nothing that is known of it."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_ingest import GOOD, write_coco
from typer.testing import CliRunner

from vae_aug import cli
from vae_aug.errors import VAEAugError
from vae_aug.ingest import pseudonyms
from vae_aug.ingest.ingest import ingest
from vae_aug.ingest.pseudonyms import PseudonymTable, get_table_path, open_table
from vae_aug.ingest.reading import find_hashed
from vae_aug.ingest.settings import IngestSettings
from vae_aug.records.records import read_records

pytestmark = pytest.mark.usefixtures("config_home")


def read_patients(folder, split="train"):
    elements = read_records(folder, split).as_numpy_iterator()
    return [element["image/patient"].decode() for element in elements]


def test_an_identifier_keeps_its_pseudonym_and_others_have_others():
    table = open_table()
    made = [table.make("patient", "DOE"), table.make("patient", "ROE"), table.make("source", "DOE")]
    assert len(set(made)) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", pseudonym) for pseudonym in made)
    again = open_table()
    assert [again.make("patient", "DOE"), again.find("patient", "ROE")] == made[:2]
    # Blocks that a killed run left are known by it.
    assert again.secret == table.secret and len(table.secret) == 32
    assert table.make("patient", "") == "" and again.find("patient", "POE") == ""
    assert table.make("source", "caf\udce9.png") == again.find("source", "caf\udce9.png") != ""


def test_pseudonyms_of_another_table_are_others(monkeypatch, tmp_path):
    made = []
    for name in ("one", "two"):
        monkeypatch.setenv("VAE_AUG_PSEUDONYMS", str(tmp_path / name))
        assert get_table_path() == tmp_path / name
        made.append((open_table().make("patient", "DOE"), open_table().secret))
    assert made[0][0] != made[1][0] and made[0][1] != made[1][1]


def test_the_table_is_for_the_user_alone(config_home):
    open_table().make("patient", "DOE")
    path = config_home / "vae-aug" / "pseudonyms.sqlite"
    assert path == get_table_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert str(path) not in repr(open_table()) and "secret" not in repr(open_table())


def test_who_draws_at_the_same_time_gets_the_same():
    names = [f"patient {number}" for number in range(20)]

    def draw(_):
        table = open_table()
        return [table.make("patient", name) for name in names]

    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(draw, range(8)))
    assert all(pseudonyms == drawn[0] for pseudonyms in drawn)
    assert len(set(drawn[0])) == len(names)


def test_a_pseudonym_that_is_taken_is_drawn_again(monkeypatch):
    drawn = iter(["0" * 16, "0" * 16, "1" * 16])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(drawn))
    table = open_table()
    assert [table.make("patient", name) for name in ("DOE", "ROE")] == ["0" * 16, "1" * 16]


def test_records_name_patients_by_the_table_and_nobody_else(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    ingest(source, tmp_path / "out", format="coco", pseudonyms="random")
    table = open_table()
    doe, roe = table.find("patient", "DOE"), table.find("patient", "ROE")
    assert read_patients(tmp_path / "out") == [doe, doe, roe] and "" not in (doe, roe)
    for path in (tmp_path / "out").iterdir():
        assert b"DOE" not in path.read_bytes() and b"ROE" not in path.read_bytes()


def test_processes_share_the_table_and_write_the_same_records(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    for name, workers in (("two", 2), ("one", 1)):
        chosen = {"format": "coco", "pseudonyms": "random", "workers": workers}
        ingest(source, tmp_path / name, **chosen)
    shards = [(tmp_path / name).glob("*.tfrecord") for name in ("one", "two")]
    one, two = ([path.read_bytes() for path in sorted(paths)] for paths in shards)
    assert one == two


def test_a_patient_in_two_splits_is_found(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    write_coco(source, {"DOE_3.png": []}, split="test")
    ingest(source, tmp_path / "out", format="coco", pseudonyms="random")
    report = ingest(source, tmp_path / "out", format="coco", split="test", pseudonyms="random")
    assert "patient" in {leak.kind for leak in report.leaks}


def test_which_finds_names_and_draws_none(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    with pytest.raises(VAEAugError, match="no such file"):
        find_hashed(source, ["0" * 16], format="coco", pseudonyms="random")
    assert not get_table_path().exists()
    assert open_table().find("patient", "DOE") == ""
    assert find_hashed(source, ["0" * 16], format="coco", pseudonyms="random") == {}
    assert open_table().find("patient", "DOE") == ""
    ingest(source, tmp_path / "out", format="coco", pseudonyms="random")
    doe = open_table().find("patient", "DOE")
    image = open_table().find("source", "images/DOE_1.png")
    found = find_hashed(source, [doe, image], format="coco", pseudonyms="random")
    assert found == {doe: "DOE", image: "images/DOE_1.png"}
    arguments = ["which", str(source), doe, "--format", "coco", "--pseudonyms", "random"]
    assert CliRunner().invoke(cli.app, arguments).stdout == f"{doe} DOE\n"


def test_the_command_draws(tmp_path):
    source = write_coco(tmp_path / "in", GOOD)
    arguments = ["ingest", str(source), str(tmp_path / "out"), "--pseudonyms", "random"]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    assert read_patients(tmp_path / "out")[0] == open_table().find("patient", "DOE") != ""
    written = json.loads((tmp_path / "out" / "ingest_train.json").read_text())
    assert str(get_table_path()) not in json.dumps(written)


@pytest.mark.parametrize(
    "chosen", [{"salt": "s"}, {"keep_ids": True}, {"runner": "DirectRunner"}], ids=str
)
def test_what_contradicts_a_table_is_refused_and_makes_none(chosen):
    with pytest.raises(ValueError, match='pseudonyms="random" takes no salt'):
        IngestSettings(pseudonyms="random", **chosen)
    assert not get_table_path().exists()
    with pytest.raises(ValueError, match="pseudonyms must be one of"):
        IngestSettings(pseudonyms="none")


def test_a_table_that_cannot_be_used_is_named_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_AUG_PSEUDONYMS", str(tmp_path / "table"))
    (tmp_path / "table").write_bytes(b"no database " * 100)
    with pytest.raises(VAEAugError, match=r"table: the table of pseudonyms.*not a database"):
        open_table()
    assert (tmp_path / "table").read_bytes() == b"no database " * 100
    (tmp_path / "empty").touch()
    monkeypatch.setenv("VAE_AUG_PSEUDONYMS", str(tmp_path / "empty"))
    with pytest.raises(VAEAugError, match=r"empty: the table of pseudonyms"):
        open_table()
    monkeypatch.setenv("VAE_AUG_PSEUDONYMS", str(tmp_path / "table" / "below a file"))
    with pytest.raises(VAEAugError, match=r"below a file.*File exists"):
        open_table()


def test_a_table_that_is_gone_is_not_made_anew(tmp_path):
    table = open_table()
    table.path.unlink()
    with pytest.raises(VAEAugError, match="no such file"):
        table.make("patient", "DOE")
    assert not table.path.exists()
    assert PseudonymTable(table.path, b"") == PseudonymTable(table.path, b"")


def test_a_table_that_others_write_is_to_be_waited_for(monkeypatch):
    monkeypatch.setattr(pseudonyms, "WAIT_SECONDS", 0.1)
    table = open_table()
    with contextlib.closing(sqlite3.connect(table.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(VAEAugError, match=r"another process writes.*Run it again"):
            table.make("patient", "DOE")
    assert table.make("patient", "DOE")


def test_pseudonyms_of_a_source_are_drawn_at_once(tmp_path, monkeypatch):
    drawn = []
    draw = PseudonymTable.draw

    def count(table, names):
        names = list(names)
        drawn.append(len(names))
        draw(table, names)

    monkeypatch.setattr(PseudonymTable, "draw", count)
    source = write_coco(tmp_path / "in", GOOD)
    ingest(source, tmp_path / "out", format="coco", pseudonyms="random")
    # Three images and their patients; the file of annotations is one more name.
    assert drawn[0] == 6 and sum(drawn[1:]) <= 1


def test_a_run_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    source = write_coco(tmp_path / "in", GOOD)
    chosen = {"format": "coco", "pseudonyms": "random"}

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(source, tmp_path / "out", progress=stop, **chosen)
    assert ingest(source, tmp_path / "out", **chosen).resumed == 3
