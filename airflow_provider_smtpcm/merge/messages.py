"""The mails of a merge: each row filled in, under a key that every try gives it. Knows no server.

Rows that make no mail go to the tally, and the others follow. Of what is done only a digest of its key is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.values import as_text
from airflow_provider_smtpcm.errors import LedgerError, MailError, MessageError
from airflow_provider_smtpcm.ledger.journal import doubt, errand_of
from airflow_provider_smtpcm.ledger.ledger import NOTHING, Known, Ledger, changed
from airflow_provider_smtpcm.ledger.record import MARK, DigestSet, State
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.headers import stable_message_id
from airflow_provider_smtpcm.merge.result import MergeTally
from airflow_provider_smtpcm.merge.rows import Row, Rows
from airflow_provider_smtpcm.merge.templates import RowTemplates
from airflow_provider_smtpcm.smtp.queue import SendRequest

if TYPE_CHECKING:
    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook


# folded: What earlier tries of a merge left of its rows, and who is still to be sent to. Knows a ledger, and no server.

# What each state counts as where it is left as it is.
_OUTCOMES = {
    State.ACCEPTED: "accepted",
    State.PARTIAL: "partial",
    State.REFUSED: "refused",
    State.UNKNOWN: "unknown",
    State.OPEN: "unknown",
}


class Past:
    """Tells rows that are settled from those that are left.

    Args:
        ledger: open.
        tally: hears of the rows that are settled.
        retry_unknown: whether what may have been delivered is sent again, under the same Message-ID.
    """

    def __init__(self, ledger: Ledger, tally: MergeTally, *, retry_unknown: bool) -> None:
        self._ledger = ledger
        self._tally = tally
        self._retry_unknown = retry_unknown
        self._rows = ledger.rows
        # The rows in doubt that this try has not come to.
        self._not_reached = set(ledger.doubts)

    def left(self, number: int, key: str | None, mark: bytes, message_id: Callable[[], str | None]) -> Known | None:
        """What is known of a row that is to be sent: Known() for nothing; None: it is settled.

        Args:
            number: of the row.
            key: what names it.
            mark: what tells it from others.
            message_id: of its mail, where somebody has to look for that.

        Raises:
            LedgerError: this is another row than the earlier try met in its place.
        """
        if number > self._rows:
            return NOTHING
        known = self._ledger.known(number - 1, mark)
        self._not_reached.discard(number - 1)
        if known is None or known.state in (State.AGAIN, State.FAILED):
            return known or NOTHING
        if known.state in (State.OPEN, State.UNKNOWN) and self._retry_unknown:
            return known
        if known.state is State.OPEN:
            self._tally.left_in_doubt(number, key, message_id())
        else:
            self._tally.settled_before(number, _OUTCOMES[known.state])
        if known.state is State.OPEN:  # last: a row that was not named yet is named by the next try
            self._ledger.record(number - 1, State.UNKNOWN, known.rest)
        return None

    def not_reached(self, *, named_before: bool) -> dict[int, bytes | None]:
        """The numbers of the rows in doubt that this try has not come to, and what tells each from others, if known.

        Args:
            named_before: also those that an earlier try has named.
        """
        return {
            row + 1: self._ledger.mark(row)
            for row in sorted(self._not_reached)
            if named_before or self._ledger.is_open(row)
        }

    def made_no_mail(self, number: int, mark: bytes, known: Known) -> None:
        """Write down that no mail can be made of a row; what is known of one that somebody has, or may have, stays."""
        if not known.rest.accepted and known.state not in (State.OPEN, State.UNKNOWN):
            self._ledger.record(number - 1, State.FAILED, mark=mark)

    def everybody_has_it(self, number: int) -> None:
        """Nobody is left of a row's recipients who lacks its mail."""
        self._ledger.record(number - 1, State.ACCEPTED)
        self._tally.settled_before(number, "accepted")

    def check_end(self, number: int) -> None:
        """The rows ended with this one.

        Raises:
            LedgerError: earlier tries met more.
        """
        if number < self._rows:
            raise changed(f"there are {number} now, and there were {self._rows} at least")


# folded: here began the module itself

_TEXTS = ("subject", "text", "html")
_RECIPIENTS = ("to", "cc", "bcc")
# What is right or wrong whatever the other fields hold.
_ALONE = ("subject", "priority", "headers")
_NOBODY = "nobody@corp.example"
_LABELS = {"to": "To", "cc": "Cc", "bcc": "Bcc", "reply_to": "Reply-To"}
_DIGEST_OCTETS = 16
_AS_JSON = json.JSONEncoder(sort_keys=True, default=str)


# A row, its number before it, and after it its key, or why it has none, and its mark.
_Keyed = tuple[int, Row | MessageError, str | None, MailError | None, bytes]


@dataclass(frozen=True, slots=True)
class InFlight:
    """A row whose mail is on its way.

    Args:
        number: from 1.
        key: what names it.
        mail: what was made of it.
        mark: the first octets of a digest of the key; see `record.MARK`.
        known: what earlier tries left of it.
    """

    number: int
    key: str
    mail: Mail
    mark: bytes
    known: Known


class RowMails:
    """An iterator of errands, one for each row of which a mail can be made, and that nobody has yet.

    Args:
        rows: opened.
        templates: the fields of the mail, settled, and `row_key`.
        tally: hears of the rows that make no mail, and of those that an earlier try has settled.
        addressed: gives a mail the connection's From and Reply-To where it has none.
        identity: what makes the mail of a row, by its key, this one and no other.
        past: what earlier tries left; None where nobody wrote it down.
    """

    def __init__(
        self,
        rows: Rows,
        templates: RowTemplates,
        *,
        tally: MergeTally,
        addressed: Callable[[Mail], Mail],
        identity: Callable[[str], Sequence[str]],
        past: Past | None = None,
    ) -> None:
        self._rows = rows
        self._addressed = addressed
        self._templates = templates
        self._tally = tally
        self._identity = identity
        self._past = past
        self._keys = RowKeys()
        #: What is on its way, by its index.
        self.in_flight: dict[int, InFlight] = {}
        #: Why the rows ended before their end.
        self.broken: MailError | None = None
        #: Whether they came to their end, or broke.
        self.ended = False
        # The rows from the next one on; the one before them; whether they are not those of an earlier try.
        self._following = self._keyed()
        self._latest: _Keyed | None = None
        self._changed = False

    def __iter__(self) -> Iterator[SendRequest]:
        """Take one row after the other; the index of an errand is the row's number less one."""
        number = 0
        try:
            for number, row, key, fault, mark in self._following:
                known: Known | None = NOTHING
                if self._past is not None:
                    self._latest = number, row, key, fault, mark
                    known = self._past.left(number, key, mark, partial(self._message_id, row, number, key))
                if known is None:
                    continue
                made = self._made(row, number, key, fault, known)
                if key is None or made is None:
                    if self._past is not None:
                        self._past.made_no_mail(number, mark, known)
                    continue
                errand = errand_of(number - 1, made, known)
                if errand is not None:
                    self.in_flight[number - 1] = InFlight(number, key, made, mark, known)
                    yield errand
                elif self._past is not None:
                    self._past.everybody_has_it(number)
            if self._past is not None and self.broken is None:
                self._past.check_end(number)
        except LedgerError as error:
            self.broken = error
            self._changed = True
        self.ended = True

    def name_doubts(self) -> None:
        """Name the rows that an earlier try left in doubt, and that this one, which is at its end, did not come to."""
        if self._past is None:
            return
        doubts = self._past.not_reached(named_before=self._changed)
        names = self._names_of(set(doubts.values()) - {None}) if self._changed else {}
        for number, mark in doubts.items():
            key, message_id = names.get(mark, (None, None))
            self._tally.left_in_doubt(number, key, message_id, moved=self._changed)

    def _names_of(self, marks: set[bytes | None]) -> dict[bytes | None, tuple[str, str | None]]:
        """The key and the Message-ID of each row with one of these marks, from the one that has changed on."""
        names: dict[bytes | None, tuple[str, str | None]] = {}
        for number, row, key, _, mark in chain(() if self._latest is None else (self._latest,), self._following):
            if len(names) == len(marks):
                break
            if key is not None and mark in marks:
                names[mark] = key, self._message_id(row, number, key)
        return names

    def _made(
        self, row: Row | MessageError, number: int, key: str | None, fault: MailError | None, known: Known
    ) -> Mail | None:
        """The mail of a row; None where there is none."""
        try:
            if key is None or isinstance(row, MessageError):
                assert fault is not None
                raise fault
            return self._mail(self._templates.fill_in(row, number), key)
        except MailError as error:
            accepted = known.rest.accepted
            if known.in_doubt:
                error = doubt("The mail of this row may have been delivered", error)
                self._tally.in_doubt(number, key, error, message_id=None, accepted=accepted)
            else:
                self._tally.made_no_mail(number, key, error, accepted=accepted)
            return None

    def mark(self, index: int) -> bytes:
        """What tells the row of an errand from others."""
        return self.in_flight[index].mark

    def _named(self, row: Row | MessageError, number: int) -> tuple[str | None, MailError | None]:
        """The row's key, or why it has none."""
        if isinstance(row, MessageError):
            return None, row
        try:
            return self._keys.claim(self._templates.key(row, number), row), None
        except MailError as error:
            return None, error

    def _keyed(self) -> Iterator[_Keyed]:
        for number, row in self._numbered():
            key, fault = self._named(row, number)
            # By its number too: many rows may have no key for the same reason.
            yield number, row, key, fault, digest_of(f"{number}: {fault}" if key is None else key)[:MARK]

    def _numbered(self) -> Iterator[tuple[int, Row | MessageError]]:
        number = 0
        try:
            for row in self._rows.items:
                number += 1
                yield number, row
        except MailError as error:
            self.broken = self.broken or error
        except Exception as error:  # noqa: BLE001 - rows may come from anywhere; what is on its way still ends
            self.broken = self.broken or MessageError(
                f"What gives the rows failed after row {number} ({type(error).__name__}: {error}).",
                remedy="Mend it, or write the rows to a file first.",
                retryable=True,
            )

    def _message_id(self, row: Row | MessageError, number: int, key: str | None) -> str | None:
        """Of the mail of a row; None where no mail can be made of it any more."""
        if key is None or isinstance(row, MessageError):
            return None
        try:
            return self._mail(self._templates.fill_in(row, number), key).message_id
        except MailError:
            return None

    def _mail(self, values: dict[str, Any], key: str) -> Mail:
        mail = self._addressed(Mail(**_as_arguments(values)))
        if mail.message_id is not None:
            return mail
        assert mail.from_address is not None
        return mail.with_identity(message_id=stable_message_id(mail.from_address.domain, *self._identity(key)))


class RowKeys:
    """What names a row across tries. Keeps 96 bits of a digest for each row, not its key; see `DigestSet`."""

    def __init__(self) -> None:
        self._seen = DigestSet()

    def claim(self, key: str | None, row: Row) -> str:
        """The row's own key, or else a digest of the row and how many like it came before.

        Raises:
            MessageError: the key is blank, or another row has it.
        """
        if key is None:
            digest = digest_of(_written(row))
            return digest.hex() if self._seen.add(digest) else self._next_copy(digest.hex())
        key = key.strip()
        if not key:
            raise MessageError("The row_key is blank.", remedy="Choose columns that are never empty.")
        if not self._seen.add(digest_of(key)):
            raise MessageError(
                f"Another row has the row_key {key!r} already.", remedy="Choose columns that tell any two rows apart."
            )
        return key

    def _next_copy(self, name: str) -> str:
        """The name of one more row like others; copies are numbered from 2, without a gap."""

        def is_taken(number: int) -> bool:
            return digest_of(f"{name}-{number}") in self._seen

        # Searched for, since a counter of each would cost a hundred octets.
        taken, free = 1, 2
        while is_taken(free):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if is_taken(middle) else (taken, middle)
        copy = f"{name}-{free}"
        self._seen.add(digest_of(copy))
        return copy


def _written(row: Row) -> str:
    try:
        return _AS_JSON.encode(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"The row cannot be told from others ({error}).", remedy="Give a 'row_key'.") from None


def digest_of(text: str) -> bytes:
    """Sixteen octets that no other text has."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_OCTETS).digest()


def settle(templates: RowTemplates, hook: SmtpConnectionManagerHook) -> None:
    """Parse what is the same in every mail once, and miss what is missing before anything is sent.

    Args:
        templates: their constants are replaced.
        hook: knows the sender of mails that name none.

    Raises:
        MailError: an address is none, a file is missing, or the connection cannot be used.
    """
    from airflow_provider_smtpcm.mail.address import parse_address, parse_addresses

    _ = hook.connection_manager  # what is wrong with it is wrong for every row
    constants, items = templates.constants, templates.constant_items
    for name in ("row_key", "message_id"):
        if constants.get(name) is not None:
            raise MessageError(f"'{name}' is the same for every row.", remedy="Name a column in it: '{{ row.id }}'.")
    if "from_address" in constants:
        sender = constants["from_address"]
        if sender is None or (isinstance(sender, str) and not sender.strip()):
            sender = hook.apply_defaults(Mail(to=_NOBODY)).from_address
        constants["from_address"] = parse_address(sender, field="From")
    for name, label in _LABELS.items():
        parse_addresses(items.get(name), field=label)
        if constants.get(name):
            constants[name] = parse_addresses(constants[name], field=label)
    if not any(constants.get(name, True) for name in _RECIPIENTS):
        raise MessageError("The mails have no recipient.", remedy="Fill in To, Cc or Bcc: to='{{ row.email }}'.")
    _settle_files(constants, items)
    Mail(to=_NOBODY, **_as_arguments({name: constants[name] for name in _ALONE if name in constants}))


def _settle_files(constants: dict[str, Any], items: Mapping[str, list[Any]]) -> None:
    from airflow_provider_smtpcm.mail.attachment import parse_attachments, parse_inline_images

    for name, parse in (("attachments", parse_attachments), ("inline_images", parse_inline_images)):
        if constants.get(name):
            constants[name] = parse(constants[name])
        for file in (*(constants.get(name) or ()), *parse_attachments(items.get(name))):
            file.size()


def _as_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Fields as `Mail` takes them: what is empty is left out, and what is text is text."""
    for name in _TEXTS:
        values[name] = as_text(values.get(name))
    headers = values.get("headers")
    if isinstance(headers, Mapping):
        values["headers"] = {name: as_text(value) or "" for name, value in headers.items()}
    return {name: value for name, value in values.items() if value}
