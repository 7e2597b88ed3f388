"""Email addresses (RFC 5321 and RFC 5322 mailboxes): parsing and validation. Pure: no DNS lookups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.mail.tainted import DATA, MIXED, TaintedStr, find_forbidden_character, short_repr

_MAX_LOCAL_PART_OCTETS = 64  # RFC 5321 4.5.3.1.1
_MAX_ADDRESS_OCTETS = 254  # RFC 5321 4.5.3.1.3: a path has 256 with its angle brackets

# RFC 5322 3.2.3.
ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
# RFC 6531 3.3 allows every non-ASCII character; `Address` refuses the invisible ones (spaces, zero-width characters).
_DOT_ATOM = rf"(?:{ATEXT}|[^\x00-\x7f])+(?:\.(?:{ATEXT}|[^\x00-\x7f])+)*"
_ATOMS = rf"(?:{ATEXT}|[^\x00-\x7f])+(?: (?:{ATEXT}|[^\x00-\x7f])+)*"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
# As `_QUOTED`, or from an unclosed quotation mark to the end of the text: without this alternative, the search restarts
# at each `\"` and takes quadratic time.
_QUOTED_OR_OPEN = r'"(?:[^"\\]|\\.)*("|\\?\Z)'
_QUOTED_PAIR = r"\\(.)"
# Nearly every local part matches this pattern and needs no further checks.
_PLAIN_LOCAL_PART = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
# RFC 5321 4.1.2, plus the underscore, which internal host names often contain.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_CACHED_LENGTH = 1000  # longer text is parsed without the cache, to bound its memory

_ADDRESS_REMEDY = "Write it as jane@corp.example or Jane Doe <jane@corp.example>."
_QUOTE_NAME_REMEDY = 'Put the display name into quotation marks: "Doe, Jane" <jane@corp.example>.'
# Before the `<`, these characters are part of a display name only in quotation marks.
_ADDRESS_SYNTAX = ":@;"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Address(Record):
    """One mailbox. The constructor checks it, so every instance is valid.

    Args:
        display_name: the name before the address; "" if there is none.
        local_part: the part before the `@`, without quotation marks.
        domain: the part after the `@`, as written: ASCII, internationalized, or a literal such as `[10.0.0.1]`.

    Raises:
        MessageError: SMTP does not allow it, or a part of it could end the MAIL or RCPT command early.
    """

    display_name: str = ""
    local_part: str
    domain: str
    #: The addr-spec for SMTP: the domain in A-labels, the local part in quotation marks if it needs them.
    address: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for text in (self.display_name, self.local_part, self.domain):
            if not isinstance(text, str):
                raise MessageError(f"An address must be text, not {type(text).__name__}.", remedy=_ADDRESS_REMEDY)
            if character := find_forbidden_character(text):
                raise MessageError(f"It contains {character}.", remedy="Remove that character.")
        local_part = _encode_local_part(self.local_part)
        address = f"{local_part}@{to_ascii_domain(self.domain)}"
        if len(address.encode()) > _MAX_ADDRESS_OCTETS:
            raise MessageError(
                f"It is longer than {_MAX_ADDRESS_OCTETS} octets.", remedy="Use a shorter address: SMTP has this limit."
            )
        object.__setattr__(self, "address", address)

    @property
    def needs_smtputf8(self) -> bool:
        """Whether it needs a server with SMTPUTF8 (RFC 6531). A non-ASCII domain does not: it is sent in A-labels."""
        return not self.local_part.isascii()

    def __str__(self) -> str:
        address = f"{_encode_local_part(self.local_part)}@{self.domain}"
        if not self.display_name:
            return address
        return f"{format_phrase(self.display_name)} <{address}>"


#: One mailbox: an `Address`, or text with or without a display name.
AddressLike = str | Address
#: Any number of mailboxes: a string separated by `;` or `,`, or a collection.
AddressesLike = AddressLike | Iterable[AddressLike]


def parse_address(value: AddressLike, *, field: str) -> Address:
    """Parse exactly one mailbox. A comma outside quotation marks is part of the display name.

    Args:
        value: text or an address.
        field: the name of the field for the error, such as "From".

    Raises:
        MessageError: it is not one address.
    """
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise MessageError(f"{field} takes an address as text, not {type(value).__name__}.", remedy=_ADDRESS_REMEDY)
    if isinstance(value, TaintedStr):
        return _parse_tainted_mailbox(value.strip_slice(0, len(value)), field=field)
    # Cached, since the mails of a batch usually have the same sender.
    parse = _parse_single_mailbox if len(value) <= _MAX_CACHED_LENGTH else _parse_single_mailbox.__wrapped__
    return parse(value, field)


def parse_addresses(value: AddressesLike | None, *, field: str) -> tuple[Address, ...]:
    """Parse any number of mailboxes, in order.

    Args:
        value: one string separated by `;` (as in SSIS) or `,`, or an iterable of strings and addresses. Whitespace and
            empty parts are ignored. In a string with a `;`, and in every item of an iterable, a comma outside quotation
            marks is part of the display name. A `TaintedStr` is split only at separators that the author wrote.
        field: the name of the field for the error, such as "To".

    Raises:
        MessageError: a part of it is not an address.
    """
    if value is None:
        return ()
    if isinstance(value, Address):
        return (value,)
    if isinstance(value, str):
        return tuple(_parse_mailboxes(value, None, field=field))
    # The usual types first, since `isinstance(value, Mapping)` is slow.
    if not isinstance(value, tuple | list) and (
        isinstance(value, bytes | bytearray | Mapping) or not isinstance(value, Iterable)
    ):
        raise MessageError(
            f"{field} takes text or a list of addresses, not {type(value).__name__}.",
            remedy="Pass one string with the addresses separated by ';', or a list of strings.",
        )
    addresses: list[Address] = []
    for item in value:
        if isinstance(item, str):
            addresses += _parse_mailboxes(item, ";", field=field)
        else:
            addresses.append(parse_address(item, field=field))
    return tuple(addresses)


def format_phrase(text: str) -> str:
    """Format a display name for use before `<`, in quotation marks if it needs them (RFC 5322 3.2.5)."""
    return text if re.fullmatch(_ATOMS, text) else quote_string(text)


def quote_string(text: str) -> str:
    r"""Put text into quotation marks, with a backslash before `"` and `\\` (RFC 5322 3.2.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def to_ascii_domain(domain: str) -> str:
    """Return a domain in ASCII, with U-labels converted to A-labels (IDNA 2008 with the mapping of UTS 46).

    Raises:
        MessageError: it is neither a domain nor an address literal.
    """
    return _to_ascii_domain(domain) if len(domain) <= _MAX_CACHED_LENGTH else _to_ascii_domain.__wrapped__(domain)


@lru_cache(maxsize=1024)
def _to_ascii_domain(domain: str) -> str:
    if domain.startswith("["):
        return _check_address_literal(domain)
    original = domain
    if not domain.isascii():
        import idna

        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError as error:
            raise MessageError(
                # Shortened, since the error of idna repeats the whole domain.
                f"The domain {short_repr(domain)} is not a valid internationalized domain ({error!s:.80}).",
                remedy="Correct the domain.",
            ) from error
    if not _DOMAIN.fullmatch(domain):
        raise MessageError(
            f"{short_repr(original)} is not a domain." if original else "There is nothing after the '@'.",
            remedy="A domain is letters, digits and hyphens separated by dots, such as corp.example, or [10.0.0.1].",
        )
    return domain


@lru_cache(maxsize=1024)
def _is_ascii_domain(domain: str) -> bool:
    """Whether a domain is valid and needs no conversion to A-labels."""
    return _DOMAIN.fullmatch(domain) is not None


def _check_address_literal(domain: str) -> str:
    """Check `[10.0.0.1]` or `[IPv6:2001:db8::1]` (RFC 5321 4.1.3)."""
    import ipaddress

    literal = domain[1:-1] if domain.endswith("]") else ""
    try:
        if literal[:5].lower() != "ipv6:":
            ipaddress.IPv4Address(literal)
        elif ipaddress.IPv6Address(literal[5:]).scope_id is not None:
            # A scope (fe80::1%eth0) means nothing to another machine, and may contain any character.
            raise ValueError(literal)
    except ValueError as error:
        raise MessageError(
            f"The domain {short_repr(domain)} is not an address literal.",
            remedy="Write [10.0.0.1] or [IPv6:2001:db8::1].",
        ) from error
    return domain


def _encode_local_part(local_part: str) -> str:
    """Return the local part as an SMTP command contains it, in quotation marks if it needs them."""
    if len(local_part) <= _MAX_LOCAL_PART_OCTETS and _PLAIN_LOCAL_PART.fullmatch(local_part):
        return local_part
    if not local_part:
        raise MessageError("There is nothing before the '@'.", remedy=_ADDRESS_REMEDY)
    # Legal in quotation marks, but some servers would end MAIL FROM:<...> at it.
    if "<" in local_part or ">" in local_part:
        raise MessageError("There is an angle bracket before the '@'.", remedy=_ADDRESS_REMEDY)
    # RFC 2047 5 forbids encoded words in an address. A mail client that decodes one anyway shows another address.
    if "=?" in local_part:
        raise MessageError("There is an encoded word before the '@'.", remedy="Write the address itself.")
    if not local_part.replace(" ", "x").isprintable():
        raise MessageError("There is an invisible character before the '@'.", remedy="Type the address again.")
    encoded = local_part if re.fullmatch(_DOT_ATOM, local_part) else quote_string(local_part)
    if len(encoded.encode()) > _MAX_LOCAL_PART_OCTETS:
        raise MessageError(
            f"There are more than {_MAX_LOCAL_PART_OCTETS} octets before the '@'.",
            remedy="Use a shorter address: SMTP has this limit.",
        )
    return encoded


def _parse_mailboxes(text: str, separator: str | None, *, field: str) -> list[Address]:
    """Parse all mailboxes of a text.

    A `TaintedStr` is split only at separators that the author wrote, whatever its values contain.

    Args:
        separator: None means `;`, or `,` if the text has no `;`.
    """
    if plain := _parse_plain_mailbox(text):
        return [plain]
    if isinstance(text, TaintedStr):
        masked = _mask_quoted_strings(text, field=field)
        parts: Sequence[TaintedStr] = _split_tainted(text, masked, separator or _find_separator(masked), field=field)
        return [_parse_tainted_mailbox(part, field=field) for part in parts]
    if separator is None:
        separator = _find_separator(_mask_quoted_strings(text, field=field))
    return [_parse_mailbox(part, field=field) for part in _split(text, separator, field=field)]


def is_plain_addr_spec(text: str) -> bool:
    """Whether a text is an unquoted ASCII `local@domain`, as nearly every address is, and nearly every Message-ID."""
    local_part, _, domain = text.partition("@")
    return _PLAIN_LOCAL_PART.fullmatch(local_part) is not None and _is_ascii_domain(domain)


def _parse_plain_mailbox(text: str) -> Address | None:
    """Parse an unquoted ASCII `local@domain`, as nearly every address is; return None for any other text."""
    if len(text) > _MAX_ADDRESS_OCTETS:
        return None
    local_part, _, domain = text.partition("@")
    if (
        len(local_part) > _MAX_LOCAL_PART_OCTETS
        or not _PLAIN_LOCAL_PART.fullmatch(local_part)
        or not _is_ascii_domain(domain)
    ):
        return None
    # The patterns above imply the checks of `Address`, and skipping its constructor takes a third of the time.
    plain = object.__new__(Address)
    for name, value in (("display_name", ""), ("local_part", local_part), ("domain", domain), ("address", str(text))):
        object.__setattr__(plain, name, value)
    return plain


@lru_cache(maxsize=256)
def _parse_single_mailbox(value: str, field: str) -> Address:
    if plain := _parse_plain_mailbox(value):
        return plain
    parts = _split(value, ";", field=field)
    if len(parts) != 1:
        found = "no address" if not parts else f"{len(parts)} addresses"
        raise MessageError(
            f"{field} takes exactly one address, not {found}: {short_repr(value)}.", remedy=_ADDRESS_REMEDY
        )
    return _parse_mailbox(parts[0], field=field)


def _parse_mailbox(text: str, *, field: str) -> Address:
    """Parse one mailbox: `local@domain`, or a display name before `<local@domain>`."""
    masked = _mask_quoted_strings(text, field=field)
    name, address, masked_address = "", text, masked
    opening = _find_angle_bracket(text, masked, field=field)
    if opening is not None:
        name = re.sub(_QUOTED, lambda quoted: _unquote(quoted[0]), text[:opening].strip())
        address, masked_address = text[opening + 1 : -1].strip(" "), masked[opening + 1 : -1].strip(" ")
    if "<" in masked_address or ">" in masked_address:
        raise _make_syntax_error(field, "the angle brackets do not match", text)
    masked_local_part, at, _ = masked_address.rpartition("@")
    if not at:
        raise _make_syntax_error(field, "there is no '@'", text, "An address needs a domain: jane@corp.example.")
    local_part, domain = address[: len(masked_local_part)], address[len(masked_local_part) + 1 :]
    if re.fullmatch(_QUOTED, local_part):
        local_part = _unquote(local_part)
    elif "," in masked_local_part or "@" in masked_local_part:
        raise _make_syntax_error(field, "there is more than one address", text, "Put ';' between addresses.")
    elif local_part and not re.fullmatch(_DOT_ATOM, local_part):
        raise _make_syntax_error(field, f"the local part {short_repr(local_part)} needs quotation marks", text)
    try:
        return Address(display_name=name, local_part=local_part, domain=domain)
    except MessageError as error:
        message = f"{field}: {short_repr(text)} is not an address. {error.message}"
        raise MessageError(message, remedy=error.remedy) from error


def _parse_tainted_mailbox(text: TaintedStr, *, field: str) -> Address:
    """Parse one mailbox. Data in it is part of the display name or of the address, whatever characters it contains."""
    plain = str(text)
    if text.is_fully_tainted or MIXED in text.mask:
        return _parse_single_mailbox.__wrapped__(plain, field)
    masked = _mask_quoted_strings(text, field=field)
    name, address = "", plain
    opening = _find_angle_bracket(plain, masked, field=field)
    if opening is not None:
        name, address = _unquote_tainted(plain[:opening], text.mask[:opening]), plain[opening + 1 : -1].strip(" ")
    if "<" in address or ">" in address:
        raise _make_syntax_error(field, "the angle brackets do not match", plain)
    mailbox = _parse_mailbox(address, field=field)
    return Address(display_name=name, local_part=mailbox.local_part, domain=mailbox.domain) if name else mailbox


def _find_angle_bracket(text: str, masked: str, *, field: str) -> int | None:
    """Return the position of `<` in `name <local@domain>`; None if the text has another form."""
    if not masked.endswith(">") or not masked.count("<") == masked.count(">") == 1:
        return None
    opening = masked.index("<")
    if any(character in masked[:opening] for character in _ADDRESS_SYNTAX):
        raise _make_syntax_error(field, "there is a ':', '@' or ';' before the '<'", text, _QUOTE_NAME_REMEDY)
    return opening


def _split(text: str, separator: str, *, field: str) -> list[str]:
    """Split at the separators outside quotation marks; strip the parts and drop empty ones."""
    stripped = text.strip()
    if stripped[:1] in ("[", "(") and stripped[-1] in "])":
        raise MessageError(
            f"{field}: {short_repr(text)} is a list that was turned into text.",
            remedy="Pass a list and give the DAG render_template_as_native_obj=True, or join the addresses with ';'.",
        )
    masked = _mask_quoted_strings(text, field=field)
    parts = [part for start, stop in _find_spans(masked, separator) if (part := text[start:stop].strip().strip(", "))]
    if separator == "," and len(parts) > 1:
        _check_commas(text, parts, field=field)
    return parts


def _split_tainted(text: TaintedStr, masked: str, separator: str, *, field: str) -> list[TaintedStr]:
    """Split at the separators outside quotation marks that the author wrote; strip the parts and drop empty ones."""
    parts = [part for start, stop in _find_spans(masked, separator) if (part := text.strip_slice(start, stop))]
    if separator == "," and len(parts) > 1:
        _check_commas(text, parts, field=field)
    return parts


def _find_separator(masked: str) -> str:
    return ";" if ";" in masked else ","


def _find_spans(masked: str, separator: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each part between separators."""
    start = 0
    for part in masked.split(separator):
        yield start, start + len(part)
        start += len(part) + 1


def _check_commas(text: str, parts: Sequence[str], *, field: str) -> None:
    """Check that each part between commas is an address, since a comma may belong to a display name."""
    for part in parts:
        if "@" not in (part if isinstance(part, TaintedStr) else _mask_quoted_strings(part, field=field)):
            raise MessageError(
                f"{field}: {short_repr(str(part))} in {short_repr(str(text))} has no '@': does the comma belong to a "
                "name?",
                remedy=f"{_QUOTE_NAME_REMEDY} Or separate the addresses with ';'.",
            )


def _mask_quoted_strings(text: str, *, field: str) -> str:
    """Return the text with quoted strings and data overwritten in place, so that a search in it finds only syntax."""
    if character := find_forbidden_character(text):
        raise MessageError(
            f"{field}: {short_repr(text)} contains {character}.",
            remedy="Remove it: an address is one line, and addresses are separated by ';'.",
        )
    masked = text.mask if isinstance(text, TaintedStr) else text
    if '"' in masked:
        masked = re.sub(_QUOTED_OR_OPEN, lambda quoted: DATA * len(quoted[0]) if quoted[1] == '"' else '"', masked)
    if '"' in masked:
        raise MessageError(f"{field}: a quotation mark is not closed in {short_repr(text)}.", remedy=_QUOTE_NAME_REMEDY)
    return masked


def _unquote(text: str) -> str:
    return re.sub(_QUOTED_PAIR, r"\1", text[1:-1])


def _unquote_tainted(text: str, mask: str) -> str:
    """Return a display name without the quotation marks and backslashes that the author wrote as syntax."""
    parts, end = [], 0
    for quoted in re.finditer(_QUOTED, mask):
        parts.append(text[end : quoted.start()])
        end = quoted.start() + 1
        for escape in re.compile(_QUOTED_PAIR).finditer(mask, end, quoted.end() - 1):
            parts.append(text[end : escape.start()])
            end = escape.start() + 1
        parts.append(text[end : quoted.end() - 1])
        end = quoted.end()
    return ("".join(parts) + text[end:]).strip()


def _make_syntax_error(field: str, problem: str, text: str, remedy: str = _ADDRESS_REMEDY) -> MessageError:
    return MessageError(f"{field}: {problem} in {short_repr(text)}.", remedy=remedy)
