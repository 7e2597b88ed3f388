"""`Address`: one email address (an RFC 5321 and RFC 5322 mailbox), checked on construction. Pure: no DNS lookups."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.frozen_dataclasses import Record
from airflow_provider_smtpcm.mail.tainted import find_forbidden_character, short_repr

_MAX_LOCAL_PART_OCTETS = 64  # RFC 5321 4.5.3.1.1
_MAX_ADDRESS_OCTETS = 254  # RFC 5321 4.5.3.1.3: a path has 256 with its angle brackets

# RFC 5322 3.2.3.
ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
# RFC 6531 3.3 allows every non-ASCII character; `Address` refuses the invisible ones (spaces, zero-width characters).
DOT_ATOM = rf"(?:{ATEXT}|[^\x00-\x7f])+(?:\.(?:{ATEXT}|[^\x00-\x7f])+)*"
_ATOMS = rf"(?:{ATEXT}|[^\x00-\x7f])+(?: (?:{ATEXT}|[^\x00-\x7f])+)*"
# Nearly every local part matches this pattern and needs no further checks.
_PLAIN_LOCAL_PART = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
# RFC 5321 4.1.2, plus the underscore, which internal host names often contain.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
MAX_CACHED_LENGTH = 1000  # longer text is parsed without the cache, to bound its memory

ADDRESS_REMEDY = "Write it as jane@corp.example or Jane Doe <jane@corp.example>."


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
                raise MessageError(f"An address must be text, not {type(text).__name__}.", remedy=ADDRESS_REMEDY)
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
    return _to_ascii_domain(domain) if len(domain) <= MAX_CACHED_LENGTH else _to_ascii_domain.__wrapped__(domain)


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
        raise MessageError("There is nothing before the '@'.", remedy=ADDRESS_REMEDY)
    # Legal in quotation marks, but some servers would end MAIL FROM:<...> at it.
    if "<" in local_part or ">" in local_part:
        raise MessageError("There is an angle bracket before the '@'.", remedy=ADDRESS_REMEDY)
    # RFC 2047 5 forbids encoded words in an address. A mail client that decodes one anyway shows another address.
    if "=?" in local_part:
        raise MessageError("There is an encoded word before the '@'.", remedy="Write the address itself.")
    if not local_part.replace(" ", "x").isprintable():
        raise MessageError("There is an invisible character before the '@'.", remedy="Type the address again.")
    encoded = local_part if re.fullmatch(DOT_ATOM, local_part) else quote_string(local_part)
    if len(encoded.encode()) > _MAX_LOCAL_PART_OCTETS:
        raise MessageError(
            f"There are more than {_MAX_LOCAL_PART_OCTETS} octets before the '@'.",
            remedy="Use a shorter address: SMTP has this limit.",
        )
    return encoded


def is_plain_addr_spec(text: str) -> bool:
    """Whether a text is an unquoted ASCII `local@domain`, as nearly every address is, and nearly every Message-ID."""
    local_part, _, domain = text.partition("@")
    return _PLAIN_LOCAL_PART.fullmatch(local_part) is not None and _is_ascii_domain(domain)


def parse_plain_mailbox(text: str) -> Address | None:
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
