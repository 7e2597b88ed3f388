"""Packages that SSIS could not read, or only just: damaged by age, disks and tools."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.ssis_tree import DTS


def spoil(chance: random.Random, path: Path) -> None:
    """Damage a package so that SSIS could not read it, or only just; or return an empty one."""
    _SPOILERS[chance.randrange(len(_SPOILERS))](chance, path)


def _bomb(levels: int) -> str:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, levels))
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><x>&e{levels - 1};</x>'


def _flip(chance: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 5, 60))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)


def _cut(chance: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def _swap_words(chance: random.Random, path: Path) -> None:
    """Return well-formed XML whose parts do not fit together."""
    text = path.read_text(encoding="utf-8-sig")
    words = (
        "SMTPServer",
        "ObjectName",
        "DTSID",
        "refId",
        "True",
        "Package",
        "Microsoft.SendMailTask",
        "User",
        "8",
        "1",
    )
    for _ in range(4):
        text = text.replace(f'"{chance.choice(words)}"', f'"{chance.choice(words)}"')
    path.write_text(text, encoding="utf-8")


def _wild_values(chance: random.Random, path: Path) -> None:
    """Replace values by ones that no editor accepts."""
    wild = (
        "{{ 1/0 }}",
        "{% raw %}",
        '\'"""\\',
        "\u202e\u0007",
        "ü" * 300,
        "a\nb",
        "${HOME}",
        "%(x)s",
        "\\N{BULLET}",
        "'''",
    )
    text = path.read_text(encoding="utf-8-sig")
    for word in (
        "operations@corp.example",
        "All rows were loaded.",
        "Send Mail",
        "Normal",
        "etl@corp.example",
        "12",
        "Table",
    ):
        text = text.replace(word, escape(chance.choice(wild).replace("\u0007", ""), {'"': "&quot;", "\n": "&#xA;"}))
    path.write_text(text, encoding="utf-8")


def _nest(_chance: random.Random, path: Path) -> None:
    depth = 3_000
    inner = '<DTS:Executable DTS:ExecutableType="STOCK:SEQUENCE">' * depth + "</DTS:Executable>" * depth
    path.write_text(f'<DTS:Executable xmlns:DTS="{DTS}">{inner}</DTS:Executable>', encoding="utf-8")


def _zip_bomb(_chance: random.Random, path: Path) -> None:
    with zipfile.ZipFile(path.with_suffix(".ispac"), "w", zipfile.ZIP_DEFLATED) as ispac:
        ispac.writestr("Bomb.dtsx", b" " * 30_000_000)
        ispac.writestr("../../out.dtsx", "<x/>")
    path.unlink()


def _write(data: bytes) -> Callable[[random.Random, Path], None]:
    def written(_chance: random.Random, path: Path) -> None:
        path.write_bytes(data)

    return written


def _other_encoding(chance: random.Random, path: Path) -> None:
    text = path.read_text(encoding="utf-8-sig").replace('version="1.0"', 'version="1.0" encoding="utf-16"', 1)
    path.write_bytes(text.encode(chance.choice(("utf-16", "utf-8", "utf-16-be"))))


_SPOILERS: tuple[Callable[[random.Random, Path], None], ...] = (
    _flip,
    _flip,
    _cut,
    _swap_words,
    _swap_words,
    _wild_values,
    _wild_values,
    _nest,
    _zip_bomb,
    _other_encoding,
    _write(b""),
    _write(b"\0" * 1000),
    _write(_bomb(40).encode()),
    _write(b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>'),
    _write(f'<EncryptedData xmlns:DTS="{DTS}" Salt="x" IV="y">c29tZQ==</EncryptedData>'.encode()),
    _write(b"<html><body>Sign in</body></html>"),
    _write(bytes(range(256)) * 40),
)
