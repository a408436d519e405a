"""JSON files we write and read back: atomic writing, and field-by-field validation that names the field."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from segformer_edge.cli import disk_full, is_disk_full
from segformer_edge.errors import SegformerEdgeError

#: Our files are a few kilobytes; more than this is something else under the name.
MAX_BYTES = 64 * 1024 * 1024

T = TypeVar("T")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path``: whole or not at all. A full disk raises DiskFullError and leaves nothing new."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(error, path) from error
        raise


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically. NaN and infinity are refused: they are not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def read_json(path: str | os.PathLike[str], error: type[SegformerEdgeError]) -> dict[str, Any]:
    """The JSON object in ``path``; raises ``error`` where it is missing, too large or not a JSON object."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise error(f"'{path}' has {size} bytes, too many for one of our JSON files.")
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as cause:
        raise error(f"Cannot read '{path}': {cause.strerror or cause}.") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"'{path}' is not valid JSON: {cause}.") from cause
    if not isinstance(value, dict):
        raise error(f"'{path}' holds a JSON {type(value).__name__}, not an object.")
    return value


def is_plain_name(name: str) -> bool:
    """Whether ``name``, which came from a file, can only be that of a file in the folder that it is looked for in."""
    return (
        name.isprintable()
        and name == Path(name).name
        and "\\" not in name
        and name not in ("", "..")
        and len(name.encode()) < 256
    )


class Fields:
    """Typed access to one JSON object; every complaint is ``error`` with the file and the field's path in it."""

    def __init__(self, value: Mapping[str, Any], where: str, error: type[SegformerEdgeError], prefix: str = "") -> None:
        self._value, self._where, self._error, self._prefix = value, where, error, prefix

    def __iter__(self) -> Iterator[str]:
        return iter(self._value)

    def fail(self, key: str, complaint: str) -> NoReturn:
        """Raise the error: field ``key`` ``complaint``."""
        raise self._error(f"{self._where}: '{self._prefix}{key}' {complaint}.")

    def raw(self, key: str) -> Any:
        """The value as JSON gave it; a missing key is an error."""
        if key not in self._value:
            self.fail(key, "is missing")
        return self._value[key]

    def has(self, key: str) -> bool:
        """Whether the object has the field, for fields that older files lack."""
        return key in self._value

    def section(self, key: str) -> Fields:
        """A nested object."""
        return Fields(self._typed(key, dict, "an object"), self._where, self._error, f"{self._prefix}{key}.")

    def sections(self, key: str) -> list[Fields]:
        """A list of objects."""
        items = self._typed(key, list, "a list")
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                self.fail(f"{key}[{i}]", f"is {_show(item)}, not an object")
        return [Fields(item, self._where, self._error, f"{self._prefix}{key}[{i}].") for i, item in enumerate(items)]

    def text(self, key: str, choices: tuple[str, ...] = ()) -> str:
        """A string, one of ``choices`` where given."""
        value: str = self._typed(key, str, "a text")
        if choices and value not in choices:
            self.fail(key, f"is {_show(value)}, not one of {', '.join(choices)}")
        return value

    def integer(self, key: str, minimum: int | None = None, maximum: int | None = None) -> int:
        """An integer within the limits (true and false are not integers)."""
        value = self._integer(key, self.raw(key))
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            self.fail(key, f"is {value}, outside {minimum} to {maximum if maximum is not None else 'any'}")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        return self._number(key, self.raw(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        items = self._typed(key, list, "a list")
        for i, item in enumerate(items):
            if not isinstance(item, str):
                self.fail(f"{key}[{i}]", f"is {_show(item)}, not a text")
        return tuple(items)

    def integers(self, key: str, length: int | None = None, minimum: int = 0) -> tuple[int, ...]:
        """A list of integers >= ``minimum``, of ``length`` where given."""
        items = self._list(key, length)
        values = tuple(self._integer(f"{key}[{i}]", item) for i, item in enumerate(items))
        if any(value < minimum for value in values):
            self.fail(key, f"is {list(values)}; every entry must be at least {minimum}")
        return values

    def numbers(self, key: str, length: int | None = None) -> tuple[float, ...]:
        """A list of finite numbers, of ``length`` where given."""
        return tuple(self._number(f"{key}[{i}]", item) for i, item in enumerate(self._list(key, length)))

    def mapping(self, key: str) -> dict[str, str]:
        """An object whose values are all strings."""
        value: dict[str, str] = self._typed(key, dict, "an object")
        for name, item in value.items():
            if not isinstance(item, str):
                self.fail(f"{key}.{name}", f"is {_show(item)}, not a text")
        return dict(value)

    def optional(self, key: str, read: Callable[[str], T]) -> T | None:
        """``read(key)``, or None where the value is null: ``fields.optional("scale", fields.number)``."""
        return None if self.raw(key) is None else read(key)

    def _list(self, key: str, length: int | None) -> list[Any]:
        items: list[Any] = self._typed(key, list, "a list")
        if length is not None and len(items) != length:
            self.fail(key, f"has {len(items)} entries, not {length}")
        return items

    def _typed(self, key: str, kind: type, name: str) -> Any:
        value = self.raw(key)
        if not isinstance(value, kind):
            self.fail(key, f"is {_show(value)}, not {name}")
        return value

    def _integer(self, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"is {_show(value)}, not an integer")
        return value

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _fits_float(value):
            self.fail(key, f"is {_show(value)}, not a finite number")
        return float(value)


def _fits_float(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
