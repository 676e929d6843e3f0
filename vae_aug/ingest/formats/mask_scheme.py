"""What the values and colours of a data set's masks mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_aug.errors import AnnotationError, VAEAugError
from vae_aug.ingest.formats.mask_levels import MAX_CLASSES, LevelCounter, Levels
from vae_aug.ingest.formats.mask_pixels import Mask
from vae_aug.words import plural

VOID = 0xE0E0C0
"""The colour around objects in Pascal VOC's masks, entry 255 of the palette; it is no class."""

VOC_NUMBERS = {
    sum(
        sum((number >> 3 * bit + part & 1) << 7 - bit for bit in range(3)) << 16 - 8 * part
        for part in range(3)
    ): number
    for number in range(1, 21)
}
"""The numbers of Pascal VOC's classes by colour, as its development kit's `VOClabelcolormap`."""

_OBJECT = "object"
_WHITE = 255
_SHOWN = 5
# JPEG loses or moves the edges of what is nearly black.
_LOW = 128


class Scheme(NamedTuple):
    """How masks become classes.

    Attributes:
        names: The name of each class value. A value without a name is a fault.
        levels: What grey levels are.
        colours: Class values by colour, `0xRRGGBB`, 0 for background; None if grey levels and
            numbers of palette entries count.
    """

    names: Mapping[int, str]
    levels: Levels
    colours: Mapping[int, int] | None = None

    def classify(self, mask: Mask) -> np.ndarray:
        """Return a mask as class values, `[H, W]`, 0 for background.

        Raises:
            VAEAugError: If the mask does not fit the others; the message names no file.
        """
        if self.colours is not None:
            if not mask.is_colour and mask.values.max() > _WHITE:
                raise VAEAugError(
                    f"it has the grey value {mask.values.max()}, which is no colour; write "
                    "classes.txt, whose line k names value k, instead of labelmap.txt"
                )
            return self._classify_colours(mask.colours, self.colours)
        if mask.is_colour:
            raise VAEAugError("it is in colour, while other masks of the data set are grey")
        if mask.palette is not None:
            void = [number for number in _find_void(mask)]
            return np.where(np.isin(mask.values, void), 0, mask.values)
        are_classes = len(self.levels.values) > 1 or min(self.levels.values, default=255) < _LOW
        if mask.is_jpeg and self.levels.white is None and are_classes:
            raise VAEAugError("it is a JPEG, which changes the values of classes; save it as PNG")
        return self.levels.classify(mask.values)

    def has_void(self, mask: Mask) -> bool:
        """Tell whether a mask leaves pixels open, which may be difficult objects."""
        has_colours = mask.palette is not None or self.colours is not None
        return has_colours and bool((mask.colours == VOID).any())

    @staticmethod
    def _classify_colours(pixels: np.ndarray, colours: Mapping[int, int]) -> np.ndarray:
        found, inverse = np.unique(pixels, return_inverse=True)
        unknown = [colour for colour in found.tolist() if colour not in colours]
        if unknown:
            raise VAEAugError(
                f"it has {len(unknown)} colours that no line of labelmap.txt has, "
                f"{_format_colour(unknown[0])} first"
            )
        classes = np.array([colours[colour] for colour in found.tolist()], np.int32)
        return classes[inverse].reshape(pixels.shape)


def _find_void(mask: Mask) -> list[int]:
    return [number for number, colour in (mask.palette or {}).items() if colour == VOID]


def _format_colour(colour: int) -> str:
    return ",".join(str(part) for part in colour.to_bytes(3, "big"))


class Survey:
    """Gathers what the masks of a data set hold, since one alone does not tell what it means."""

    def __init__(self) -> None:
        """Begin with no mask."""
        self._levels = LevelCounter()
        self._colours: set[int] = set()
        self._palette: dict[int, set[int]] = {}
        self._numbers: set[int] = set()
        self._has_colour = False
        self._has_one_palette = True

    def add(self, mask: Mask) -> None:
        """Take a mask into account."""
        if mask.is_colour:
            self._has_colour = True
            self._colours |= set(np.unique(mask.values).tolist())
        elif mask.palette is not None:
            if any(bool(number) != bool(colour) for number, colour in mask.palette.items()):
                self._has_one_palette = False
            for number, colour in mask.stored.items():
                self._palette.setdefault(number, set()).add(colour)
            self._colours |= set(mask.palette.values())
            self._numbers |= mask.palette.keys() - {0, *_find_void(mask)}
        else:
            self._levels.add(mask.values)

    def decide(
        self, root: Path, classes: Mapping[int, str] | None, colours: Mapping[int, str] | None
    ) -> Scheme:
        """Decide what values and colours mean.

        Colours are told by labelmap.txt. Without it the numbers of a palette's entries count if all
        masks have one palette in which entry 0, and no other, is black, and in which no colour of
        Pascal VOC has another number than there, as in palettes that were sorted; else, and without
        a palette, there may be one colour besides black.

        Args:
            root: The data set's folder, for messages.
            classes: Names by value, None if nothing names them.
            colours: Names by colour, `""` for background; None if nothing names them.

        Returns:
            How to read the masks.

        Raises:
            AnnotationError: If it cannot be told, or a name is missing for what has none.
        """
        if colours is not None:
            return _name_colours(colours)
        is_grey = bool(self._numbers or self._levels.values)
        is_one = self._has_one_palette and all(len(self._palette[n]) == 1 for n in self._numbers)
        if not is_one or self._find_moved() or (self._has_colour and not is_grey):
            grey = {value * 0x010101 for value in self._levels.values}
            return self._take_colour(root, (self._colours | grey) - {0, VOID}, classes)
        try:
            levels = self._levels.decide(classes or {})
        except VAEAugError as error:
            raise AnnotationError(f"{root}: {error}.") from error
        if levels.white is not None and classes is not None and len(classes) > 1:
            raise AnnotationError(
                f"{root}: the masks hold 0 and {levels.white} with soft edges, and classes.txt has "
                f"{len(classes)} names; keep one, or save masks of classes without smoothing."
            )
        found = {*levels.values, *self._numbers}
        if classes is None:
            _check_unnamed(root, found, levels)
        return Scheme(name_found(found, classes), levels)

    def _find_moved(self) -> dict[int, int]:
        """Return Pascal VOC's colours that masks use under other numbers, by these."""
        return {
            number: colour
            for number in sorted(self._numbers)
            for colour in self._palette.get(number, ())
            # Grey is in many palettes.
            if VOC_NUMBERS.get(colour, number) != number and colour % 0x010101
        }

    def _explain_palette(self) -> str:
        """Return why the numbers of a palette's entries do not count; `""` without a palette."""
        for number, colour in self._find_moved().items():
            return (
                f" (entry {number} of their palette has the colour of Pascal VOC's class "
                f"{VOC_NUMBERS[colour]}, so that classes.txt may number either)"
            )
        return " (numbers of a palette do not, if palettes differ)" if self._numbers else ""

    def _suggest_lines(self, colours: Iterable[int], classes: Mapping[int, str]) -> str:
        """Return lines of labelmap.txt, for both readings of a palette whose colours were moved."""
        entries = {colour: n for n, stored in self._palette.items() for colour in stored}
        readings = (
            ", ".join(
                f"`{classes.get(numbers.get(colour, 0), 'name')}:{_format_colour(colour)}::`"
                for colour in sorted(colours)[:_SHOWN]
            )
            for numbers in ((entries, VOC_NUMBERS) if self._find_moved() else ({},))
        )
        return ", or by the numbers of Pascal VOC ".join(dict.fromkeys(readings))

    def _take_colour(
        self, root: Path, colours: set[int], classes: Mapping[int, str] | None
    ) -> Scheme:
        """Take the only colour besides black for the only class."""
        if len(colours) > 1 or len(classes or ()) > 1:
            raise AnnotationError(
                f"{root}: the masks hold {plural(len(colours), 'colour')} besides black, and "
                f"nothing says which classes these are{self._explain_palette()}; write "
                f"labelmap.txt, one line a colour: {self._suggest_lines(colours, classes or {})}."
            )
        numbers = dict.fromkeys((0, VOID), 0) | dict.fromkeys(colours, 1)
        return Scheme(name_found({1}, classes), Levels(frozenset()), numbers)


def _check_unnamed(root: Path, found: set[int], levels: Levels) -> None:
    """Refuse values that are rather numbers of objects, grey, or marks than classes."""
    if len(found) > MAX_CLASSES:
        raise AnnotationError(
            f"{root}: the masks hold {len(found)} values; more than {MAX_CLASSES} are rather "
            "numbers of objects than classes. Write classes.txt, whose line k names value k; "
            "names may repeat."
        )
    if len(found) > 1 and max(levels.values, default=0) > MAX_CLASSES:
        told = ", ".join(map(str, sorted(found)[:_SHOWN])) + (", ..." * (len(found) > _SHOWN))
        blurred = f"; {len(levels.blurred)} more lie at edges, as smoothing leaves them"
        colours = "in labelmap.txt, a line `name:100,100,100::` for 100, or "
        raise AnnotationError(
            f"{root}: the masks hold the values {told}{blurred * bool(levels.blurred)}. Without "
            f"names, 1 to {MAX_CLASSES} are classes, and one value alone is one mask. Name each "
            f"{colours * (max(found) <= _WHITE)}in classes.txt, whose line k names value k."
        )


def _name_colours(colours: Mapping[int, str]) -> Scheme:
    names = dict(enumerate(dict.fromkeys(filter(None, colours.values())), start=1))
    values = {name: value for value, name in names.items()} | {"": 0}
    numbers = {0: 0, VOID: 0} | {colour: values[name] for colour, name in colours.items()}
    return Scheme(names, Levels(frozenset()), numbers)


def name_found(found: set[int], classes: Mapping[int, str] | None) -> dict[int, str]:
    """Name the values of masks.

    Args:
        found: The values of all regions.
        classes: Names by value, None if nothing names them.

    Returns:
        Names by value, in the order of the labels: those that are given, of which the only one is
        also that of a single value above `MAX_CLASSES`, as 255; else `object` for 1 or such a value
        alone; else the numbers.
    """
    is_high = len(found) == 1 and min(found) > MAX_CLASSES
    if classes is not None:
        is_single = is_high and classes.keys() == {1}
        return dict.fromkeys(found, classes[1]) if is_single else dict(classes)
    if is_high or found <= {1}:
        return dict.fromkeys(found, _OBJECT)
    return {value: str(value) for value in sorted(found)}
