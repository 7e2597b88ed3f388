"""An independent reader (Python's `email`) reads exactly what was rendered."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import getaddresses, unquote

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Address, Attachment, Mail
from airflow_provider_smtpcm.mail.render import render

FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
ALLOWED = [
    "Date",
    "From",
    "To",
    "Cc",
    "Reply-To",
    "Subject",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "X-Auto-Response-Suppress",
]

anything = st.text(max_size=300)
hostile = st.sampled_from(
    [
        "\r\nBcc: eve@corp.example",
        "\nBcc: eve@corp.example\n\nbody",
        "\r\n.\r\nMAIL FROM:<eve@corp.example>\r\n",
        "\r\n\r\n--=_smtpcm_",
        "\0",
        "\u2028",
        "\u2029",
        "\x85",
        "=?utf-8?q?=0D=0ABcc=3A_eve=40corp.example?=",
        "=?utf-8?b?DQpCY2M6IGV2ZUBjb3JwLmV4YW1wbGU=?=",
        '"; filename="evil.exe',
        "> SIZE=1",
        "\ud800",
        " " * 1500,
        "x" * 1500,
    ]
)
mixed = st.lists(st.one_of(anything, hostile), max_size=4).map("".join)
header_text = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=200)
long_text = st.builds(lambda text, times: text * times, header_text, st.integers(1, 8))
body_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
atom = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=20).filter(
    lambda text: "=?" not in text
)
addresses = st.builds(
    Address,
    display_name=long_text.map(str.strip),
    local_part=atom,
    domain=st.sampled_from(["corp.example", "xn--bcher-kva.example"]),
)
file_names = st.builds(lambda text: text[:240], long_text).filter(str.strip)


def read(octets: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(octets)
    assert isinstance(message, EmailMessage)
    return message


def checked(mail: Mail) -> tuple[bytes, EmailMessage]:
    """Return the octets and the parsed message, after the checks that apply to every mail."""
    rendering = render(mail, date=datetime(2024, 1, 31, tzinfo=UTC))
    octets = b"".join(rendering)
    assert len(octets) == rendering.size
    assert octets.isascii() and b"\0" not in octets
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    head = octets.partition(b"\r\n\r\n")[0]
    # A continuation that holds nothing but blanks looks like the end of the header to a careless reader.
    assert not re.search(rb"\r\n[ \t]*\r\n", head + b"\r\n")
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if not line.startswith(b" ")]
    names = [name for name in names if not name.startswith("Content-")]
    extra = [name for name, _ in mail.headers]
    expected = [
        name for name in ALLOWED if name not in ("Cc", "Reply-To") or getattr(mail, name.lower().replace("-", "_"))
    ]
    assert sorted(names) == sorted([*expected, *extra])
    return octets, read(octets)


def text_of(part: EmailMessage | None) -> str:
    r"""The text with `\n` for each line break."""
    assert part is not None
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode("utf-8").replace("\r\n", "\n")


def one_blank(text: str) -> str:
    """Python's reader changes blanks, also in encoded words; the tests of headers check them."""
    return " ".join(text.split())


def shown_name(name: str) -> str:
    """Return a file name as Python's reader does: without quotation marks and angle brackets around it."""
    return unquote(name.strip()).strip()


def named(octets: bytes, field: str) -> list[tuple[str, str]]:
    """Read with the older of Python's readers; the newer one adds blanks between encoded words."""
    value = BytesParser(policy=policy.compat32).parsebytes(octets)[field].replace("\r\n", "")
    return [(str(make_header(decode_header(name))), address) for name, address in getaddresses([value])]


def normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def mail(**fields: object) -> Mail:
    return Mail(
        **{
            "from_address": "reports@corp.example",
            "to": "jane@corp.example",
            "message_id": "<1@corp.example>",
            **fields,
        }
    )  # type: ignore[arg-type]


@FEW
@given(mixed, mixed, mixed, mixed, mixed)
def test_what_is_hostile_is_refused_or_stays_content(
    subject: str, name: str, file_name: str, value: str, text: str
) -> None:
    """It adds no header, no recipient and no part."""
    for fields in (
        {"subject": subject},
        {"to": f"{name} <jane@corp.example>"},
        {"to": f"{name}@corp.example"},
        {"to": f'"{name}"@corp.example'},
        {"to": f"jane@{name}"},
        {"to": name},
        {"reply_to": [name]},
        {"from_address": name},
        {"headers": {"X-Report": value}},
        {"headers": {value: "x"}},
        {"message_id": f"<{value}@corp.example>"},
        {"message_id": value},
        {"text": text},
        {"html": text},
        {"text": text, "html": text},
    ):
        try:
            made = mail(**fields)
            if made.from_address is None or made.message_id is None:
                continue
            if any(address.needs_smtputf8 for address in (made.from_address, *made.recipients, *made.reply_to)):
                continue
        except MessageError:
            continue
        for address in (made.from_address, *made.recipients, *made.reply_to):
            outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", address.address)
            assert not re.search(r"[<>\x00-\x1f\x7f]", address.address) and " " not in outside
            assert len(address.address.encode()) <= 254
        _, message = checked(made)
        assert message["Bcc"] is None
        parts = [part for part in message.walk() if not part.is_multipart()]
        assert len(parts) == (2 if made.text and made.html else 1)
    try:
        attachment = Attachment(content=b"x", name=file_name)
    except MessageError:
        return
    _, message = checked(mail(attachments=[attachment]))
    assert [part.get_filename() for part in message.iter_attachments()] == [shown_name(attachment.name)]


@FEW
@given(long_text, header_text)
@example("a  ü  ö   b", " ü")
@example(" " * 1500 + "x", "x" * 1500)
@example("=?utf-8?q?x?= =?utf-8?q?y?=", "x" + " " * 1500 + "y")
def test_a_subject_and_a_header_read_back(subject: str, value: str) -> None:
    """Any character, any length, any blanks within."""
    _, message = checked(mail(subject=subject, headers={"X-Report": value}))

    assert one_blank(str(message["Subject"])) == one_blank(subject)
    assert one_blank(str(message["X-Report"])) == one_blank(value)


@FEW
@given(st.lists(addresses, min_size=1, max_size=5), st.lists(addresses, max_size=3))
def test_addresses_read_back(to: list[Address], reply_to: list[Address]) -> None:
    """With their names, in their order, and no others."""
    octets, message = checked(mail(to=to, reply_to=reply_to))

    for field, meant in (("To", to), ("Reply-To", reply_to)):
        if meant:
            assert [mailbox.addr_spec for mailbox in message[field].addresses] == [address.address for address in meant]
            assert named(octets, field) == [(address.display_name, address.address) for address in meant]


@FEW
@given(body_text, body_text)
@example("\r\n.\r\n", "a\n.\n")
@example(" \n\t\n ", "x" * 5000)
@example("From x\n\nFrom y", "=\n==\n")
@example("\r\r\n\n", "\u2028\x85\x0b\x0c")
def test_bodies_read_back(text: str, html: str) -> None:
    """Except for the kind of line breaks, and a final one."""
    _, message = checked(mail(text=text))
    assert text_of(message).removesuffix("\n") == normal(text).removesuffix("\n")

    html = html.replace("cid:", "")
    _, message = checked(mail(text=f"a{text}", html=f"b{html}"))
    assert text_of(message.get_body(("plain",))) == normal(f"a{text}")  # type: ignore[arg-type]
    assert text_of(message.get_body(("html",))) == normal(f"b{html}")  # type: ignore[arg-type]


@FEW
@given(st.lists(st.tuples(file_names, st.binary(max_size=300)), min_size=1, max_size=3))
def test_attachments_read_back(files: list[tuple[str, bytes]]) -> None:
    """Octet by octet, under any name."""
    attachments = [Attachment(content=content, name=name, content_type="application/x-test") for name, content in files]
    _, message = checked(mail(text="x", attachments=attachments))

    found = [(part.get_filename(), part.get_payload(decode=True)) for part in message.iter_attachments()]
    assert found == [(shown_name(name), content) for name, content in files]


@FEW
@given(st.lists(st.tuples(file_names, st.binary(max_size=300)), min_size=1, max_size=3), body_text)
@example([("a", b"\r\n.\r\n"), ("b", b"\r\n--=_smtpcm_"), ("c", b"\n\n\r\r\0\xff")], "x" * 2000)
@example([("a", b"--=_smtpcm__1--\r\n"), ("b", b"x" * 5000)], "")
def test_binary_attachments_read_back(files: list[tuple[str, bytes]], text: str) -> None:
    """Octet by octet. All but the files is lines in seven bits."""
    attachments = [Attachment(content=content, name=name, content_type="application/x-test") for name, content in files]
    rendering = render(mail(text=text, attachments=attachments), date=datetime(2024, 1, 31, tzinfo=UTC), binary=True)
    octets = b"".join(rendering)
    assert rendering.binary and len(octets) == rendering.size
    for piece in rendering.segments:
        if isinstance(piece, bytes):
            assert piece.isascii() and piece.count(b"\r") == piece.count(b"\n") == piece.count(b"\r\n")
            assert max(map(len, piece.split(b"\r\n"))) <= 998

    message = read(octets)
    found = [(part.get_filename(), part.get_payload(decode=True)) for part in message.iter_attachments()]
    assert found == [(shown_name(name), content) for name, content in files]
    assert text_of(message.get_body(("plain",))) == normal(text)  # type: ignore[arg-type]
