from __future__ import annotations

import typing

import pytest
import typer

from vae_aug.cli import options
from vae_aug.ingest.formats import READERS
from vae_aug.ingest.nifti import AXES
from vae_aug.train.corrupt import CORRUPTIONS


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (options.Format, ("auto", *READERS)),
        (options.Axis, AXES),
        (options.Corruption, CORRUPTIONS),
    ],
)
def test_choices_are_those_of_the_package(choices, expected):
    assert sorted(typing.get_args(choices)) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("auto", "auto"),
        ("lung", "lung"),
        ("-600,1500", (-600.0, 1500.0)),
        (" 40 , 4e2 ", (40.0, 400.0)),
        ("40,", "40,"),
        ("40,x", "40,x"),
        ("1,2,3", "1,2,3"),
    ],
)
def test_a_window_is_two_numbers_or_text_that_its_user_checks(text, window):
    assert options.parse_window(text) == window


def test_a_value_range_is_two_numbers_or_none():
    assert options.parse_value_range(None) is None
    assert options.parse_value_range("-1.5,4095") == (-1.5, 4095.0)
    for text in ("300", "0,1,2", "0,white", ""):
        with pytest.raises(ValueError, match=f"--value-range wants LOW,HIGH .*; got {text!r}"):
            options.parse_value_range(text)


def test_an_option_that_may_be_repeated_takes_its_words_alone():
    option = options.repeat(typing.Literal["on", "off"], "Text.")
    assert (option.metavar, option.help) == ("<on|off>", "Text.")
    assert option.parser("off") == "off"
    with pytest.raises(typer.BadParameter, match="'of' is not one of 'on', 'off'"):
        option.parser("of")
    assert option.autocompletion("o") == ["on", "off"] and option.autocompletion("of") == ["off"]


def test_a_salt_is_read_without_the_line_that_ends_it(tmp_path):
    (tmp_path / "salt").write_text(" secret of ours \n")
    assert options.read_salt(tmp_path / "salt") == "secret of ours"
    assert options.read_salt(None) is None
