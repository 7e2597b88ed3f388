"""Mailboxes: what a person writes, parsed once into `Address`. Knows no header, no envelope and no server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.tainted import DATA, MIXED, TaintedStr, forbidden_character, shown

# folded: Domains as SMTP has them: what stands behind the `@`. Knows no mailbox.

# RFC 5321 4.1.2, and the underscore, which host names inside many a company have.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_KEPT = 1000  # characters of a domain or a text whose result is remembered


def ascii_domain(domain: str) -> str:
    """A domain as SMTP has it: ASCII as written, anything else in A-labels (IDNA 2008 with the mapping of UTS 46)."""
    return _ascii_domain(domain) if len(domain) <= _KEPT else _ascii_domain.__wrapped__(domain)


@lru_cache(maxsize=1024)
def _ascii_domain(domain: str) -> str:
    if domain.startswith("["):
        return _domain_literal(domain)
    written = domain
    if not domain.isascii():
        import idna

        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError as error:
            raise MessageError(
                # What idna says repeats the whole domain.
                f"The domain {shown(domain)} is not an internationalised domain ({error!s:.80}).",
                remedy="Correct it.",
            ) from error
    if not _DOMAIN.fullmatch(domain):
        raise MessageError(
            f"The domain {shown(written)} is not one." if written else "There is nothing behind the '@'.",
            remedy="A domain is letters, digits and hyphens with dots between, such as corp.example, or [10.0.0.1].",
        )
    return domain


@lru_cache(maxsize=1024)
def is_plain_domain(domain: str) -> bool:
    """Whether it is ASCII, and right as it stands."""
    return _DOMAIN.fullmatch(domain) is not None


def _domain_literal(domain: str) -> str:
    """`[10.0.0.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3)."""
    import ipaddress

    literal = domain[1:-1] if domain.endswith("]") else ""
    try:
        if literal[:5].lower() != "ipv6:":
            ipaddress.IPv4Address(literal)
        elif ipaddress.IPv6Address(literal[5:]).scope_id is not None:
            # A scope (fe80::1%eth0) means nothing to the other side, and may hold any character.
            raise ValueError(literal)
    except ValueError as error:
        raise MessageError(
            f"The domain {shown(domain)} is not an address literal.", remedy="Write [10.0.0.1] or [IPv6:2001:db8::1]."
        ) from error
    return domain


# folded: here began the module itself

_LOCAL_PART_OCTETS = 64  # RFC 5321 4.5.3.1.1
_ADDRESS_OCTETS = 254  # RFC 5321 4.5.3.1.3: a path is 256 with its angle brackets

ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
# RFC 6531 3.3 adds every non-ASCII character; what is not seen (blanks, zero-width characters) is refused elsewhere.
_DOT_ATOM = re.compile(rf"(?:{ATEXT}|[^\x00-\x7f])+(?:\.(?:{ATEXT}|[^\x00-\x7f])+)*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
# The same, or an unclosed one up to the end: searching again behind each `\"` in it would take the square of the time.
_QUOTED_OR_OPEN = re.compile(r'"(?:[^"\\]|\\.)*("|\\?\Z)')
_QUOTED_PAIR = re.compile(r"\\(.)")
# What nearly every local part looks like: nothing in it needs a closer look.
_PLAIN_LOCAL_PART = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
_ATOMS = re.compile(rf"(?:{ATEXT}|[^\x00-\x7f])+(?: (?:{ATEXT}|[^\x00-\x7f])+)*")

_WRITE = "Write it as jane@corp.example or Jane Doe <jane@corp.example>."
_QUOTE_NAME = 'Put the display name into quotation marks: "Doe, Jane" <jane@corp.example>.'
_NOT_IN_A_NAME = ":@;"
_STRAY_IN_NAME = "there is a ':', '@' or ';' before the '<'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One mailbox. It is valid from the moment that it exists, however it was made.

    Args:
        display_name: the name beside the address, or "".
        local_part: what stands before the `@`, without quotation marks.
        domain: what stands behind it, as written: ASCII, internationalised, or a literal such as `[10.0.0.1]`.

    Raises:
        MessageError: an SMTP server would not take it, or it could end the command that carries it.
    """

    display_name: str = ""
    local_part: str
    domain: str
    #: The addr-spec as SMTP has it: the domain in A-labels, the local part in quotation marks where it needs them.
    address: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for text in (self.display_name, self.local_part, self.domain):
            if not isinstance(text, str):
                raise MessageError(f"An address consists of text, not of {type(text).__name__}.", remedy=_WRITE)
            if character := forbidden_character(text):
                raise MessageError(f"It holds the control character {character}.", remedy="Remove that character.")
        local_part = _wire_local_part(self.local_part)
        address = f"{local_part}@{ascii_domain(self.domain)}"
        if len(address.encode()) > _ADDRESS_OCTETS:
            raise MessageError(f"It is longer than {_ADDRESS_OCTETS} octets.", remedy="SMTP allows no more.")
        object.__setattr__(self, "address", address)

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it; a domain alone never asks for that."""
        return not self.local_part.isascii()

    def __str__(self) -> str:
        address = f"{_wire_local_part(self.local_part)}@{self.domain}"
        if not self.display_name:
            return address
        return f"{phrase(self.display_name)} <{address}>"


#: One mailbox: an address as text, with a display name or without.
AddressLike = str | Address
#: Any number of mailboxes: one string with `;` or `,` between, or a collection.
AddressesLike = AddressLike | Iterable[AddressLike]


def parse_address(value: AddressLike, *, field: str) -> Address:
    """Exactly one mailbox; a comma outside quotation marks belongs to the display name.

    Args:
        field: the name of the field for the reader of an error, such as "From".
    """
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise MessageError(f"{field} takes an address as text, not {type(value).__name__}.", remedy=_WRITE)
    if isinstance(value, TaintedStr):
        return _tainted_mailbox(value.cut(0, len(value)), field=field)
    return _one_mailbox(value, field) if len(value) <= _KEPT else _one_mailbox.__wrapped__(value, field)


def parse_addresses(value: AddressesLike | None, *, field: str) -> tuple[Address, ...]:
    """Any number of mailboxes, in their order.

    Args:
        value: one string with `;` (as SSIS has it) or `,` between, or an iterable of strings and addresses; blanks and
            superfluous separators are ignored. Where a string has a `;`, and in every item of a list, a comma outside
            quotation marks belongs to the display name. In a `TaintedStr` only what the author wrote separates.
        field: the name of the field for the reader of an error, such as "To".
    """
    if value is None:
        return ()
    if isinstance(value, Address):
        return (value,)
    if isinstance(value, str):
        return tuple(_mailboxes(value, None, field=field))
    # First the usual two: to be asked whether it is a mapping takes a while.
    if not isinstance(value, tuple | list) and (
        isinstance(value, bytes | bytearray | Mapping) or not isinstance(value, Iterable)
    ):
        raise MessageError(
            f"{field} takes text or a list of addresses, not {type(value).__name__}.",
            remedy="Pass one string with ';' between the addresses, or a list of strings.",
        )
    addresses: list[Address] = []
    for item in value:
        addresses += _mailboxes(item, ";", field=field) if isinstance(item, str) else [parse_address(item, field=field)]
    return tuple(addresses)


def phrase(text: str) -> str:
    """A display name as it stands before `<`: as it is, or in quotation marks where it needs them (RFC 5322 3.2.5)."""
    return text if _ATOMS.fullmatch(text) else quoted_string(text)


def quoted_string(text: str) -> str:
    """In quotation marks, with a backslash before the two characters that need it (RFC 5322 3.2.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wire_local_part(local_part: str) -> str:
    """The local part as it stands in a command; see Address."""
    if len(local_part) <= _LOCAL_PART_OCTETS and _PLAIN_LOCAL_PART.fullmatch(local_part):
        return local_part
    if not local_part:
        raise MessageError("There is nothing before the '@'.", remedy=_WRITE)
    # An angle bracket would be legal in quotation marks, and ends MAIL FROM:<...> for a careless server all the same.
    if "<" in local_part or ">" in local_part:
        raise MessageError("There is an angle bracket before the '@'.", remedy=_WRITE)
    # An encoded word has no place in an address (RFC 2047 5); a reader that decodes it all the same is led elsewhere.
    if "=?" in local_part:
        raise MessageError("There is an encoded word before the '@'.", remedy="Write the address itself.")
    if not local_part.replace(" ", "x").isprintable():
        raise MessageError("There is an invisible character before the '@'.", remedy="Type the address anew.")
    wire = local_part if _DOT_ATOM.fullmatch(local_part) else quoted_string(local_part)
    if len(wire.encode()) > _LOCAL_PART_OCTETS:
        raise MessageError(
            f"There are more than {_LOCAL_PART_OCTETS} octets before the '@'.", remedy="SMTP allows no more."
        )
    return wire


def _masked(text: str, *, field: str) -> str:
    """The text with every quoted string overwritten, at the same positions, so that what is left can be searched."""
    if character := forbidden_character(text):
        raise MessageError(
            f"{field}: {shown(text)} holds the control character {character}.",
            remedy="Remove it: an address stands on one line, and addresses have ';' between.",
        )
    masked = text.mask if isinstance(text, TaintedStr) else text
    if '"' in masked:
        masked = _QUOTED_OR_OPEN.sub(lambda quoted: DATA * len(quoted[0]) if quoted[1] == '"' else '"', masked)
    if '"' in masked:
        raise MessageError(f"{field}: a quotation mark is not closed in {shown(text)}.", remedy=_QUOTE_NAME)
    return masked


def _split(text: str, separator: str, *, field: str) -> list[str]:
    """The pieces between the separators that stand outside quotation marks, without blanks and empty ones."""
    stripped = text.strip()
    if stripped[:1] in ("[", "(") and stripped[-1] in "])":
        raise MessageError(
            f"{field}: {shown(text)} is a list that was turned into text.",
            remedy="Pass a list and give the DAG render_template_as_native_obj=True, or join the addresses with ';'.",
        )
    masked = _masked(text, field=field)
    pieces: list[str] = []
    start = 0
    for part in masked.split(separator):
        if piece := text[start : start + len(part)].strip().strip(", "):
            pieces.append(piece)
        start += len(part) + 1
    if separator == "," and len(pieces) > 1:
        _check_commas(text, pieces, field=field)
    return pieces


def _check_commas(text: str, pieces: Sequence[str], *, field: str) -> None:
    """Refuse commas between pieces that are no addresses of their own."""
    for piece in pieces:
        if "@" not in (piece if isinstance(piece, TaintedStr) else _masked(piece, field=field)):
            raise MessageError(
                f"{field}: {shown(str(piece))} in {shown(str(text))} has no '@': does the comma belong to a name?",
                remedy=f"{_QUOTE_NAME} Or separate the addresses with ';'.",
            )


def _mailboxes(text: str, separator: str | None, *, field: str) -> list[Address]:
    """All mailboxes of a text; without a separator it is `;`, or `,` where there is no `;`."""
    if plain := _plain_mailbox(text):
        return [plain]
    if isinstance(text, TaintedStr):
        return _tainted_mailboxes(text, separator, field=field)
    if separator is None:
        separator = ";" if ";" in _masked(text, field=field) else ","
    return [_parse_mailbox(piece, field=field) for piece in _split(text, separator, field=field)]


def _tainted_mailboxes(text: TaintedStr, separator: str | None, *, field: str) -> list[Address]:
    """One mailbox for each piece between the separators that the author wrote, whatever the values hold."""
    masked = _masked(text, field=field)
    separator = separator or (";" if ";" in masked else ",")
    pieces, start = [], 0
    for part in masked.split(separator):
        if piece := text.cut(start, start + len(part)):
            pieces.append(piece)
        start += len(part) + 1
    if separator == "," and len(pieces) > 1:
        _check_commas(text, pieces, field=field)
    return [_tainted_mailbox(piece, field=field) for piece in pieces]


def _tainted_mailbox(text: TaintedStr, *, field: str) -> Address:
    """Exactly one mailbox; a value may be the display name, the address, a part of either, or all of it."""
    plain = str(text)
    if text.is_data_alone or MIXED in text.mask:
        return _one_mailbox.__wrapped__(plain, field)
    masked = _masked(text, field=field)
    name, address = "", plain
    if masked.endswith(">") and masked.count("<") == masked.count(">") == 1:
        opening = masked.index("<")
        if any(character in masked[:opening] for character in _NOT_IN_A_NAME):
            raise MessageError(f"{field}: {_STRAY_IN_NAME} in {shown(plain)}.", remedy=_QUOTE_NAME)
        name, address = _display_name(plain[:opening], text.mask[:opening]), plain[opening + 1 : -1].strip(" ")
    if "<" in address or ">" in address:
        raise MessageError(f"{field}: the angle brackets do not fit in {shown(plain)}.", remedy=_WRITE)
    mailbox = _parse_mailbox(address, field=field)
    return Address(display_name=name, local_part=mailbox.local_part, domain=mailbox.domain) if name else mailbox


def _display_name(text: str, mask: str) -> str:
    """What stands before the `<`, without the quotation marks and backslashes that the author wrote."""
    pieces, end = [], 0
    for found in _QUOTED.finditer(mask):
        pieces.append(text[end : found.start()])
        end = found.start() + 1
        for escaping in _QUOTED_PAIR.finditer(mask, end, found.end() - 1):
            pieces.append(text[end : escaping.start()])
            end = escaping.start() + 1
        pieces.append(text[end : found.end() - 1])
        end = found.end()
    return ("".join(pieces) + text[end:]).strip()


def _plain_mailbox(text: str) -> Address | None:
    """The mailbox, if it is nothing but plain characters, `@` and a domain of ASCII; else it needs a closer look."""
    if len(text) > _ADDRESS_OCTETS:
        return None
    local_part, _, domain = text.partition("@")
    if (
        len(local_part) > _LOCAL_PART_OCTETS
        or not _PLAIN_LOCAL_PART.fullmatch(local_part)
        or not is_plain_domain(domain)
    ):
        return None
    # Everything that an Address checks has just been checked, and this takes a third of the time.
    plain = object.__new__(Address)
    for name, value in (("display_name", ""), ("local_part", local_part), ("domain", domain), ("address", str(text))):
        object.__setattr__(plain, name, value)
    return plain


@lru_cache(maxsize=256)
def _one_mailbox(value: str, field: str) -> Address:
    """What the text holds; remembered, since a whole batch has one sender."""
    pieces = _split(value, ";", field=field)
    if len(pieces) != 1:
        found = "no address" if not pieces else f"{len(pieces)} addresses"
        raise MessageError(f"{field} takes exactly one address, and {shown(value)} holds {found}.", remedy=_WRITE)
    return _parse_mailbox(pieces[0], field=field)


def _parse_mailbox(text: str, *, field: str) -> Address:
    """One mailbox: `local@domain`, or a display name before `<local@domain>`."""
    masked = _masked(text, field=field)

    def fault(what: str, remedy: str = _WRITE) -> MessageError:
        return MessageError(f"{field}: {what} in {shown(text)}.", remedy=remedy)

    name, address, masked_address = "", text, masked
    if masked.endswith(">") and masked.count("<") == masked.count(">") == 1:
        opening = masked.index("<")
        if any(character in masked[:opening] for character in _NOT_IN_A_NAME):
            raise fault(_STRAY_IN_NAME, _QUOTE_NAME)
        name = _QUOTED.sub(lambda quoted: _unquoted(quoted[0]), text[:opening].strip())
        address, masked_address = text[opening + 1 : -1].strip(" "), masked[opening + 1 : -1].strip(" ")
    if "<" in masked_address or ">" in masked_address:
        raise fault("the angle brackets do not fit")
    local_part, at, domain = masked_address.rpartition("@")
    if not at:
        raise fault("there is no '@'", "An address needs a domain: jane@corp.example.")
    written, domain = address[: len(local_part)], address[len(local_part) + 1 :]
    if _QUOTED.fullmatch(written):
        written = _unquoted(written)
    elif "," in local_part or "@" in local_part:
        raise fault("there is more than one address", "Put ';' between addresses.")
    elif written and not _DOT_ATOM.fullmatch(written):
        raise fault(f"there is something before the '@' that needs quotation marks, {shown(written)},")
    try:
        return Address(display_name=name, local_part=written, domain=domain)
    except MessageError as error:
        raise MessageError(f"{field}: {shown(text)} is not an address. {error.message}", remedy=error.remedy) from error


def _unquoted(text: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", text[1:-1])
