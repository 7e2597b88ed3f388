"""The mails of a merge: each row rendered, under a key that is the same in every attempt, unless it is settled already.

A row of which no mail can be made goes to the result, and the others follow. Of a row that is done only a digest of its
key is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments.values import as_headers, as_text
from airflow_provider_smtpcm.errors import LedgerError, MailError, MessageError
from airflow_provider_smtpcm.ledger.journal import in_doubt_error, pending_request
from airflow_provider_smtpcm.ledger.ledger import UNSEEN, Ledger, PriorRow, rows_changed_error
from airflow_provider_smtpcm.ledger.record import FINGERPRINT_OCTETS, DigestSet, RowState
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.headers import stable_message_id
from airflow_provider_smtpcm.merge.result import MergeResult
from airflow_provider_smtpcm.merge.rows import Row, Rows
from airflow_provider_smtpcm.merge.templates import RowTemplates
from airflow_provider_smtpcm.smtp.queue import SendRequest

if TYPE_CHECKING:
    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager

_TEXTS = ("subject", "text", "html")
_RECIPIENTS = ("to", "cc", "bcc")
# Fields that are right or wrong whatever the others hold.
_INDEPENDENT = ("subject", "priority", "headers")
_ANY_RECIPIENT = "nobody@corp.example"
_LABELS = {"to": "To", "cc": "Cc", "bcc": "Bcc", "reply_to": "Reply-To"}
_DIGEST_OCTETS = 16
_AS_JSON = json.JSONEncoder(sort_keys=True, default=str)
# The outcome that a row counts as where it is left as it is.
_OUTCOMES = {
    RowState.ACCEPTED: "accepted",
    RowState.PARTIAL: "partial",
    RowState.REFUSED: "refused",
    RowState.UNKNOWN: "unknown",
    RowState.OPEN: "unknown",
}

# The number of a row, from 1; the row; its key, or the error for which it has none; and its fingerprint.
_KeyedRow = tuple[int, Row | MessageError, str | None, MailError | None, bytes]


@dataclass(frozen=True, slots=True)
class InFlight:
    """A row whose mail was passed on and has no delivery yet.

    Args:
        number: from 1.
        key: what identifies it.
        mail: what was made of it.
        fingerprint: the first octets of a digest of the key.
        prior: what earlier attempts left of it.
    """

    number: int
    key: str
    mail: Mail
    fingerprint: bytes
    prior: PriorRow


class RowMails:
    """Iterates over the send requests of a merge: one for each row of which a mail can be made and that is not settled.

    Args:
        rows: opened.
        templates: the fields of the mail, and `row_key`, after `resolve_constants`.
        result: gets the rows of which no mail can be made, and those that an earlier attempt has settled.
        apply_defaults: returns a mail with the connection's From and Reply-To where it has none.
        identity: returns what makes the mail of a row unique, by the row's key; see `stable_message_id`.
        prior: what earlier attempts left; None: this Airflow stores nothing.
    """

    def __init__(
        self,
        rows: Rows,
        templates: RowTemplates,
        *,
        result: MergeResult,
        apply_defaults: Callable[[Mail], Mail],
        identity: Callable[[str], Sequence[str]],
        prior: PriorAttempts | None = None,
    ) -> None:
        self._rows = rows
        self._apply_defaults = apply_defaults
        self._templates = templates
        self._result = result
        self._identity = identity
        self._prior = prior
        self._keys = RowKeys()
        #: The rows whose mails are in flight, by their index.
        self.in_flight: dict[int, InFlight] = {}
        #: Why the rows ended early.
        self.failure: MailError | None = None
        #: Whether the rows came to their end, or failed.
        self.is_exhausted = False
        # The rows from the next one on; the one before them; whether they are not those of an earlier attempt.
        self._remaining = self._keyed_rows()
        self._latest: _KeyedRow | None = None
        self._has_changed = False

    def __iter__(self) -> Iterator[SendRequest]:
        """Take one row after the other; the index of a request is the row's number less one."""
        number = 0
        try:
            for number, row, key, fault, fingerprint in self._remaining:
                prior: PriorRow | None = UNSEEN
                if self._prior is not None:
                    self._latest = number, row, key, fault, fingerprint
                    message_id = partial(self._message_id, row, number, key)
                    prior = self._prior.unsettled(number, key, fingerprint, message_id)
                if prior is None:
                    continue
                mail = self._make_mail(row, number, key, fault, prior)
                if key is None or mail is None:
                    if self._prior is not None:
                        self._prior.record_failed(number, fingerprint, prior)
                    continue
                request = pending_request(number - 1, mail, prior)
                if request is not None:
                    self.in_flight[number - 1] = InFlight(number, key, mail, fingerprint, prior)
                    yield request
                elif self._prior is not None:
                    self._prior.record_accepted(number)
            if self._prior is not None and self.failure is None:
                self._prior.check_end(number)
        except LedgerError as error:
            self.failure = error
            self._has_changed = True
        self.is_exhausted = True

    def fingerprint(self, index: int) -> bytes:
        """Return the fingerprint of a row in flight by its index."""
        return self.in_flight[index].fingerprint

    def add_rows_not_reached(self) -> None:
        """Add to the result, at the end, the rows that an earlier attempt left in doubt and this one did not reach."""
        if self._prior is None:
            return
        fingerprints = self._prior.not_reached(include_reported=self._has_changed)
        names = self._find_rows(set(fingerprints.values()) - {None}) if self._has_changed else {}
        for number, fingerprint in fingerprints.items():
            key, message_id = names.get(fingerprint, (None, None))
            self._result.add_left_in_doubt(number, key, message_id, has_moved=self._has_changed)

    def _find_rows(self, fingerprints: set[bytes | None]) -> dict[bytes | None, tuple[str, str | None]]:
        """Return the key and the Message-ID of each row with one of these fingerprints, from the changed one on."""
        names: dict[bytes | None, tuple[str, str | None]] = {}
        latest = () if self._latest is None else (self._latest,)
        for number, row, key, _, fingerprint in chain(latest, self._remaining):
            if len(names) == len(fingerprints):
                break
            if key is not None and fingerprint in fingerprints:
                names[fingerprint] = key, self._message_id(row, number, key)
        return names

    def _keyed_rows(self) -> Iterator[_KeyedRow]:
        for number, row in self._numbered_rows():
            key, fault = self._key_of(row, number)
            # Without a key, by its number too: many rows may have none for the same reason.
            named = f"{number}: {fault}" if key is None else key
            yield number, row, key, fault, digest_of(named)[:FINGERPRINT_OCTETS]

    def _numbered_rows(self) -> Iterator[tuple[int, Row | MessageError]]:
        number = 0
        try:
            for row in self._rows.items:
                number += 1
                yield number, row
        except MailError as error:
            self.failure = self.failure or error
        except Exception as error:  # noqa: BLE001 - rows may come from anywhere; mails in flight still finish
            self.failure = self.failure or MessageError(
                f"The source of the rows failed after row {number} ({type(error).__name__}: {error}).",
                remedy="Fix it, or write the rows to a file first.",
                retryable=True,
            )

    def _key_of(self, row: Row | MessageError, number: int) -> tuple[str | None, MailError | None]:
        """Return the key of a row, or the error for which it has none."""
        if isinstance(row, MessageError):
            return None, row
        try:
            return self._keys.claim(self._templates.render_key(row, number), row), None
        except MailError as error:
            return None, error

    def _make_mail(
        self, row: Row | MessageError, number: int, key: str | None, fault: MailError | None, prior: PriorRow
    ) -> Mail | None:
        """Return the mail of a row; None: there is none, which is in the result."""
        try:
            if key is None or isinstance(row, MessageError):
                assert fault is not None
                raise fault
            return self._render(row, number, key)
        except MailError as error:
            accepted = prior.progress.accepted
            if prior.is_in_doubt:
                error = in_doubt_error("The mail of this row may have been delivered", error)
                self._result.add_unknown(number, key, error, message_id=None, accepted=accepted)
            else:
                self._result.add_failed(number, key, error, accepted=accepted)
            return None

    def _message_id(self, row: Row | MessageError, number: int, key: str | None) -> str | None:
        """Return the Message-ID of a row's mail; None: no mail can be made of it any more."""
        if key is None or isinstance(row, MessageError):
            return None
        try:
            return self._render(row, number, key).message_id
        except MailError:
            return None

    def _render(self, row: Row, number: int, key: str) -> Mail:
        mail = self._apply_defaults(Mail(**_as_arguments(self._templates.render(row, number))))
        if mail.message_id is not None:
            return mail
        assert mail.from_address is not None
        return mail.with_identity(message_id=stable_message_id(mail.from_address.domain, *self._identity(key)))


class PriorAttempts:
    """Tells rows that earlier attempts of a merge have settled from those that are pending.

    Args:
        ledger: open.
        result: gets the rows that are settled.
        retry_unknown: whether a mail that may have been delivered is sent again, with the same Message-ID.
    """

    def __init__(self, ledger: Ledger, result: MergeResult, *, retry_unknown: bool) -> None:
        self._ledger = ledger
        self._result = result
        self._retry_unknown = retry_unknown
        self._rows_seen = ledger.rows_seen
        # The rows in doubt that this attempt has not reached.
        self._not_reached = set(ledger.rows_in_doubt)

    def unsettled(
        self, number: int, key: str | None, fingerprint: bytes, message_id: Callable[[], str | None]
    ) -> PriorRow | None:
        """Return what is known of a row that is to be sent; None: it is settled, which is in the result.

        Args:
            number: of the row, from 1.
            key: what identifies it.
            fingerprint: of the row.
            message_id: returns that of its mail.

        Raises:
            LedgerError: an earlier attempt met another row in this place.
        """
        if number > self._rows_seen:
            return UNSEEN
        row = self._ledger.prior(number - 1, fingerprint)
        self._not_reached.discard(number - 1)
        if row is None or row.state in (RowState.RETRY, RowState.FAILED):
            return row or UNSEEN
        if row.is_in_doubt and self._retry_unknown:
            return row
        if row.state is not RowState.OPEN:
            self._result.add_settled(number, _OUTCOMES[row.state])
            return None
        self._result.add_left_in_doubt(number, key, message_id())
        # Recorded last: a row that was not reported yet is reported by the next attempt.
        self._ledger.record(number - 1, RowState.UNKNOWN, row.progress)
        return None

    def not_reached(self, *, include_reported: bool) -> dict[int, bytes | None]:
        """Return the rows in doubt that this attempt has not reached: their numbers, and fingerprints if known.

        Args:
            include_reported: also those that an earlier attempt has reported.
        """
        return {
            row + 1: self._ledger.fingerprint(row)
            for row in sorted(self._not_reached)
            if include_reported or self._ledger.is_open(row)
        }

    def record_failed(self, number: int, fingerprint: bytes, prior: PriorRow) -> None:
        """Record that no mail can be made of a row; the record of one that may have been delivered stays."""
        if not prior.progress.accepted and not prior.is_in_doubt:
            self._ledger.record(number - 1, RowState.FAILED, fingerprint=fingerprint)

    def record_accepted(self, number: int) -> None:
        """Record that none of a row's recipients lacks its mail."""
        self._ledger.record(number - 1, RowState.ACCEPTED)
        self._result.add_settled(number, "accepted")

    def check_end(self, number: int) -> None:
        """Check that earlier attempts met no more rows than there are now.

        Args:
            number: of the last row.

        Raises:
            LedgerError: they met more.
        """
        if number < self._rows_seen:
            raise rows_changed_error(f"there are {number} now, and there were {self._rows_seen} at least")


class RowKeys:
    """What identifies rows across attempts. Of each row 96 bits of a digest are kept, not its key; see `DigestSet`."""

    def __init__(self) -> None:
        self._seen = DigestSet()

    def claim(self, key: str | None, row: Row) -> str:
        """Return the key of a row.

        Args:
            key: the rendered `row_key`; None: a digest of the row and the number of equal rows before it.
            row: the row.

        Raises:
            MessageError: the key is blank, or an earlier row has it.
        """
        if key is None:
            digest = digest_of(_row_as_text(row))
            return digest.hex() if self._seen.add(digest) else self._next_copy(digest.hex())
        key = key.strip()
        if not key:
            raise MessageError("The row_key is blank.", remedy="Choose columns that are never empty.")
        if not self._seen.add(digest_of(key)):
            raise MessageError(
                f"Another row has the row_key {key!r} already.",
                remedy="Choose columns that together differ between any two rows.",
            )
        return key

    def _next_copy(self, name: str) -> str:
        """Return the key of a row that equals others; copies are numbered from 2, without a gap."""

        def is_taken(number: int) -> bool:
            return digest_of(f"{name}-{number}") in self._seen

        # A search, since a counter for each row would take a hundred octets.
        taken, free = 1, 2
        while is_taken(free):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if is_taken(middle) else (taken, middle)
        copy = f"{name}-{free}"
        self._seen.add(digest_of(copy))
        return copy


def _row_as_text(row: Row) -> str:
    try:
        return _AS_JSON.encode(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"The row cannot be told from others ({error}).", remedy="Give a 'row_key'.") from None


def digest_of(text: str) -> bytes:
    """Return a digest of 16 octets."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_OCTETS).digest()


def resolve_constants(templates: RowTemplates, manager: SmtpConnectionManager) -> None:
    """Parse once what is the same in every mail, so that a fault in it is found before anything is sent.

    Args:
        templates: their constants are replaced by parsed ones.
        manager: has the sender for mails without one.

    Raises:
        MailError: an address is invalid, or a file is missing.
    """
    from airflow_provider_smtpcm.mail.address import parse_address, parse_addresses
    from airflow_provider_smtpcm.smtp.queue import apply_defaults

    constants, items = templates.constants, templates.constant_items
    for name in ("row_key", "message_id"):
        if constants.get(name) is not None:
            raise MessageError(f"'{name}' is the same for every row.", remedy="Name a column in it: '{{ row.id }}'.")
    if "from_address" in constants:
        sender = constants["from_address"]
        if sender is None or (isinstance(sender, str) and not sender.strip()):
            sender = apply_defaults(Mail(to=_ANY_RECIPIENT), manager).from_address
        constants["from_address"] = parse_address(sender, field="From")
    for name, label in _LABELS.items():
        parse_addresses(items.get(name), field=label)
        if constants.get(name):
            constants[name] = parse_addresses(constants[name], field=label)
    if not any(constants.get(name, True) for name in _RECIPIENTS):
        raise MessageError("The mails have no recipient.", remedy="Fill in To, Cc or Bcc: to='{{ row.email }}'.")
    _resolve_files(constants, items)
    independent = {name: constants[name] for name in _INDEPENDENT if name in constants}
    Mail(to=_ANY_RECIPIENT, **_as_arguments(independent))


def _resolve_files(constants: dict[str, Any], items: Mapping[str, list[Any]]) -> None:
    from airflow_provider_smtpcm.mail.attachment import parse_attachments, parse_inline_images

    for name, parse in (("attachments", parse_attachments), ("inline_images", parse_inline_images)):
        if constants.get(name):
            constants[name] = parse(constants[name])
        for file in (*(constants.get(name) or ()), *parse_attachments(items.get(name))):
            file.size()


def _as_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Return fields as `Mail` takes them: without empty ones, and texts as text."""
    for name in _TEXTS:
        values[name] = as_text(values.get(name))
    if values.get("headers"):
        values["headers"] = as_headers(values["headers"])
    return {name: value for name, value in values.items() if value}
