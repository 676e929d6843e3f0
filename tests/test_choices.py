from __future__ import annotations

import inspect
import typing

import pytest
import typer

from vae_aug.cli.choices import describe_choices, list_literals, shorten_choices


@pytest.mark.parametrize(
    ("names", "text", "expected"),
    [
        (("on", "off"), "Text.", ("<on|off>", "Text.")),
        (
            ("efficientnet-b1", "vit"),
            "Backbone. [default: vit]",
            ("<choice>", "Backbone. One of efficientnet-b1, vit. [default: vit]"),
        ),
        (
            ("lengthy", "lengthier", "longest"),
            "lengthy is this, lengthier that; longest all.",
            ("<choice>", "lengthy is this, lengthier that; longest all."),
        ),
        (
            ("open", "openvino", "openvino-int8"),
            "openvino-int8 is an extra.",
            ("<choice>", "openvino-int8 is an extra. One of open, openvino, openvino-int8."),
        ),
    ],
)
def test_choices_that_are_long_stand_in_the_text(names, text, expected):
    assert describe_choices(names, text) == expected


def make_parameter(annotation):
    return inspect.Parameter("mode", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def get_option(parameter):
    return typing.get_args(parameter.annotation)[1]


@pytest.mark.parametrize("kind", [typing.Literal["on", "off"], typing.Literal["on", "off"] | None])
def test_an_option_of_literals_is_described_and_stays_as_it_was_for_others(kind):
    shared = typer.Option(help="Text.")
    first = shorten_choices(make_parameter(typing.Annotated[kind, shared]))
    assert (get_option(first).metavar, get_option(first).help) == ("<on|off>", "Text.")
    assert typing.get_args(first.annotation)[0] == kind
    assert (shared.metavar, shared.help) == (None, "Text.")


@pytest.mark.parametrize(
    "annotation",
    [
        typing.Literal["on", "off"],
        typing.Annotated[int, typer.Option(help="Text.")],
        typing.Annotated[typing.Literal["on", "off"], typer.Option(metavar="<way>", help="Text.")],
    ],
)
def test_other_parameters_stay(annotation):
    assert shorten_choices(make_parameter(annotation)).annotation == annotation


def test_literals_are_found_in_options_that_may_be_missing_or_several():
    literal = typing.Literal["a", "b"]
    for kind in (literal, literal | None, list[literal], typing.Annotated[literal | None, "note"]):
        assert list_literals(kind) == ("a", "b")
    assert list_literals(int) == list_literals(str | None) == ()
