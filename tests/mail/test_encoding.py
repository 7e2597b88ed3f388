"""The lines of base64 are those of the standard library, whichever library encodes."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator

import pytest

from airflow_provider_smtpcm.mail import encoding as module
from airflow_provider_smtpcm.mail.encoding import BLOCK_SIZE, base64_length, encode_base64


@pytest.fixture(params=["pybase64", "binascii"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the extra `fast`, and without it."""
    if request.param == "binascii":
        monkeypatch.setitem(sys.modules, "pybase64", None)
    module._base64_encoder.cache_clear()
    yield request.param
    module._base64_encoder.cache_clear()


def test_pybase64_is_used_where_it_is_installed(encoder: str) -> None:
    """Otherwise Python's own."""
    encode = module._base64_encoder()
    assert getattr(encode, "func", encode).__module__.lstrip("_").startswith(encoder)


@pytest.mark.parametrize(
    "length",
    [
        0,
        1,
        2,
        3,
        55,
        56,
        57,
        58,
        59,
        113,
        114,
        115,
        57 * 7,
        57 * 700 + 1,
        BLOCK_SIZE - 1,
        BLOCK_SIZE,
        BLOCK_SIZE + 1,
        3 * BLOCK_SIZE + 99,
    ],
)
def test_lines_are_those_of_the_standard_library(encoder: str, length: int) -> None:
    """But with CRLF, and only between lines."""
    octets = bytes(index * 31 % 256 for index in range(length))
    expected = base64.encodebytes(octets).removesuffix(b"\n").replace(b"\n", b"\r\n")

    assert encode_base64(octets) == expected
    assert encode_base64(octets, leading_crlf=True) == (b"\r\n" + expected if octets else b"")
    assert base64_length(length) == len(expected)
