"""The charset of a file: its byte order mark, what an HTML file declares, or what its octets tell."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from airflow_provider_smtpcm.mail.charset import decode_file, detect_charset

TEXT = "Zählung: 7 €\n"


@pytest.mark.parametrize("octets", [TEXT.encode("utf-16-le"), "abc".encode("utf-16-be"), b"a\0b"])
def test_a_nul_is_refused_since_it_is_utf_16_without_a_mark(octets: bytes) -> None:
    """Read as another encoding, every second character is a NUL."""
    with pytest.raises(UnicodeError):
        decode_file(octets, "utf-8")
    with pytest.raises(UnicodeError, match="NUL"):
        decode_file(octets, "cp1252")


def test_an_encoding_that_does_not_exist_is_refused() -> None:
    """So is one that is not for text."""
    for encoding in ("klingon", "hex"):
        with pytest.raises(LookupError):
            decode_file(b"abc", encoding)


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "cp1252", "utf-16-le"])
def test_a_byte_order_mark_says_the_encoding(mark: str, encoding: str) -> None:
    """Whatever else was said; the mark is no part of the text."""
    assert decode_file(TEXT.encode(mark), encoding) == TEXT
    assert decode_file(codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), encoding, is_html=True) == TEXT


def test_without_a_mark_the_encoding_is_what_was_said() -> None:
    """UTF-16 too, if that is said; every line break becomes LF."""
    assert decode_file(TEXT.encode("cp1252"), "cp1252") == TEXT
    assert decode_file(TEXT.encode("utf-16-be"), "utf-16-be") == TEXT
    assert decode_file(b"a\r\nb\rc\n", "utf-8") == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("windows-1252", "cp1252"),
        ("ISO-8859-1", "cp1252"),  # browsers read it as Windows-1252
        ("iso-8859-15", "iso-8859-15"),
        ("utf-8", "utf-8"),
        ("windows-1252", "utf-8"),  # saved as UTF-8 by a program that leaves the declaration as it is
        ("utf-8", "cp1252"),  # saved as Windows-1252 by such a program
    ],
)
@pytest.mark.parametrize(
    "meta",
    ['<meta charset="{}">', "<META charset={} />", '<meta http-equiv="Content-Type" content="text/html; charset={}">'],
)
def test_an_html_file_is_read_as_it_declares_unless_it_is_utf_8(declared: str, written: str, meta: str) -> None:
    """A text file may therefore have another encoding than the HTML file beside it."""
    html = f"<html><head>{meta.format(declared)}</head>{TEXT}"
    fallback = "cp1252" if declared == "utf-8" else "cp1250"

    assert decode_file(html.encode(written), fallback, is_html=True) == html
    if written == "utf-8":
        assert decode_file(html.encode(), "cp1252") == html.encode().decode("cp1252")  # a text declares nothing


def test_a_declaration_of_no_use_is_passed_over() -> None:
    """An unknown charset, UTF-7, or UTF-16, in which the declaration would be unreadable."""
    for charset in ("klingon", "utf-7", "utf-16", "hex"):
        html = f'<meta charset="{charset}">{TEXT}'
        assert decode_file(html.encode("cp1252"), "cp1252", is_html=True) == html


def test_japanese_in_seven_bits_is_read_as_it_declares() -> None:
    """It is ASCII, but it means something else."""
    html = '<meta charset="iso-2022-jp">日本語'

    assert decode_file(html.encode("iso-2022-jp"), "utf-8", is_html=True) == html


def blocks_of(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


@pytest.mark.parametrize("size", [4, 5, 7, 1000])
@pytest.mark.parametrize(
    ("octets", "charset"),
    [
        (b"", "us-ascii"),
        (b"a;b\r\n", "us-ascii"),
        (TEXT.encode() * 9, "utf-8"),
        (b"a" * 500 + "ü".encode(), "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8"),
        (TEXT.encode("utf-16"), "utf-16"),
        (TEXT.encode("utf-32"), "utf-32"),
        (TEXT.encode("cp1252"), None),
        (b"a" * 500 + b"\xfc", None),
        ("ü".encode()[:1], None),
        (codecs.BOM_UTF8 + b"\xfc", None),
        (codecs.BOM_UTF16_LE + b"a", None),
        (TEXT.encode("utf-16-le"), None),
        (b"a\0b", None),
        ("日本語".encode("iso-2022-jp"), None),
        (b"\x1b[31mred\x1b[0m", "us-ascii"),
    ],
)
def test_a_charset_is_told_only_if_all_octets_have_it(octets: bytes, charset: str | None, size: int) -> None:
    """Wherever a block ends; an 8-bit charset that is not UTF-8 would be a guess."""
    assert detect_charset(iter(blocks_of(octets, size))) == charset
    if charset:
        octets.decode(charset)


def test_this_file_is_utf_8() -> None:
    """A file of this repository, in blocks."""
    assert detect_charset(iter(blocks_of(Path(__file__).read_bytes(), 57))) == "utf-8"
