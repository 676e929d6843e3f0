from __future__ import annotations

import dataclasses
import json
import math

import pytest

from vae_aug.cli import console


@dataclasses.dataclass
class Result:
    images: int
    share: float


def test_lines_are_results_unless_json_is_one(capsys):
    console.say("[bold] 1 of 2")
    console.publish(Result(2, math.nan))
    with console.answer(as_json=True):
        console.say("[bold] 1 of 2")
        console.show(console.make_table("a title", ["name"]))
        console.publish(Result(2, math.nan))
    console.say("after it")
    captured = capsys.readouterr()
    first, *rest = captured.out.splitlines()
    assert first == "[bold] 1 of 2" and rest.pop() == "after it"
    assert json.loads("\n".join(rest)) == {"images": 2, "share": None}
    assert captured.err == "[bold] 1 of 2\n"


def test_lines_go_back_to_stdout_where_a_command_fails(capsys):
    with pytest.raises(KeyError), console.answer(as_json=True):
        raise KeyError
    console.say("result")
    console.warn("note")
    assert capsys.readouterr() == ("result\n", "note\n")


def test_a_line_is_never_broken(capsys):
    line = "x " * 300 + "end"
    console.say(line)
    assert capsys.readouterr().out == f"{line}\n"


def test_titles_and_names_are_no_markup(capsys):
    table = console.make_table("[red]a", ["name"], ["figure"])
    table.add_row("b", "1.5")
    console.show(table)
    listing = console.make_listing("[red]c")
    listing.add_row("d", "2.5")
    console.show(listing)
    out = capsys.readouterr().out
    assert all(word in out for word in ("[red]a", "name", "figure", "1.5", "[red]c", "d", "2.5"))


@pytest.mark.parametrize(
    ("count", "shown", "last"),
    [(20, 20, "  line 19"), (21, 20, "  and 1 more in report.json"), (0, 0, None)],
)
def test_of_many_problems_the_first_are_shown(capsys, count, shown, last):
    console.say_problems([f"line {i}" for i in range(count)], " in report.json")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("  line")] == lines[:shown]
    assert (lines[-1] if lines else None) == last
    assert len(lines) == min(count, shown + 1)


def test_a_bar_counts_and_is_not_in_a_log(capsys):
    with console.show_counts("images") as progress:
        progress(3, 7)
        [task] = progress.progress.tasks
        assert (task.description, task.completed, task.total) == ("images", 3, 7)
        assert progress.progress.disable
    assert capsys.readouterr() == ("", "")
