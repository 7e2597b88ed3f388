"""A digest of arguments, which is the same in every process that is given the same values."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet


def digest(value: object) -> str:
    """Return a digest that is the same in every process for the same value.

    Raises:
        TypeError: the value cannot be read without using it up, such as a generator, or has no content, such as a
            lambda.
    """
    return _digest(value).hex()


def _digest(value: object) -> bytes:
    try:
        kind, octets = "json", json.dumps(value).encode()  # much faster than the rest, for rows
    except (TypeError, ValueError):
        kind, octets = type(value).__qualname__, _read(value)
    return hashlib.sha256(kind.encode() + b":" + octets).digest()


def _read(value: object) -> bytes:
    if isinstance(value, Mapping):
        return b"".join(_digest(part) for item in value.items() for part in item)
    if isinstance(value, AbstractSet):
        return b"".join(sorted(map(_digest, value)))  # the order of a set differs between processes
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return b"".join(map(_digest, value))
    if dataclasses.is_dataclass(value):
        return b"".join(_digest(getattr(value, field.name)) for field in dataclasses.fields(value))
    try:
        return pickle.dumps(value, protocol=4)
    except Exception as error:  # a class may raise anything
        raise TypeError(f"An object of type {type(value).__name__} has no digest.") from error
