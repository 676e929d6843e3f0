"""Values of Python as JSON has them, which knows neither NaN nor infinity."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any


def make_json(value: Any) -> Any:
    """Return values as JSON has them: dataclasses as objects, paths as text, NaN as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: make_json(getattr(value, field.name)) for field in fields}
    match value:
        case Mapping():
            return {str(key): make_json(entry) for key, entry in value.items()}
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case Iterable():
            return [make_json(entry) for entry in value]
        case _:
            return str(value)
