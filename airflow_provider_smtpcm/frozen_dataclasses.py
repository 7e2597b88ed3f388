"""`Record`: the base of frozen dataclasses that inherit `==`, `hash` and `repr`. Pure.

`dataclass` compiles these methods for each class, which takes 0.25 ms per class in every task process that
imports it. The inherited ones do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any


class Record:
    """The base of a class with `@dataclass(frozen=True, eq=False, repr=False)` and at least one compared field."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        get_compared = _make_getter(self.__class__)  # type: ignore[arg-type]  # a class is hashable
        return bool(get_compared(self) == get_compared(other))

    def __hash__(self) -> int:
        return hash(_make_getter(self.__class__)(self))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        shown = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr]  # type: ignore[arg-type]
        return f"{self.__class__.__qualname__}({', '.join(shown)})"


@cache
def _make_getter(kind: Any) -> Callable[[object], Any]:
    """Return a function that returns the values of the fields that are compared."""
    return attrgetter(*(field.name for field in fields(kind) if field.compare))
