"""The mails of a merge: one send request for each row, except for the rows that an earlier attempt has settled.

A row is identified by its key, which is the same in every attempt. A row that cannot be turned into a mail is added to
the result, and the next one follows. Once a row is done, only a digest of its key is kept, in a temporary file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments import as_headers, as_text, is_empty
from airflow_provider_smtpcm.errors import LedgerError, MailError, MessageError, OutcomeUnknownError
from airflow_provider_smtpcm.ledger.journal import (
    in_doubt_error,
    not_resent_error,
    pending_addresses,
    pending_request,
)
from airflow_provider_smtpcm.ledger.ledger import UNSEEN, Ledger, PriorRow, rows_changed_error
from airflow_provider_smtpcm.ledger.merge import DigestSet
from airflow_provider_smtpcm.ledger.record import FINGERPRINT_OCTETS, NO_PROGRESS, Progress, RowState
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.headers import is_stable_message_id, stable_message_id
from airflow_provider_smtpcm.mail.tainted import find_unsendable_character, short_repr
from airflow_provider_smtpcm.merge.result import MergeResult
from airflow_provider_smtpcm.merge.rows import Row, Rows
from airflow_provider_smtpcm.merge.templates import RowTemplates
from airflow_provider_smtpcm.smtp.queue import SendRequest

if TYPE_CHECKING:
    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager

_TEXT_FIELDS = ("subject", "text", "html")
_RECIPIENT_FIELDS = ("to", "cc", "bcc")
# Fields whose validity does not depend on other fields.
_INDEPENDENT_FIELDS = ("subject", "priority", "headers")
_PLACEHOLDER_RECIPIENT = "nobody@corp.example"
_FIELD_LABELS = {"to": "To", "cc": "Cc", "bcc": "Bcc", "reply_to": "Reply-To"}
_DIGEST_OCTETS = 16
_JSON_ENCODER = json.JSONEncoder(sort_keys=True, default=str)
# The outcome of a row that an earlier attempt has settled.
_SETTLED_OUTCOMES = {
    RowState.ACCEPTED: "accepted",
    RowState.PARTIAL: "partial",
    RowState.REFUSED: "refused",
    RowState.UNKNOWN: "unknown",
    RowState.OPEN: "unknown",
}
# The number of a row (from 1), the row, its key, the error if it has no key, and its fingerprint.
_KeyedRow = tuple[int, Row | MessageError, str | None, MailError | None, bytes]


@dataclass(frozen=True, slots=True)
class InFlightRow:
    """A row whose mail is in flight: it has no result yet.

    Args:
        number: the row's number, from 1.
        key: identifies the row in every attempt.
        mail: the mail rendered from the row.
        fingerprint: the first octets of a digest of the key.
        prior: what earlier attempts recorded for the row.
    """

    number: int
    key: str
    mail: Mail
    fingerprint: bytes
    prior: PriorRow


class RowMails:
    """Iterates over the send requests of a merge.

    Args:
        rows: the rows; they are read once.
        templates: the fields of the mail, and `row_key`, after `resolve_constants`.
        result: receives the rows that get no request: those that cannot be turned into a mail, and those that an
            earlier attempt has settled.
        auto_generated: as in `Mail`, for every mail.
        apply_defaults: returns a mail with the connection's From, Reply-To and envelope sender if it has none.
        identity: returns the parts of a row's Message-ID, given the row's key; see `stable_message_id`.
        prior: the earlier attempts; None before Airflow 3.3, which introduced the task state store.
    """

    def __init__(
        self,
        rows: Rows,
        templates: RowTemplates,
        *,
        result: MergeResult,
        auto_generated: bool = True,
        apply_defaults: Callable[[Mail], Mail],
        identity: Callable[[str], Sequence[str]],
        prior: PriorAttempts | None = None,
    ) -> None:
        self._rows = rows
        self._auto_generated = auto_generated
        self._apply_defaults = apply_defaults
        self._templates = templates
        self._result = result
        self._identity = identity
        self._prior = prior
        self._keys = RowKeys()
        #: The rows whose mails are in flight, by their index.
        self.in_flight: dict[int, InFlightRow] = {}
        #: Why not all rows were read; None if there was no error.
        self.failure: MailError | None = None
        #: Whether the last row was read, or reading failed.
        self.is_exhausted = False
        self._remaining = self._keyed_rows()
        # The latest row of `_remaining` that an earlier attempt has reached.
        self._current: _KeyedRow | None = None
        # Whether the rows differ from those of an earlier attempt.
        self._has_changed = False

    def __iter__(self) -> Iterator[SendRequest]:
        """Yield the requests. The index of a request is the number of its row minus 1."""
        number = 0
        try:
            for number, row, key, key_error, fingerprint in self._remaining:
                prior: PriorRow | None = UNSEEN
                if self._prior is not None and number <= self._prior.rows_seen:
                    self._current = number, row, key, key_error, fingerprint
                    prior = self._prior.resume(number, key, fingerprint, partial(self._try_render, row, number, key))
                if prior is None:
                    continue
                mail = self._make_mail(row, number, key, key_error, prior)
                if key is None or mail is None:
                    if self._prior is not None:
                        self._prior.record_failed(number, fingerprint, prior)
                    continue
                request = pending_request(number - 1, mail, prior)
                if request is not None:
                    self.in_flight[number - 1] = InFlightRow(number, key, mail, fingerprint, prior)
                    yield request
                elif self._prior is not None:
                    self._prior.record_accepted(number, key, mail)
            if self._prior is not None and self.failure is None:
                self._prior.check_row_count(number)
        except MailError as error:  # the rows have changed; or no digest can be stored, so that a key might repeat
            self.failure = error
            self._has_changed = isinstance(error, LedgerError)
        self.is_exhausted = True

    def preview(self, numbers: Collection[int]) -> Iterator[tuple[int, Mail | MailError]]:
        """Yield the mails of some rows without requests for them, in the order of the rows.

        Args:
            numbers: the numbers of the rows, from 1; no row after the last of them is read.

        Yields:
            The number of a row, and its mail; or the error because of which it has none.

        Raises:
            MailError: the rows cannot be read.
        """
        last = max(numbers, default=0)
        for number, row, key, key_error, _ in self._remaining if last else ():
            if number in numbers:
                try:
                    yield number, self._render_keyed(row, number, key, key_error)
                except MailError as error:
                    yield number, error
            if number >= last:
                return
        if self.failure is not None:
            raise self.failure

    def fingerprint(self, index: int) -> bytes:
        """Return the fingerprint of the row in flight with this index."""
        return self.in_flight[index].fingerprint

    def add_unreached_rows(self) -> None:
        """Add to the result the rows that an earlier attempt left in doubt and this one did not reach."""
        if self._prior is None:
            return
        fingerprints = self._prior.find_unreached(include_reported=self._has_changed)
        names = self._find_rows(set(fingerprints.values()) - {None}) if self._has_changed else {}
        for number, fingerprint in fingerprints.items():
            key, mail = names.get(fingerprint, (None, None))
            self._prior.add_left_in_doubt(number, key, mail, has_moved=self._has_changed)

    def _find_rows(self, fingerprints: set[bytes | None]) -> dict[bytes | None, tuple[str, Mail | None]]:
        """Return the key and the mail of each row with one of these fingerprints, from the current row on."""
        names: dict[bytes | None, tuple[str, Mail | None]] = {}
        latest = () if self._current is None else (self._current,)
        for number, row, key, _, fingerprint in chain(latest, self._remaining):
            if len(names) == len(fingerprints):
                break
            if key is not None and fingerprint in fingerprints:
                names[fingerprint] = key, self._try_render(row, number, key)
        return names

    def _keyed_rows(self) -> Iterator[_KeyedRow]:
        for number, row in self._numbered_rows():
            key, error = self._make_key(row, number)
            # A row without a key is identified by its number and error, since many rows may have the same error.
            identifier = f"{number}: {error}" if key is None else key
            yield number, row, key, error, compute_digest(identifier)[:FINGERPRINT_OCTETS]

    def _numbered_rows(self) -> Iterator[tuple[int, Row | MessageError]]:
        number = 0
        try:
            for row in self._rows.items:
                number += 1
                yield number, row
        except MailError as error:
            self.failure = self.failure or error
        except Exception as error:  # noqa: BLE001 - any iterable may be the source, and mails in flight still finish
            self.failure = self.failure or MessageError(
                f"The source of the rows failed after row {number} ({type(error).__name__}: {error}).",
                remedy="Fix the source, or write the rows to a file first.",
                retryable=True,
            )

    def _make_key(self, row: Row | MessageError, number: int) -> tuple[str | None, MailError | None]:
        """Return the key of a row and None; or, if it has no key, None and the error."""
        if isinstance(row, MessageError):
            return None, row
        try:
            return self._keys.claim(self._templates.render_key(row, number), row), None
        except MessageError as error:
            return None, error

    def _make_mail(
        self, row: Row | MessageError, number: int, key: str | None, key_error: MailError | None, prior: PriorRow
    ) -> Mail | None:
        """Return the mail of a row, or None if it cannot be made; the error is then added to the result."""
        try:
            return self._render_keyed(row, number, key, key_error)
        except MailError as error:
            if prior.is_in_doubt:
                error = in_doubt_error("The mail of this row may have been delivered", error, prior.progress)
                self._result.add_unknown(number, key, error, message_id=None, progress=prior.progress)
            else:
                self._result.add_failed(number, key, error, accepted=prior.progress.accepted)
            return None

    def _try_render(self, row: Row | MessageError, number: int, key: str | None) -> Mail | None:
        """Return the mail of a row that an earlier attempt has reached, or None if it can no longer be made."""
        if key is None or isinstance(row, MessageError):
            return None
        try:
            return self._render(row, number, key)
        except MailError:
            return None

    def _render_keyed(self, row: Row | MessageError, number: int, key: str | None, key_error: MailError | None) -> Mail:
        if key is None or isinstance(row, MessageError):
            assert key_error is not None
            raise key_error
        return self._render(row, number, key)

    def _render(self, row: Row, number: int, key: str) -> Mail:
        arguments = _make_arguments(self._templates.render(row, number))
        mail = self._apply_defaults(Mail(**arguments, auto_generated=self._auto_generated))
        if mail.message_id is not None:
            return mail
        assert mail.from_address is not None
        return mail.with_identity(message_id=stable_message_id(mail.from_address.domain, *self._identity(key)))


class PriorAttempts:
    """Resumes a merge: decides which rows are still pending after its earlier attempts.

    Args:
        ledger: the task's ledger.
        result: receives the rows that are settled.
        retry_unknown: whether a mail that may have been delivered is sent again, with the same Message-ID.
    """

    def __init__(self, ledger: Ledger, result: MergeResult, *, retry_unknown: bool) -> None:
        self._ledger = ledger
        self._result = result
        self._retry_unknown = retry_unknown
        #: How many rows earlier attempts have reached.
        self.rows_seen = ledger.rows_seen
        # The rows in doubt that this attempt has not reached.
        self._unreached = set(ledger.rows_in_doubt)

    def resume(
        self, number: int, key: str | None, fingerprint: bytes, try_render: Callable[[], Mail | None]
    ) -> PriorRow | None:
        """Return what earlier attempts recorded for a pending row. A settled row is added to the result: returns None.

        Args:
            number: the row's number, from 1 to `rows_seen`.
            key: the row's key; None: it has none.
            fingerprint: the row's fingerprint.
            try_render: returns its mail; None: the mail can no longer be made.

        Raises:
            LedgerError: an earlier attempt had a different row with this number.
        """
        row = self._ledger.prior(number - 1, fingerprint)
        self._unreached.discard(number - 1)
        if row is None or row.state in (RowState.RETRY, RowState.FAILED):
            return row or UNSEEN
        if row.is_in_doubt and self._retry_unknown:
            return row
        if row.state is not RowState.OPEN:
            self._add_settled(number, key, row.state, row.progress, try_render)
            return None
        self.add_left_in_doubt(number, key, try_render())
        # Recorded last: if this attempt is interrupted before that, the next one adds the row to its report.
        self._ledger.record(number - 1, RowState.UNKNOWN, self._ledger.rows_in_doubt[number - 1])
        return None

    def add_left_in_doubt(self, number: int, key: str | None, mail: Mail | None, *, has_moved: bool = False) -> None:
        """Add a row to the result that an earlier attempt reserved, and whose outcome is not known.

        Args:
            number: the row's number in that attempt, from 1.
            key: its key; None: not known.
            mail: its mail; None: not known.
            has_moved: whether this number may now be another row's, so that the error has to name the key too.
        """
        progress = self._ledger.rows_in_doubt[number - 1]
        state = RowState.OPEN if self._ledger.is_open(number - 1) else RowState.UNKNOWN
        self._result.add_left_in_doubt(
            number,
            key,
            _not_resent_error(state, progress, mail, key if has_moved else None),
            message_id=None if mail is None else mail.message_id,
            progress=progress,
        )

    def _add_settled(
        self,
        number: int,
        key: str | None,
        state: RowState,
        progress: Progress,
        try_render: Callable[[], Mail | None],
    ) -> None:
        outcome = _SETTLED_OUTCOMES[state]
        is_unknown = state is RowState.UNKNOWN
        if is_unknown:
            progress = self._ledger.rows_in_doubt[number - 1]  # with the refusals that a clear has reset
        self._result.add_settled(number, outcome, _not_resent_error(state, progress) if is_unknown else None)
        if not self._result.is_line_missing(number, key, outcome):
            return
        mail = try_render()
        # The ledger does not name the recipients of a mail that all of them have.
        has_all = mail is not None and state is RowState.ACCEPTED
        self._result.restore_line(
            number,
            key,
            outcome,
            message_id=None if mail is None else mail.message_id,
            accepted=[address.address for address in mail.recipients] if mail and has_all else progress.accepted,
            rejected=progress.rejected,
            error=_not_resent_error(state, progress, mail) if is_unknown else None,
        )

    def find_unreached(self, *, include_reported: bool) -> dict[int, bytes | None]:
        """Return the rows in doubt that this attempt did not reach: their numbers, with fingerprints if known.

        Args:
            include_reported: whether to include those that an earlier attempt has already reported.
        """
        return {
            row + 1: self._ledger.fingerprint(row)
            for row in sorted(self._unreached)
            if include_reported or self._ledger.is_open(row)
        }

    def record_failed(self, number: int, fingerprint: bytes, prior: PriorRow) -> None:
        """Record that a row cannot be turned into a mail, unless an earlier attempt may have delivered its mail."""
        if not prior.progress.accepted and not prior.is_in_doubt:
            self._ledger.record(number - 1, RowState.FAILED, fingerprint=fingerprint)

    def record_accepted(self, number: int, key: str, mail: Mail) -> None:
        """Record that every recipient of a row's mail has it."""
        self._ledger.record(number - 1, RowState.ACCEPTED)
        self._add_settled(number, key, RowState.ACCEPTED, NO_PROGRESS, lambda: mail)

    def check_row_count(self, number: int) -> None:
        """Check that there are at least as many rows as in earlier attempts.

        Args:
            number: the number of the last row; 0: there is none.

        Raises:
            LedgerError: there are fewer.
        """
        if number < self.rows_seen:
            raise rows_changed_error(f"there were at least {self.rows_seen}, and now there are {number}")


def _not_resent_error(
    state: RowState, progress: Progress, mail: Mail | None = None, key: str | None = None
) -> OutcomeUnknownError:
    """Return the error for a row in doubt; see `not_resent_error`.

    Args:
        state: its state.
        progress: its recipient progress.
        mail: its mail; None: not known.
        key: its key, if the number does not identify the row; else None.
    """
    name = f"The mail {mail.message_id}" if mail is not None and mail.message_id else "Its mail"
    in_doubt = () if mail is None else pending_addresses(mail, progress)
    return not_resent_error(f"{name}{f' of the row {key!r}' if key else ''}", PriorRow(state, progress), in_doubt)


class RowKeys:
    """The keys that identify rows in every attempt. Only a digest of each is kept; see `DigestSet`."""

    def __init__(self) -> None:
        self._seen = DigestSet()

    def claim(self, key: str | None, row: Row) -> str:
        """Return the key of a row, and reserve it for this row.

        Args:
            key: the rendered `row_key`; None: the key is a digest of the row, followed by a number if an earlier row is
                equal.
            row: the row.

        Raises:
            MessageError: the key is blank or contains a NUL or a lone surrogate, or an earlier row has it.
            MailError: the digest cannot be stored.
        """
        if key is None:
            digest = compute_digest(_serialize_row(row))
            return digest.hex() if self._seen.add(digest) else self._next_copy(digest.hex())
        key = key.strip()
        if not key:
            raise MessageError("The row_key is blank.", remedy="Choose columns that are never empty.")
        if character := find_unsendable_character(key):
            # The result names the row, and Airflow's database may refuse the whole result for it (PostgreSQL does).
            raise MessageError(
                f"The row_key {short_repr(key)} contains {character}, which no text may contain.",
                remedy="Correct the value, or choose other columns.",
            )
        if not self._seen.add(compute_digest(key)):
            raise MessageError(
                f"Another row already has the row_key {key!r}.",
                remedy="Choose columns whose values together are unique.",
            )
        return key

    def _next_copy(self, name: str) -> str:
        """Return the key of a row that equals earlier ones; copies are numbered from 2, without gaps."""

        def is_taken(number: int) -> bool:
            return compute_digest(f"{name}-{number}") in self._seen

        # An exponential and then a binary search, since a counter for each row would take a hundred octets.
        taken, free = 1, 2
        while is_taken(free):
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if is_taken(middle) else (taken, middle)
        copy = f"{name}-{free}"
        self._seen.add(compute_digest(copy))
        return copy


def _serialize_row(row: Row) -> str:
    try:
        return _JSON_ENCODER.encode(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageError(
            f"The row has no key, since it cannot be written as JSON ({error}).", remedy="Set 'row_key'."
        ) from None


def is_line_of_run(identity: Callable[[str], Sequence[str]], key: str | None, message_id: str | None) -> bool:
    """Whether a line of a report may be of this run; a line without a Message-ID may be of any.

    Args:
        identity: as in `RowMails`; the mails have no Message-ID of the DAG's author.
        key: the key in the line; None: it has none.
        message_id: the Message-ID in the line; None: it has none.
    """
    return key is None or message_id is None or is_stable_message_id(message_id, *identity(key))


def compute_digest(text: str) -> bytes:
    """Return a digest of 16 octets."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_OCTETS).digest()


def resolve_constants(templates: RowTemplates, manager: SmtpConnectionManager) -> None:
    """Parse the values that are the same in every mail, so that an error in them is found before anything is sent.

    Args:
        templates: their constants are replaced by the parsed values.
        manager: the connection, for its From address.

    Raises:
        MailError: an address is invalid, or a file is missing.
    """
    from airflow_provider_smtpcm.mail.address_list import parse_address, parse_addresses
    from airflow_provider_smtpcm.mail.message import parse_envelope_from
    from airflow_provider_smtpcm.smtp.queue import apply_defaults

    constants, items = templates.constants, templates.constant_items
    for name in ("row_key", "message_id"):
        if constants.get(name) is not None:
            raise MessageError(f"'{name}' is the same for every row.", remedy="Use a column in it: '{{ row.id }}'.")
    if "from_address" in constants:
        sender = constants["from_address"]
        if sender is None or (isinstance(sender, str) and not sender.strip()):
            sender = apply_defaults(Mail(to=_PLACEHOLDER_RECIPIENT), manager).from_address
        constants["from_address"] = parse_address(sender, field="From")
    if constants.get("envelope_from"):
        constants["envelope_from"] = parse_envelope_from(constants["envelope_from"])
    for name, label in _FIELD_LABELS.items():
        parse_addresses(items.get(name), field=label)
        if not is_empty(constants.get(name)):
            constants[name] = parse_addresses(constants[name], field=label)
    if not any(constants.get(name, True) for name in _RECIPIENT_FIELDS):
        raise MessageError("The mails have no recipient.", remedy="Set 'to', 'cc' or 'bcc': to='{{ row.email }}'.")
    _resolve_files(constants, items)
    independent = {name: constants[name] for name in _INDEPENDENT_FIELDS if name in constants}
    Mail(to=_PLACEHOLDER_RECIPIENT, **_make_arguments(independent))


def _resolve_files(constants: dict[str, Any], items: Mapping[str, list[Any]]) -> None:
    from airflow_provider_smtpcm.mail.attachment import is_content, parse_attachments, parse_inline_images

    for name, parse in (("attachments", parse_attachments), ("inline_images", parse_inline_images)):
        if not is_empty(constants.get(name)):
            constants[name] = parse(constants[name])
        # A content in a mapping has its name there, not among the items.
        paths = [item for item in items.get(name, ()) if not is_content(item)]
        for file in (*(constants.get(name) or ()), *parse_attachments(paths)):
            file.size()


def _make_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields as arguments of `Mail`: without empty ones, and with texts as `str`."""
    for name in _TEXT_FIELDS:
        values[name] = as_text(values.get(name))
    if "headers" in values:
        values["headers"] = as_headers(values["headers"])
    return {name: value for name, value in values.items() if not is_empty(value)}
