"""Every way to alter one thing in a certificate, for the tests of its checker.

    for change in alterations(record):
        with pytest.raises((RunFailed, UserError)):
            check(change.record)             # the digest stays as it was: must fail

    for change in alterations(record, sealed=True):     # a forger computes the digest anew
        ...                                  # must fail too, but where the claim is true again

`assert_all_refused(check, record)` runs both; `excused` names the changes that a forger may get
through, which the checker's docstring must list and justify.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from promptlimits.base.errors import RunFailed, UserError

Path = tuple[str | int, ...]

LAST_DIGITS = 30
"""Leading digits of a logarithm's mantissa that must all matter (2^-100 is 30 digits)."""


@dataclass(frozen=True, kw_only=True)
class Alteration:
    """One change to a record.

    Attributes:
        path: Where, as keys and indices from the top.
        what: What was done there.
        place: Which character of the value's text, or -1.
        record: The whole record, changed.
    """

    path: Path
    what: str
    place: int
    record: dict[str, Any]

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.what}"


def sealed_again(record: dict[str, Any]) -> dict[str, Any]:
    """The record as a forger would leave it: with a digest that fits."""
    rest = {field: value for field, value in record.items() if field != "digest"}
    plain = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return rest | {"digest": hashlib.sha256(plain.encode("ascii")).hexdigest()}


def alterations(record: dict[str, Any], *, sealed: bool = False) -> Iterator[Alteration]:
    """Every record that differs from this one in one place.

    Each digit of each number, and of each text, is replaced by two others; of a text without
    digits one letter changes; true, false and null are exchanged; numbers change sign; each
    field and each item of a list is removed, doubled or joined by one more.

    Args:
        record: A certificate as plain JSON.
        sealed: Whether the digest is computed anew; then the digest itself is left alone.

    Yields:
        The alterations.
    """
    for path, value in _nodes(record):
        if sealed and path[:1] == ("digest",):
            continue
        for what, place, other in _others(value):
            changed = _replaced(record, path, other)
            if sealed:
                changed = sealed_again(changed)
            if changed != record:  # a removed digest is back
                yield Alteration(path=path, what=what, place=place, record=changed)


def assert_all_refused(
    check: Callable[[Any], object],
    record: dict[str, Any],
    *,
    excused: Callable[[Alteration], bool] = lambda change: False,
) -> None:
    """Assert that a checker takes a certificate, and nothing that differs in one place.

    Changes to the last digits of a logarithm's mantissa (see LAST_DIGITS) are excused where the
    digest is computed anew.

    Args:
        check: The checker; it raises `RunFailed` or `UserError` for what it refuses.
        record: A certificate that it takes.
        excused: Whether a forger may get a change through.
    """
    check(copy.deepcopy(record))
    for sealed in (False, True):
        for change in alterations(record, sealed=sealed):
            try:
                check(change.record)
            except (RunFailed, UserError):
                continue
            assert sealed, f"passed although the digest differs: {change}"
            last = change.path[-1:] == ("mantissa",) and change.place >= LAST_DIGITS
            assert last or excused(change), f"a forger gets through: {change}"


def _nodes(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    yield path, value
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from _nodes(item, (*path, name))


def _others(value: Any) -> Iterator[tuple[str, int, Any]]:
    """What could stand in a value's place: what was done, at which character, the new value."""
    if isinstance(value, dict):
        yield "a field added", -1, value | {"more": 1}
        for name in value:
            rest = {field: item for field, item in value.items() if field != name}
            yield f"the field {name} removed", -1, rest
    elif isinstance(value, list):
        yield "an item added", -1, [*value, *(value[-1:] or [1])]
        for index in range(len(value)):
            yield f"item {index} removed", -1, value[:index] + value[index + 1 :]
    elif isinstance(value, str):
        yield from _other_texts(value)
        yield "no text", -1, None
    elif value is None or isinstance(value, bool):
        for other in (None, True, False):
            if other is not value:
                yield f"{value} to {other}", -1, other
    else:
        yield "a sign", -1, -value - (value == 0)
        yield "text for a number", -1, str(value)
        yield "1 more", -1, value + 1
        yield "1 less", -1, value - 1
        for what, place, other in _other_texts(str(value)):
            if place >= 0:
                yield what, place, type(value)(other)


def _other_texts(value: str) -> Iterator[tuple[str, int, str]]:
    digits = [place for place, char in enumerate(value) if char.isdecimal()]
    for place in digits:
        for step in (1, 5):
            other = str((int(value[place]) + step) % 10)
            yield f"digit {place} to {other}", place, value[:place] + other + value[place + 1 :]
    yield "text added", -1, value + "x"
    yield "a space added", -1, value + " "
    if value:
        yield "the first character removed", -1, value[1:]
        yield "the last character removed", -1, value[:-1]
    if not digits and value:
        middle = len(value) // 2
        other = "y" if value[middle] == "x" else "x"
        yield "a letter changed", -1, value[:middle] + other + value[middle + 1 :]


def _replaced(record: dict[str, Any], path: Path, value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(record)
    holder: Any = changed
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return changed
