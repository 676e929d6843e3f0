"""Label maps of the TF Object Detection API, and the labels that records use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)

from vae_aug.errors import AnnotationError
from vae_aug.ingest.formats.source import Fault, clean_label
from vae_aug.ingest.formats.text import read_text


class LabelMap(NamedTuple):
    """What a label map says.

    Attributes:
        names: Names by their numbers, in the order of the numbers; empty without a label map.
        numbers: Numbers by the names, those for display too.
    """

    names: Mapping[int, str]
    numbers: Mapping[str, int]


class Labels:
    """The labels of a source: those of its label map, and those that its records use."""

    def __init__(self, label_map: LabelMap) -> None:
        """Begin with the labels of a label map."""
        self._map = label_map
        self._numbers: dict[str, int | None] = {}
        self._unnamed: set[str] = set()

    def name(self, text: str, number: int | None) -> str | Fault:
        """Return the name of a label that a record gives by text, number or both.

        Args:
            text: The text, `""` if there is none.
            number: The number, None if there is none.

        Returns:
            The name, `""` if there is neither; or why there is none: the label map names another
            class, or none by this number.
        """
        text = clean_label(text)
        mapped = None if number is None else self._map.names.get(number)
        number_of_text = self._map.numbers.get(text)
        is_mapped = mapped is not None or number_of_text is not None
        if text and number is not None and is_mapped and number_of_text != number:
            return Fault(f"its class/text is not what the label map names {number}")
        if not text and number is not None:
            if self._map.names and mapped is None:
                return Fault(f"the label map has no item of its class/label {number}")
            text = str(number) if mapped is None else mapped
            self._unnamed |= {text} if mapped is None else set()
        elif number_of_text is not None:
            text = self._map.names[number_of_text]
        if text and self._numbers.get(text) is None:
            self._numbers[text] = number
        return text

    def list_names(self, place: Path) -> list[str]:
        """Return all names in their order.

        Args:
            place: The source, for the message.

        Raises:
            AnnotationError: If some boxes have a text and others only a number, so that one class
                would become two.
        """
        used = sorted(self._numbers)
        if self._unnamed and self._unnamed != set(used):
            raise AnnotationError(
                f"{place}: some boxes have class/text and others only class/label; put a "
                "label_map.pbtxt beside the records that names the numbers."
            )
        numbers = [self._numbers[name] for name in used]
        if not self._map.names and None not in numbers:
            used = [name for _, name in sorted(zip(numbers, used, strict=True))]
        return list(dict.fromkeys([*self._map.names.values(), *used]))


def find_label_map(folders: Iterable[Path], root: Path) -> LabelMap:
    """Find the label map of records.

    Args:
        folders: The folders of the records.
        root: The source, where a label map counts for folders without one.

    Returns:
        The map; empty if there is none.

    Raises:
        AnnotationError: If a folder holds several, or two folders differ, or one cannot be read.
    """
    files = dict.fromkeys(filter(None, (_find_file((folder, root)) for folder in folders)))
    maps = [_read_label_map(file) for file in files]
    if any(other != maps[0] for other in maps):
        raise AnnotationError(
            f"{root}: its label maps differ, so that one number would be two classes; give the "
            "folders one by one."
        )
    return maps[0] if maps else LabelMap({}, {})


def _find_file(folders: Iterable[Path]) -> Path | None:
    for folder in folders:
        files = sorted(folder.glob("*.pbtxt"))
        files = [file for file in files if file.name == "label_map.pbtxt"] or files
        if len(files) > 1:
            raise AnnotationError(
                f"{folder}: holds several label maps ({', '.join(file.name for file in files)}); "
                "call the right one label_map.pbtxt."
            )
        if files:
            return files[0]
    return None


def _read_label_map(path: Path) -> LabelMap:
    label_map = _make_label_map()
    try:
        text_format.Parse(read_text(path), label_map, allow_unknown_field=True)
    except (text_format.ParseError, RecursionError, ValueError) as error:
        raise AnnotationError(
            f"{path}: no label map; expected item {{ id: 1 name: 'NAME' }} and so on."
        ) from error
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for item in label_map.item:
        texts = [text for text in map(clean_label, (item.name, item.display_name)) if text]
        if not texts or not item.HasField("id") or item.id in names or texts[0] in numbers:
            raise AnnotationError(f"{path}: every item needs an id and a name of its own.")
        names[item.id] = texts[0]
        numbers |= {text: item.id for text in reversed(texts) if text not in numbers}
    return LabelMap(dict(sorted(names.items())), numbers)


def _make_label_map() -> Any:
    """Make an empty message of the type StringIntLabelMap, as far as it is read here."""
    file = descriptor_pb2.FileDescriptorProto(name="label_map.proto", syntax="proto2")
    item = file.message_type.add(name="Item")
    field = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(
        (("name", field.TYPE_STRING), ("id", field.TYPE_INT32), ("display_name", field.TYPE_STRING))
    ):
        item.field.add(name=name, number=number + 1, type=kind, label=field.LABEL_OPTIONAL)
    message = file.message_type.add(name="StringIntLabelMap")
    message.field.add(
        name="item",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".Item",
        label=field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("StringIntLabelMap"))()
