"""Address lists (RFC 5322 3.4): text, lists and rows of a query are parsed to `Address`es. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address import (
    ADDRESS_REMEDY,
    DOT_ATOM,
    MAX_CACHED_LENGTH,
    Address,
    parse_plain_mailbox,
)
from airflow_provider_smtpcm.mail.tainted import (
    BLANKS,
    DATA,
    MIXED,
    TaintedStr,
    find_forbidden_character,
    is_missing,
    short_repr,
)

_QUOTED = r'"(?:[^"\\]|\\.)*"'
# As `_QUOTED`, or from an unclosed quotation mark to the end of the text: without this alternative, the search restarts
# at each `\"` and takes quadratic time.
_QUOTED_OR_OPEN = r'"(?:[^"\\]|\\.)*("|\\?\Z)'
_QUOTED_PAIR = r"\\(.)"
# RFC 5322 3.4: `Team: a@corp.example, b@corp.example;`. On one line up to the colon: a line that begins with a name and
# a colon is a header that somebody tries to add.
_GROUP = r"(?:\A|[;,])(?P<name>[^<>@:;,\[\]]*):(?P<members>[^:;]*);"
_NAME_AND_COLON = r"[^@<>\[\]:]*:"
_HEADER_LINE = r"[\r\n][^@<>\[\]:\r\n]*:"
# The name of no group: who writes `Bcc: a@corp.example;` wants them hidden, and the mail would show them.
_HEADER_NAMES = frozenset({"bcc", "cc", "from", "reply-to", "sender", "subject", "to"})
# White space that may stand around an address: RFC 5322 2.2.3 folds a header at it.
_FOLDING = str.maketrans("\t\r\n", "   ")
_LIST_BRACKETS = ("[]", "()", "{}")

_QUOTE_NAME_REMEDY = 'Put the display name into quotation marks: "Doe, Jane" <jane@corp.example>.'
_ROW_REMEDY = "Select only the column with the address, or pass a list of addresses."
# Before the `<`, these characters are part of a display name only in quotation marks.
_ADDRESS_SYNTAX = ":@;"

#: One mailbox: an `Address`, or text with or without a display name.
AddressLike = str | Address
#: Any number of mailboxes: a string separated by `;`, `,` or line breaks, or a collection.
AddressesLike = AddressLike | Iterable[AddressLike]


def parse_address(value: AddressLike, *, field: str) -> Address:
    """Parse exactly one mailbox. A comma outside quotation marks is part of the display name.

    Args:
        value: text or an address. Whitespace around it, also line breaks, is ignored.
        field: the name of the field for the error, such as "From".

    Raises:
        MessageError: it is not one address.
    """
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise MessageError(f"{field} takes an address as text, not {type(value).__name__}.", remedy=ADDRESS_REMEDY)
    if isinstance(value, TaintedStr):
        _check_characters(value, field=field)
        return _parse_tainted_mailbox(value.strip_slice(0, len(value)), field=field)
    # Cached, since the mails of a batch usually have the same sender.
    parse = _parse_single_mailbox if len(value) <= MAX_CACHED_LENGTH else _parse_single_mailbox.__wrapped__
    return parse(value, field)


def parse_addresses(value: AddressesLike | None, *, field: str) -> tuple[Address, ...]:
    """Parse any number of mailboxes, in order.

    Args:
        value: one string separated by `;` (as in SSIS), `,` or line breaks, or an iterable of strings and addresses.
            Whitespace and empty parts are ignored, and so are None and NaN in an iterable. In a string with a `;`, and
            in every item of an iterable, a comma outside quotation marks is part of the display name. A `TaintedStr` is
            split only at separators that the author wrote. Groups (`Team: a@corp.example, b@corp.example;`) are
            replaced by their members. Text that is a Python or JSON list is read as that list. An item may be a row of
            one column: a tuple, a mapping, or a row of a database driver.
        field: the name of the field for the error, such as "To".

    Raises:
        MessageError: a part of it is not an address.
    """
    if value is None:
        return ()
    if isinstance(value, Address):
        return (value,)
    items: Any = value
    if isinstance(value, str):
        if plain := parse_plain_mailbox(value):
            return (plain,)
        items = _read_list(value)
        if items is None:
            return tuple(_parse_parts(value, None, field=field))
    addresses: list[Address] = []
    for number, item in enumerate(_check_collection(items, field=field), 1):
        if isinstance(item, str):
            addresses += _parse_text(item, field=field)
        elif isinstance(item, Address):
            addresses.append(item)
        else:
            addresses += _parse_item(item, number, field=field)
    return tuple(addresses)


def parse_valid_addresses(
    value: AddressesLike | None, *, field: str
) -> tuple[tuple[Address, ...], tuple[MessageError, ...]]:
    """Parse the mailboxes that are valid, for a mail that is sent even if others are not. Never raises.

    Both `;` and `,` separate where a value cannot be parsed otherwise.

    Args:
        value: as in `parse_addresses`.
        field: as in `parse_addresses`.

    Returns:
        The addresses, and one fault for each other part.
    """
    items: Any = value
    try:
        if value is None or isinstance(value, str | Address):
            return parse_addresses(value, field=field), ()
        items = list(_check_collection(value, field=field))  # an iterator yields its items once
        return parse_addresses(items, field=field), ()
    except MessageError as error:
        whole = error
    if isinstance(items, str):
        items = _read_list(items) or [items]
    if not isinstance(items, list | tuple | set | frozenset):
        return (), (whole,)
    addresses: list[Address] = []
    faults: list[MessageError] = []
    for item in items:
        parts, has_header = split_everywhere(item) if isinstance(item, str) else ([item], False)
        if has_header:
            faults.append(_make_control_character_error(item, field=field))
        for part in parts:
            try:
                addresses += parse_addresses([part], field=field)
            except MessageError as fault:
                faults.append(fault)
    return tuple(addresses), tuple(faults)


def split_everywhere(text: str) -> tuple[list[str], bool]:
    """Split an address list at every separator, also at commas; an unclosed quotation mark is an ordinary character.

    Returns:
        The parts, and whether they end at a line that looks like a header.
    """
    masked = text.mask if isinstance(text, TaintedStr) else text
    masked = re.sub(_QUOTED_OR_OPEN, lambda quoted: DATA * len(quoted[0]) if quoted[1] == '"' else quoted[0], masked)
    end = _find_header_line(masked)
    spans = [
        span
        for start, stop, used in _find_spans(masked[:end], ";,")
        for span in _split_span(masked, start, stop, used and ";,")
    ]
    return [part for start, stop in spans if (part := _strip(text, start, stop))], end is not None


def _check_collection(value: Any, *, field: str) -> Iterable[Any]:
    # The usual types first, since `isinstance(value, Mapping)` is slow.
    if isinstance(value, tuple | list):
        return value
    if hasattr(value, "itertuples") and hasattr(value, "columns"):
        remedy = "Pass one column as a list: frame['email'].tolist()."
    elif isinstance(value, bytes | bytearray | Mapping) or not isinstance(value, Iterable):
        remedy = "Pass one string with the addresses separated by ';', or a list of strings."
    else:
        return value
    raise MessageError(f"{field} takes text or a list of addresses, not {type(value).__name__}.", remedy=remedy)


def _parse_item(item: Any, number: int, *, field: str) -> list[Address]:
    """Parse an item of a collection that is neither text nor an address: a missing value, or a row of one column."""
    if is_missing(item):
        return []
    is_row = hasattr(type(item), "__len__") and hasattr(type(item), "__getitem__")
    if not is_row or isinstance(item, bytes | bytearray):
        return [parse_address(item, field=field)]  # raises, and names the type
    if len(item) != 1:
        columns = f" ({', '.join(map(str, item))})" if isinstance(item, Mapping) else ""
        raise MessageError(
            f"{field}: item {number} is a row of {len(item)} columns{columns:.200}, not an address.",
            remedy=_ROW_REMEDY,
        )
    cell = next(iter(item.values())) if isinstance(item, Mapping) else item[0]
    if isinstance(cell, str):
        return _parse_text(cell, field=field)
    return [] if is_missing(cell) else [parse_address(cell, field=field)]


def _read_list(text: str) -> Sequence[Any] | None:
    """Return the items of a list that a template or a Variable turned into text; None if it is none.

    Only text that may contain several addresses: a `TaintedStr` is split only where the author wrote a separator.
    """
    if isinstance(text, TaintedStr):
        return None
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] not in _LIST_BRACKETS:
        return None
    import ast
    import json

    items: Any = None
    try:
        items = json.loads(stripped)
    except (ValueError, RecursionError):
        try:
            items = ast.literal_eval(stripped)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return list(items) if isinstance(items, list | tuple | set) else None


def _parse_text(text: str, *, field: str) -> list[Address]:
    """Parse all mailboxes of an item, in which a comma is part of the display name."""
    plain = parse_plain_mailbox(text)
    return [plain] if plain else _parse_parts(text, ";", field=field)


def _parse_parts(text: str, separator: str | None, *, field: str) -> list[Address]:
    """Parse all mailboxes of a text.

    A `TaintedStr` is split only at separators that the author wrote, whatever its values contain.

    Args:
        separator: None means `;`, or `,` if the text has no `;`.
    """
    return [
        _parse_tainted_mailbox(part, field=field) if isinstance(part, TaintedStr) else _parse_mailbox(part, field=field)
        for part in _split(text, separator, field=field)
    ]


@lru_cache(maxsize=256)
def _parse_single_mailbox(value: str, field: str) -> Address:
    if plain := parse_plain_mailbox(value):
        return plain
    parts = _split(value, ";", field=field)
    if len(parts) != 1:
        found = "no address" if not parts else f"{len(parts)} addresses"
        raise MessageError(
            f"{field} takes exactly one address, not {found}: {short_repr(value)}.", remedy=ADDRESS_REMEDY
        )
    return _parse_mailbox(parts[0], field=field)


def _parse_mailbox(text: str, *, field: str) -> Address:
    """Parse one mailbox: `local@domain`, or a display name before `<local@domain>`."""
    _check_one_line(text, field=field)
    masked = _mask_quoted_strings(text, field=field)
    name, address, masked_address = "", text, masked
    opening = _find_angle_bracket(text, masked, field=field)
    if opening is not None:
        name = re.sub(_QUOTED, lambda quoted: _unquote(quoted[0]), text[:opening].strip())
        address, masked_address = text[opening + 1 : -1].strip(" "), masked[opening + 1 : -1].strip(" ")
        if "@" in masked[:opening]:
            name = ""  # it only repeats the address, or `_find_angle_bracket` would have raised
    if "<" in masked_address or ">" in masked_address:
        raise _make_syntax_error(field, "the angle brackets do not match", text)
    masked_local_part, at, _ = masked_address.rpartition("@")
    if not at:
        raise _make_syntax_error(field, "there is no '@'", text, "An address needs a domain: jane@corp.example.")
    local_part, domain = address[: len(masked_local_part)], address[len(masked_local_part) + 1 :]
    if re.fullmatch(_QUOTED, local_part):
        local_part = _unquote(local_part)
    elif re.match(_NAME_AND_COLON, masked_local_part):
        raise _make_syntax_error(
            field,
            "there is a ':' before the address",
            text,
            "Write the address alone, or a group with ';' at its end: Team: a@corp.example, b@corp.example;",
        )
    elif "," in masked_local_part or "@" in masked_local_part:
        raise _make_syntax_error(field, "there is more than one address", text, "Put ';' between addresses.")
    elif local_part and not re.fullmatch(DOT_ATOM, local_part):
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
    _check_one_line(plain, field=field)
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
    name = masked[:opening]
    if any(character in name for character in _ADDRESS_SYNTAX):
        # `jane@corp.example <jane@corp.example>`, as mail clients write it, with or without apostrophes. With another
        # address before the `<`, a separator may be missing.
        repeated = name.strip().strip("'").casefold()
        if repeated != masked[opening + 1 : -1].strip().casefold():
            raise _make_syntax_error(field, "there is a ':', '@' or ';' before the '<'", text, _QUOTE_NAME_REMEDY)
    return opening


# --- From a text to its parts


def _split(text: str, separator: str | None, *, field: str) -> list[str]:
    """Split at the separators and line breaks outside quotation marks; strip the parts and drop empty ones.

    Args:
        separator: as in `_parse_parts`.
    """
    _check_characters(text, field=field)
    stripped = text.strip()
    if not isinstance(text, TaintedStr) and stripped[:1] in ("[", "(") and stripped[-1] in "])":
        raise MessageError(
            f"{field}: {short_repr(text)} is a list that was turned into text.",
            remedy="Pass the list as the whole field, or join the addresses with ';'.",
        )
    masked = _mask_quoted_strings(text, field=field)
    if _find_header_line(masked) is not None:
        raise _make_control_character_error(text, field=field)
    parts: list[str] = []
    for start, stop, used in _find_spans(masked, separator):
        found = [part for first, end in _split_span(masked, start, stop, used) if (part := _strip(text, first, end))]
        if used == "," and "," in masked[start:stop] and len(found) > 1:
            _check_commas(text, found, field=field)
        parts += found
    return parts


def _find_header_line(masked: str) -> int | None:
    """Return where a line after the first begins as a header does, with a name and a colon; None if none does."""
    if ":" not in masked or ("\n" not in masked and "\r" not in masked):
        return None
    first = len(masked) - len(masked.lstrip(BLANKS))
    header = re.compile(_HEADER_LINE).search(masked, first)
    return None if header is None else header.start()


def _find_spans(masked: str, separator: str | None) -> Iterator[tuple[int, int, str]]:
    """Yield the start and end of each span that has the same separators: the members of a group, and what is outside.

    Args:
        masked: see `_mask_quoted_strings`.
        separator: the separators outside groups; None: as in `_parse_parts`.
    """
    groups = [group for group in re.finditer(_GROUP, masked) if _is_group(group)] if ":" in masked else []
    edges = [0, *(edge for group in groups for edge in group.span()), len(masked)]
    outside = [*zip(edges[::2], edges[1::2], strict=True)]
    if separator is None:
        has_semicolon = any(masked.find(";", start, stop + 1) >= 0 for start, stop in outside)  # or one before a group
        separator = ";" if has_semicolon else ","
    for group, (start, stop) in zip_longest(groups, outside):
        yield start, stop, separator
        if group is None:
            return
        # A header is not split, so that it is an error.
        is_header = group["name"].strip(BLANKS).lower() in _HEADER_NAMES
        yield (group.start("name"), group.end(), "") if is_header else (*group.span("members"), ",")


def _is_group(group: re.Match[str]) -> bool:
    """Whether a match has a name, which does not begin on a further line."""
    name = group["name"].strip(BLANKS if group.start() == 0 else " \t")
    return bool(name) and "\r" not in name and "\n" not in name


def _split_span(masked: str, start: int, stop: int, separators: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each part between separators or line breaks."""
    for part in re.split(rf"[{separators}\r\n]", masked[start:stop]):
        yield start, start + len(part)
        start += len(part) + 1


def _strip(text: str, start: int, stop: int) -> str:
    if isinstance(text, TaintedStr):
        return text.strip_slice(start, stop)
    return text[start:stop].strip().strip(f",{BLANKS}")


def _check_commas(text: str, parts: Sequence[str], *, field: str) -> None:
    """Check that each part between commas is an address, since a comma may belong to a display name."""
    for part in parts:
        if "@" not in (part if isinstance(part, TaintedStr) else _mask_quoted_strings(part, field=field)):
            raise MessageError(
                f"{field}: {short_repr(str(part))} in {short_repr(str(text))} has no '@': does the comma belong to a "
                "name?",
                remedy=f"{_QUOTE_NAME_REMEDY} Or separate the addresses with ';'.",
            )


def _check_characters(text: str, *, field: str) -> None:
    """Check a whole text, in which tabs and line breaks may stand around addresses."""
    if find_forbidden_character(text) and find_forbidden_character(text.translate(_FOLDING)):
        raise _make_control_character_error(text, field=field)


def _check_one_line(text: str, *, field: str) -> None:
    """Check one mailbox: a line break within it would begin another header, or another SMTP command."""
    if find_forbidden_character(text):
        raise _make_control_character_error(text, field=field)


def _make_control_character_error(text: str, *, field: str) -> MessageError:
    character = find_forbidden_character(text.translate(_FOLDING)) or find_forbidden_character(text)
    return MessageError(
        f"{field}: {short_repr(text)} contains {character}.",
        remedy="Remove it: an address is one line, and addresses are separated by ';' or by a line break.",
    )


def _mask_quoted_strings(text: str, *, field: str) -> str:
    """Return the text with quoted strings and data overwritten in place, so that a search in it finds only syntax."""
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


def _make_syntax_error(field: str, problem: str, text: str, remedy: str = ADDRESS_REMEDY) -> MessageError:
    return MessageError(f"{field}: {problem} in {short_repr(text)}.", remedy=remedy)
