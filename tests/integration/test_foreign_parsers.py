"""Other programs read what this package writes: four parsers agree, and a DKIM signature survives a relay."""

from __future__ import annotations

import re
import smtplib
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.mail.render import render
from demo.processes import LOOPBACK
from tests.integration import foreign_parsers
from tests.integration.foreign_parsers import (
    READERS,
    Parsed,
    extract_by_ripmime,
    read_by_mime_tools,
    read_by_python,
)
from tests.integration.system_packages import skip_for_want_of, skip_unless_root
from tests.torture.anonymous_postfix import AnonymousPostfix

pytestmark = pytest.mark.slow

EML = b"From: a@corp.example\nSubject: inner\nMIME-Version: 1.0\nContent-Type: text/plain\n\n.dot\nbody\n"
NAMES = [
    "report.csv",
    "quarterly report 2024 (final).csv",
    "a" * 150 + ".csv",
    "März.csv",
    "Straße und Größe der Räume, Übersicht für alle Abteilungen im Süden.csv",
    "日本語の報告書" * 8 + ".csv",
    "🎉 party.csv",
]
FILES = [
    (Attachment(content=b"PK", name="Abschluss.docx"), None),
    (Attachment(content="ü;€\r\n".encode(), name="utf8.csv"), "utf-8"),
    (Attachment(content=b"a;b\r\n", name="ascii.csv"), "us-ascii"),
    (Attachment(content="ü\r\n".encode("utf-16"), name="utf16.txt"), "utf-16"),
    (Attachment(content=b"\xfc\r\n", name="latin.txt"), None),
    (Attachment(content=bytes(range(256)) * 300, name="all.bin"), None),
    (Attachment(content=b"", name="empty.bin"), None),
]


@pytest.fixture(autouse=True)
def programs() -> None:
    """The foreign programs."""
    if missing := foreign_parsers.missing():
        skip_for_want_of(missing)


def octets_of(**fields: Any) -> bytes:
    defaults = {"from_address": "etl@corp.example", "to": "jane@corp.example", "message_id": "<1@corp.example>"}
    return b"".join(render(Mail(**(defaults | fields))))


reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@reader
@pytest.mark.parametrize("name", NAMES)
def test_every_reader_sees_the_name_of_a_file(read: Callable[[bytes, list[str]], Parsed], name: str) -> None:
    """Of any length and in any script."""
    octets = octets_of(text="See the file.", attachments=[Attachment(content=b"a;b\r\n", name=name)])
    text, file = read(octets, []).parts

    assert (file.name, file.type, file.body) == (name, "text/csv", b"a;b\r\n")
    assert text.type == "text/plain"


@pytest.mark.parametrize("read", [read_by_python, read_by_mime_tools])
@pytest.mark.parametrize("name", [name for name in NAMES if not name.isascii()])
def test_a_reader_that_knows_no_rfc_2231_sees_it_too(read: Callable[[bytes, list[str]], Parsed], name: str) -> None:
    """From `name` of Content-Type, where readers that decode encoded words in it find no other name."""
    octets = octets_of(text="See the file.", attachments=[Attachment(content=b"a;b\r\n", name=name)])
    older = re.sub(rb";\s+filename\*[^\r]*(?:\r\n filename\*[^\r]*)*", b"", octets)
    assert b"filename" in octets and b"filename" not in older
    _, file = read(older, []).parts

    assert (file.name, file.body) == (name, b"a;b\r\n")


@reader
def test_every_reader_sees_the_same_parts(read: Callable[[bytes, list[str]], Parsed]) -> None:
    """With their types, charsets and octets."""
    octets = octets_of(text="Über uns\n", html="<p>Über uns\n", attachments=[file for file, _ in FILES])
    plain, html, *files = read(octets, []).parts

    assert (plain.type, plain.charset, plain.body.split()) == ("text/plain", "utf-8", "Über uns".encode().split())
    assert (html.type, html.charset) == ("text/html", "utf-8")
    assert len(files) == len(FILES)
    for part, (attachment, charset) in zip(files, FILES, strict=True):
        assert (part.name, part.type, part.charset, part.body) == (
            attachment.name,
            attachment.content_type,
            charset,
            attachment.content,
        )


@reader
def test_every_reader_sees_the_header_fields(read: Callable[[bytes, list[str]], Parsed]) -> None:
    """A long word, addresses, ids and URIs; in any language where that is possible."""
    ids = " ".join(f"<{number}.{'x' * 40}@corp.example>" for number in range(5))
    expected = {
        "Subject": "https://corp.example/" + "u" * 200,
        "Sender": "Jörg Müller <joerg@xn--bcher-kva.example>",
        "Disposition-Notification-To": '"Doe, Jane" <jane@corp.example>, Jörg <j@corp.example>',
        "References": ids,
        "In-Reply-To": "<4.parent@corp.example>",
        "List-Unsubscribe": f"<https://corp.example/{'u' * 90}>, <mailto:leave@corp.example>",
        "List-Id": "Tägliche Berichte <reports.corp.example>",
        "Content-Language": "de, en",
    }
    given = {name: value for name, value in expected.items() if name != "Subject"}
    given["Sender"] = "Jörg Müller <joerg@bücher.example>"
    octets = octets_of(subject=expected["Subject"], headers=given, text="x")
    fields = read(octets, list(expected)).fields

    for name, value in expected.items():
        assert fields[name].replace('"', "") == value.replace('"', ""), name


@reader
def test_every_reader_sees_a_mail_in_a_mail(read: Callable[[bytes, list[str]], Parsed]) -> None:
    """As a mail with CRLF line ends; one that needs an encoding as a file with its octets."""
    eight_bit = EML.replace(b"body", "Körper".encode())
    files = [Attachment(content=EML, name="Übersicht.eml"), Attachment(content=eight_bit, name="8-bit.eml")]
    _, message, file = read(octets_of(text="See below.", attachments=files), []).parts

    assert (message.name, message.type) == ("Übersicht.eml", "message/rfc822")
    assert message.body.replace(b"\r\n", b"\n").rstrip() == EML.rstrip()
    assert (file.name, file.type, file.body) == ("8-bit.eml", "application/octet-stream", eight_bit)


def test_ripmime_extracts_the_files() -> None:
    """The fourth reader writes them to a folder; it opens a mail in the mail, too."""
    attachments = [file for file, _ in FILES if file.content] + [
        Attachment(content=b"x;y\r\n", name=name) for name in ("short.csv", "a" * 60 + ".csv")
    ]
    found = extract_by_ripmime(octets_of(text="See the files.", attachments=attachments))

    for attachment in attachments:
        assert found.get(attachment.name) == attachment.content, (attachment.name, list(found))
    inner = extract_by_ripmime(
        octets_of(text="x", attachments=[Attachment(content=octets_of(attachments=attachments), name="mail.eml")])
    )
    assert inner.get("short.csv") == b"x;y\r\n"


def test_a_dkim_signature_survives_a_relay(tmp_path: Path) -> None:
    """Whatever is in the mail: the relay has no reason to change a line, even for the strictest canonicalization."""
    if lacking := AnonymousPostfix.missing():
        skip_for_want_of(lacking)
    skip_unless_root("Postfix")
    key, record = tmp_path / "key.pem", tmp_path / "record"
    subprocess.run(["openssl", "genrsa", "-traditional", "-out", key, "2048"], check=True, capture_output=True)
    public = subprocess.run(["openssl", "rsa", "-in", key, "-pubout"], check=True, capture_output=True).stdout
    record.write_bytes(b"v=DKIM1; k=rsa; p=" + b"".join(public.split(b"\n")[1:-2]))

    signed = [
        foreign_parsers.sign_by_dkimpy(
            octets,
            key,
            ("simple/simple", "relaxed/relaxed", "relaxed/simple")[number % 3],
            ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"],
        )
        for number, octets in enumerate(_various_mails())
    ]
    with AnonymousPostfix() as server, smtplib.SMTP(LOOPBACK, server.anonymous_port) as client:
        for octets in signed:
            client.sendmail("etl@corp.example", ["jane@corp.example"], octets)
        copies = server.settled(len(signed))

    assert len(copies) == len(signed)
    for copy in copies:
        # Without what the relay has put on top.
        octets = copy[copy.index(b"DKIM-Signature:") :]
        assert octets in signed
        assert foreign_parsers.is_verified_by_dkimpy(octets, record)
        assert not foreign_parsers.is_verified_by_dkimpy(octets.replace(b"corp.example", b"evil.example"), record)


def _various_mails() -> list[bytes]:
    """Mails with everything that is folded, encoded or attached."""
    random = Random(5)  # noqa: S311 - no secret
    words = ["report", "x" * 120, "Größe", "日本語", "  ", "=?utf-8?q?x?=", "<https://corp.example>"]
    mails = []
    for number in range(12):
        text = " ".join(random.choices(words, k=12))
        files = [file for file, _ in random.sample(FILES, 2)]
        files += [Attachment(content=EML, name="mail.eml"), Attachment(content=b"x", name=random.choice(NAMES))]
        mails.append(
            octets_of(
                subject=" ".join(random.choices(words, k=6)),
                message_id=f"<{number}@corp.example>",
                text=f"{text}\n.\n..\n{text} \n" if number % 4 else "Plain.\n",
                html=f"<p>{text}" if number % 2 else None,
                attachments=files if number % 3 else [],
                headers={"Sender": "Jörg <joerg@bücher.example>", "References": "<a@b.example> " * 9},
            )
        )
    return mails
