from __future__ import annotations

import codecs

import pytest

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.borders import keep_inside
from vae_aug.ingest.formats.text import load_json, load_yaml, parse_xml, read_text
from vae_aug.limits import MAX_DEPTH, MAX_YAML_BYTES

READERS = (read_text, load_json, load_yaml, parse_xml)
WORD = "опухоль"
BYTES = {
    "utf-8": WORD.encode(),
    "utf-8 with a mark": codecs.BOM_UTF8 + WORD.encode(),
    "utf-16-le": codecs.BOM_UTF16_LE + WORD.encode("utf-16-le"),
    "utf-16-be": codecs.BOM_UTF16_BE + WORD.encode("utf-16-be"),
    "utf-32-le": codecs.BOM_UTF32_LE + WORD.encode("utf-32-le"),
    "utf-32-be": codecs.BOM_UTF32_BE + WORD.encode("utf-32-be"),
}


@pytest.fixture
def write(tmp_path):
    """Write a file, and return its path."""

    def write(content):
        path = tmp_path / "a.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("encoding", BYTES)
def test_text_is_decoded_as_its_mark_tells(write, encoding):
    assert read_text(write(BYTES[encoding])) == WORD


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WORD.encode("cp1251"), r"is no text in UTF-8 \(byte 0\)"),
        (b"abc\xff", r"is no text in UTF-8 \(byte 3\)"),
        (b"a\0b", "it holds zero bytes"),
        (codecs.BOM_UTF16_LE + b"a", "is no text in UTF-8"),
    ],
)
def test_text_in_an_encoding_that_would_have_to_be_guessed_is_refused(write, data, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_text(write(data))
    assert "save it as UTF-8" in str(caught.value)


@pytest.mark.parametrize("read", READERS)
def test_files_are_bounded_and_must_be_there(tmp_path, write, read):
    path = write(" " * (MAX_YAML_BYTES + 1))
    with pytest.raises(
        AnnotationError, match=f"at most {MAX_YAML_BYTES if read is load_yaml else 9}"
    ):
        read(path) if read is load_yaml else read(path, 9)
    with pytest.raises(AnnotationError, match=r"missing\.txt: cannot be read"):
        read(tmp_path / "missing.txt")
    with (
        keep_inside((tmp_path / "elsewhere",)),
        pytest.raises(AnnotationError, match="leads out of the source"),
    ):
        read(path)


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "a": 1}}]', "[" * 100_000, "{'a': 1}", ""]
)
def test_json_that_loses_something_or_is_none_is_refused(write, text):
    with pytest.raises(AnnotationError, match=r"a\.txt: no valid JSON \("):
        load_json(write(text))


def test_json_of_another_encoding_is_told_of_its_encoding(write):
    assert load_json(write(b'{"a": "\xc3\xa4"}')) == {"a": "ä"}
    assert load_json(write('{"a": "ä"}'.encode("utf-16"))) == {"a": "ä"}
    with pytest.raises(AnnotationError, match=r"is no text in UTF-8 \(byte 7\)"):
        load_json(write(b'{"a": "\xe4"}'))


def test_the_key_that_is_there_twice_is_not_named(write):
    """Keys may be names of files, which are often those of patients."""
    with pytest.raises(AnnotationError) as caught:
        load_json(write('{"DOE^JANE": 1, "DOE^JANE": 2}'))
    assert "has a key twice" in str(caught.value) and "DOE" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x [1]\nb: *x", "aliases are not read in line 2"),
        ("a: 1\na: 2", "a key is there twice in line 1"),
        ("a: !!python/object:os.system 1", "could not determine a constructor"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 2020-99-99", "ValueError"),
        ("[" * 2000, "RecursionError"),
    ],
)
def test_yaml_of_more_than_plain_values_is_refused(write, text, problem):
    with pytest.raises(AnnotationError) as caught:
        load_yaml(write(text))
    assert f"no valid YAML ({problem}" in str(caught.value)


def test_yaml_of_plain_values_is_read(write):
    assert load_yaml(write("names:\n  0: a\n  1: 'b'\nnc: 2")) == {
        "names": {0: "a", 1: "b"},
        "nc": 2,
    }


@pytest.mark.parametrize(
    "data",
    [
        f"<a>{WORD}</a>".encode(),
        codecs.BOM_UTF8 + f"<a>{WORD}</a>".encode(),
        f'<?xml version="1.0" encoding="windows-1251"?><a>{WORD}</a>'.encode("cp1251"),
        f'<?xml version="1.0" encoding="UTF-16"?><a>{WORD}</a>'.encode("utf-16"),
        f"<a>{WORD}</a>".encode("utf-16"),
    ],
)
def test_xml_is_decoded_as_it_declares(write, data):
    assert parse_xml(write(data)).text == WORD


def test_xml_in_an_encoding_of_several_bytes_is_read(write):
    text = '<?xml version="1.0" encoding="GBK"?><a>肿瘤</a>'
    assert parse_xml(write(text.encode("gbk"))).text == "肿瘤"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "it defines entities"),
        ("<a>" * (MAX_DEPTH + 1) + "</a>" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH} levels"),
        ("<a><b></a>", "mismatched tag"),
        ("", "no element found"),
        ('<?xml version="1.0" encoding="none-such"?><a/>', "unknown encoding"),
    ],
)
def test_xml_that_is_none_or_grows_is_refused(write, text, problem):
    with pytest.raises(AnnotationError, match=r"a\.txt: no valid XML") as caught:
        parse_xml(write(text))
    assert problem in str(caught.value)


def test_the_deepest_xml_that_is_read(write):
    parse_xml(write("<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH))
    with pytest.raises(AnnotationError, match=r"is no text in UTF-8 \(byte 3\)"):
        parse_xml(write(b"<a>\xe4</a>"))
