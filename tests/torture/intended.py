"""Whether what was sent is what was meant and nothing else: asked of two readers that share no code with the writer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from email import policy
from email.message import EmailMessage
from email.parser import Parser
from email.utils import unquote

from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.address import Address
from tests.torture.hostile import Box, File, Hostile
from tests.torture.octets import Part, decoded, demand, leaves, mailboxes, parameters

_STRICT = policy.strict  # whatever is defective raises
_OF_A_LEAF = {"Content-Type", "Content-Transfer-Encoding"}
_OF_A_FILE = {*_OF_A_LEAF, "Content-Disposition"}


def envelope_as_meant(mail: Mail, sender: str, recipients: Sequence[str]) -> None:
    """Ask the envelope: the sender, and To, Cc and Bcc in their order, each mailbox once."""
    assert mail.from_address is not None
    demand(sender == mail.from_address.address, "the sender is another one")
    for address in (sender, *recipients):
        demand(not re.search(r"[<>\x00-\x1f\x7f-\x9f\u2028\u2029]", address), f"{address!r} could end its command")
    unique = dict.fromkeys(_comparable(box.address) for box in (*mail.to, *mail.cc, *mail.bcc))
    demand([_comparable(to) for to in recipients] == list(unique), f"the recipients are {recipients}")


def as_meant(hostile: Hostile, mail: Mail, message: bytes) -> None:
    """Ask the octets: one header with the fields that were meant, the bodies and the files."""
    whole, parts = leaves(message)
    head = message.partition(b"\r\n\r\n")[0]
    everybody = (*mail.recipients, *mail.reply_to, mail.from_address)
    demand(head.isascii() or any(box and box.needs_smtputf8 for box in everybody), "a header is not 7-bit")
    fields_as_meant(hostile, whole)
    for name, value in hostile.written_headers:
        demand(value.strip(" ") in map(decoded, whole.all(name)), f"{name} is not what was meant")
    demand(decoded(whole.one("Subject")) == hostile.subject.strip(" "), "the subject is not what was meant")
    demand(whole.one("Message-ID") == hostile.message_id, "the Message-ID is not what was meant")
    for field, boxes, made in _address_fields(hostile, mail):
        _mailboxes(whole.one(field), boxes, made)
    for box in hostile.bcc:
        demand(not box.local.startswith("hidden") or box.local.encode() not in message, "Bcc can be seen")
    contents_as_meant(hostile, parts)


def fields_as_meant(hostile: Hostile, whole: Part, *, besides: Collection[str] = ()) -> None:
    """Ask for the names of the header fields.

    Args:
        besides: those that a server has put on top.
    """
    names = [name for name, _ in whole.fields if name not in _OF_A_LEAF and name not in besides]
    demand(sorted(names) == sorted(_field_names(hostile)), f"the header fields are {names}")
    demand(not {"bcc", "resent-bcc"} & {name.lower() for name in names}, "there is a Bcc")


def contents_as_meant(hostile: Hostile, parts: list[Part]) -> None:
    """Ask the leaves of a message: the texts, then the images, then the attachments."""
    texts = [text for text in (hostile.text, hostile.html) if text] or [""]
    demand(len(parts) == len(texts) + len(hostile.images) + len(hostile.files), f"there are {len(parts)} parts")
    for part, text in zip(parts, texts, strict=False):
        kind = "html" if text is hostile.html and text else "plain"
        demand(part.one("Content-Type").startswith(f"text/{kind};"), "a text is of another kind")
        meant, found = _normal(text), part.text
        if len(parts) == 1:  # the line break that ends a message may be its own
            meant, found = meant.removesuffix("\n"), found.removesuffix("\n")
        demand(found == meant, "a text is not what was meant")
    if len(parts) > 1:
        for part in parts[: len(texts)]:
            demand({name for name, _ in part.fields} == _OF_A_LEAF, "a text has further fields")
    for part, file in zip(parts[len(texts) :], (*hostile.images, *hostile.files), strict=True):
        _file(part, file, "inline" if file in hostile.images else "attachment")


def as_read_by_python(hostile: Hostile, mail: Mail, message: bytes) -> None:
    """Ask Python's `email`, which raises for whatever is not as it should be."""
    read = Parser(EmailMessage, policy=_STRICT).parsestr(message.decode())
    demand(
        sorted(map(str.lower, set(read) - _OF_A_LEAF)) == sorted({name.lower() for name in _field_names(hostile)}), read
    )
    for name, value in (("Subject", hostile.subject), ("Message-ID", hostile.message_id), *hostile.written_headers):
        demand(_one_blank(value) in map(_one_blank, read.get_all(name)), f"{name} reads otherwise")
    for field, _, made in _address_fields(hostile, mail):
        found = [(box.username, box.domain) for box in read[field].addresses]
        meant = [(box.local_part, box.address.rpartition("@")[2]) for box in made]
        demand(found == meant, f"{field} reads {found}")
    parts = [part for part in read.walk() if not part.is_multipart()]
    texts = [text for text in (hostile.text, hostile.html) if text] or [""]
    for part, text in zip(parts, texts, strict=False):
        found = part.get_payload(decode=True).decode().replace("\r\n", "\n")
        demand(found.removesuffix("\n") == _normal(text).removesuffix("\n"), "a text reads otherwise")
    for part, file in zip(parts[len(texts) :], (*hostile.images, *hostile.files), strict=True):
        demand(part.get_payload(decode=True) == file.content, "a file reads otherwise")
        demand(part.get_filename() == unquote(file.name.strip()).strip(), "a file is called otherwise")


def _comparable(address: str) -> str:
    """RFC 5321 2.4: only the domain is the same in any case of letters."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.lower()}"


def _field_names(hostile: Hostile) -> list[str]:
    given = [name for name, _ in hostile.written_headers]
    names = ["Date", "From", "Subject", "Message-ID", "MIME-Version", *given]
    names += ["To"] if hostile.to or not hostile.cc else []
    names += ["Cc"] if hostile.cc else []
    names += ["Reply-To"] if hostile.reply_to else []
    lowered = list(map(str.lower, given))
    return [*names, *(name for name in ("Auto-Submitted", "X-Auto-Response-Suppress") if name.lower() not in lowered)]


def _address_fields(hostile: Hostile, mail: Mail) -> list[tuple[str, list[Box], tuple[Address, ...]]]:
    assert mail.from_address is not None
    fields = [
        ("From", [hostile.sender], (mail.from_address,)),
        ("To", hostile.to, mail.to),
        ("Cc", hostile.cc, mail.cc),
        ("Reply-To", hostile.reply_to, mail.reply_to),
    ]
    return [(name, boxes, made) for name, boxes, made in fields if boxes]


def _mailboxes(field: str, boxes: list[Box], made: tuple[Address, ...]) -> None:
    """As many as were meant; each as it was meant, or, where that is for the parser to say, as the parser has it."""
    found = mailboxes(field)
    demand(len(found) == len(boxes) == len(made), f"there are {len(found)} mailboxes, and {len(boxes)} were meant")
    for (name, addr_spec), box, address in zip(found, boxes, made, strict=True):
        demand(addr_spec == address.address, f"{addr_spec} is not what the envelope has")
        demand(name == address.display_name, f"the display name is {name!r}")
        if box.written != "raw":
            local = addr_spec.rpartition("@")[0]
            plain = re.sub(r"\\(.)", r"\1", local[1:-1]) if local.startswith('"') else local
            demand((name, plain) == (box.name, box.local), "the mailbox is not what was meant")


def _file(part: Part, file: File, disposition: str) -> None:
    names = {name for name, _ in part.fields}
    demand(names == (_OF_A_FILE | ({"Content-ID"} if file.content_id else set())), f"a file has the fields {names}")
    demand(part.content == file.content, "a file is not what was meant")
    said = part.one("Content-Disposition")
    demand(said.partition(";")[0] == disposition, "a file is shown otherwise")
    demand(parameters(said) == {"filename": file.name.strip()}, "a file is called otherwise")
    media_type = part.one("Content-Type")
    demand(not re.match("(?i)(?:message|multipart)/", media_type), "a file is taken for a part")
    if not re.match("(?i)(?:message|multipart)/", file.content_type):
        media_type = _without_added_parameters(media_type, file)
        demand(media_type.replace(" ", "") == file.content_type.replace(" ", ""), "a file has another type")
    if file.content_id:
        demand(part.one("Content-ID") == f"<{file.content_id.strip('<>')}>", "a file has another content id")


def _without_added_parameters(media_type: str, file: File) -> str:
    """Return a Content-Type without the name for older readers and the charset of a text, which are asked for here."""
    if name := re.search(r'; name="(=\?[^"]*)"$', media_type):
        demand(decoded(name[1]) == file.name.strip(), "older readers read another name")
        media_type = media_type[: name.start()]
    if (charset := re.search("; charset=([a-z0-9-]+)$", media_type)) and "charset" not in file.content_type:
        file.content.decode(charset[1])
        media_type = media_type[: charset.start()]
    return media_type


def _normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _one_blank(text: str) -> str:
    """Python's reader changes blanks, also in encoded words."""
    return " ".join(str(text).split())
