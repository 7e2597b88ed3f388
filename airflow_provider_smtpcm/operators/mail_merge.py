"""Mail merge as an Airflow operator: one task sends a mail for each row, over a few connections."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_provider_smtpcm.arguments.values import (
    DEFAULT_RETRY_FOR,
    check_choice,
    check_not_negative,
    check_positive_int,
    check_positive_or_none,
)
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.merge.rows import STORAGE_REMEDY, is_path, open_rows
from airflow_provider_smtpcm.merge.templates import deferred, undeferred
from airflow_provider_smtpcm.operators._rendering import RenderedOperator
from airflow_provider_smtpcm.operators._task import (
    Attempt,
    Stoppable,
    airflow_error,
    at_most_once,
    locked,
    retry_budget,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow.sdk import Context

    from airflow_provider_smtpcm.ledger.journal import LedgerJournal
    from airflow_provider_smtpcm.operators._rendering import (
        AddressArgument,
        AddressesArgument,
        AttachmentsArgument,
        HeadersArgument,
        InlineImagesArgument,
        PriorityArgument,
        TextArgument,
    )
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.delivery import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest

log = logging.getLogger(__name__)

#: The fields of each mail: templates over `row`, which Airflow must not render before there is a row.
ROW_FIELDS = (
    "from_address",
    "to",
    "cc",
    "bcc",
    "reply_to",
    "subject",
    "text",
    "html",
    "text_file",
    "html_file",
    "attachments",
    "inline_images",
    "priority",
    "headers",
    "message_id",
    "row_key",
)


class MailMergeOperator(Stoppable, RenderedOperator):
    """Send one mail for each row, through an SMTP connection manager, and return the result.

    The fields of the mail are those of `SendMailOperator`, as templates over `row` (`{{ row.name }}`, or
    `{{ row["First name"] }}`) and `row_number` (from 1), besides everything that Airflow's templates may name. A field
    that names neither is rendered once, for all mails. In `html` and `html_file` values are escaped, unless `| safe`
    follows; None (the NULL of a database) is written as nothing. The values in a row are data: templates in them are
    not rendered. The output of another task may be passed for any field, and is data too, also where a task is mapped
    over it.

    Args:
        rows: a list of mappings; the path or URL of a .csv, .tsv, .jsonl, .ndjson or .parquet file, which is read as
            rows are needed; another iterable of mappings; or a pandas DataFrame. The first line of a CSV file names the
            columns.
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address, to, cc, bcc, reply_to, subject, text, html: as in `SendMailOperator`.
        text_file, html_file, attachments, inline_images, priority, headers, message_id: likewise.
        row_key: a template that identifies a row, such as `{{ row.id }}`: its mail then has the same Message-ID in
            every attempt, and a second row with the same key makes no mail. None: a digest of the row and the number of
            equal rows before it.
        on_error: what happens where no mail can be made of a row (a column is missing, an address is invalid, a file
            does not exist): all others are sent, and then the task fails (`fail`), or succeeds with a warning
            (`continue`).
        on_refused: whether the task fails (`fail`) or logs a warning (`warn`) where the server refused recipients. If
            no recipient at all was accepted, the task fails whatever `on_error` and `on_refused` are.
        on_unknown: what happens where no answer came after a whole message was handed over: `fail`, and never send it
            again, or `retry` it in the next attempt, with the same Message-ID.
        connections: how many sessions there are at most.
        rate_limit: mails a minute at most, over all connections, as Exchange's `MessageRateLimit` counts; None: no
            limit.
        report_file: the path or URL of a file that gets a line of JSON for each row as it finishes.
        encoding: of all files that are read as text.
        rows_encoding: of the file of rows, where it differs.
        delimiter: between the cells of a CSV file; None: a comma, in .tsv a tab.
        retry_for: seconds for which a mail is retried within this attempt where it was temporarily refused or not sent,
            and a server that cannot be reached; 0: no retry.
        on_clear: what happens where the task is cleared after it failed for good: it sends what is pending
            (`resume_unfinished`), or all rows (`send_again`). After a success it always sends all rows.
        ledger_window: how many rows may be in doubt after a crash; None: the smaller of 256 and what is sent in a
            quarter of a second. Never fewer than `connections`. A small window means more writes to Airflow's task
            state store.

    Returns:
        `counts`, the first hundred mails that were `refused` and rows that `failed`, `elapsed` (seconds) and
        `mails_per_second`: the task's XCom, also where it fails.

    From Airflow 3.3 on a ledger is kept in the task state store: a further attempt sends only what is pending.

    Raises:
        AirflowException: a retry may help, and can send nothing twice.
        AirflowFailException: a retry would not help; or, before Airflow 3.3, would send mails a second time.
    """

    # The fields of the mail are among them for the outputs of other tasks; `deferred` keeps their templates.
    template_fields: Sequence[str] = ("smtpcm_conn_id", "rows", "report_file", *ROW_FIELDS)
    rendered_later = ROW_FIELDS
    template_ext: Sequence[str] = ()
    template_fields_renderers = {  # noqa: RUF012
        "rows": "json",
        "text": "text",
        "html": "html",
        "attachments": "json",
        "inline_images": "json",
        "headers": "json",
    }
    ui_color = "#e8f0fb"

    def __init__(
        self,
        *,
        rows: Any,
        smtpcm_conn_id: TextArgument = SmtpConnectionManagerHook.default_conn_name,
        from_address: AddressArgument | None = None,
        to: AddressesArgument | None = None,
        cc: AddressesArgument | None = None,
        bcc: AddressesArgument | None = None,
        reply_to: AddressesArgument | None = None,
        subject: TextArgument = "",
        text: TextArgument | None = None,
        html: TextArgument | None = None,
        text_file: TextArgument | None = None,
        html_file: TextArgument | None = None,
        attachments: AttachmentsArgument | None = None,
        inline_images: InlineImagesArgument | None = None,
        priority: PriorityArgument = "normal",
        headers: HeadersArgument | None = None,
        message_id: TextArgument | None = None,
        row_key: TextArgument | None = None,
        on_error: Literal["fail", "continue"] = "fail",
        on_refused: Literal["fail", "warn"] = "fail",
        on_unknown: Literal["fail", "retry"] = "fail",
        connections: int = 1,
        rate_limit: float | None = None,
        report_file: TextArgument | None = None,
        encoding: str = "utf-8-sig",
        rows_encoding: str | None = None,
        delimiter: str | None = None,
        retry_for: float = DEFAULT_RETRY_FOR,
        on_clear: Literal["resume_unfinished", "send_again"] = "resume_unfinished",
        ledger_window: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = rows if is_path(rows) else deferred(rows)
        self.smtpcm_conn_id = smtpcm_conn_id
        self.from_address = deferred(from_address)
        self.to = deferred(to)
        self.cc = deferred(cc)
        self.bcc = deferred(bcc)
        self.reply_to = deferred(reply_to)
        self.subject = deferred(subject)
        self.text = deferred(text)
        self.html = deferred(html)
        self.text_file = deferred(text_file)
        self.html_file = deferred(html_file)
        self.attachments = deferred(attachments)
        self.inline_images = deferred(inline_images)
        self.priority = deferred(priority)
        self.headers = deferred(headers)
        self.message_id = deferred(message_id)
        self.row_key = deferred(row_key)
        self.on_error = on_error
        self.on_refused = on_refused
        self.on_unknown = on_unknown
        self.connections = connections
        self.rate_limit = rate_limit
        self.report_file = report_file
        self.encoding = encoding
        self.rows_encoding = rows_encoding
        self.delimiter = delimiter
        self.retry_for = retry_for
        self.on_clear = on_clear
        self.ledger_window = ledger_window
        self._rows_hold_outputs = isinstance(self.rows, list)  # of other tasks, among rows that the DAG file lists
        check_choice("on_error", on_error, ("fail", "continue"))
        check_choice("on_refused", on_refused, ("fail", "warn"))
        check_choice("on_unknown", on_unknown, ("fail", "retry"))
        check_choice("on_clear", on_clear, ("resume_unfinished", "send_again"))
        check_positive_int("connections", connections)
        check_not_negative("retry_for", retry_for)
        if ledger_window is not None:
            check_positive_int("ledger_window", ledger_window)
        check_positive_or_none("rate_limit", rate_limit)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(f"delimiter is {delimiter!r}; give one character, or None.")

    def execute(self, context: Context) -> dict[str, object]:
        """Send the mails."""
        log.info("MailMergeTaskBegin: the task began to send a mail for each row through '%s'.", self.smtpcm_conn_id)
        with at_most_once(context) as attempt:
            return self._execute(context, attempt, self._start_run())

    def _execute(self, context: Context, attempt: Attempt, stop: CancellationToken) -> dict[str, object]:
        from airflow_provider_smtpcm.operators._lineage import annotate_outlet_events

        rendered: Any = self
        hook = SmtpConnectionManagerHook(rendered.smtpcm_conn_id)
        try:
            result = self._merge(context, hook, attempt, stop)
        except MailError as error:
            attempt.failure = airflow_error(error)
            return {}
        if attempt.failure is None:
            annotate_outlet_events(context, self.outlets, {"counts": result["counts"]})
        elif self.do_xcom_push:
            try:
                context["ti"].xcom_push(key="return_value", value=result)  # for a task that handles the failure
            except Exception as error:  # noqa: BLE001 - it must not replace the failure itself
                log.warning("The result could not be stored: %s", error)
        return result

    def _merge(
        self, context: Context, hook: SmtpConnectionManagerHook, attempt: Attempt, stop: CancellationToken
    ) -> dict[str, object]:
        """Send the pending rows and return the result; `attempt.failure` is the error with which the task fails."""
        from airflow_provider_smtpcm.merge.failure_policy import FailurePolicy
        from airflow_provider_smtpcm.merge.messages import PriorAttempts, RowMails, resolve_constants
        from airflow_provider_smtpcm.merge.result import MergeReport, MergeResult, count_of, without_addresses
        from airflow_provider_smtpcm.merge.sending import send_rows
        from airflow_provider_smtpcm.merge.templates import RowTemplates
        from airflow_provider_smtpcm.operators._lineage import Lineage
        from airflow_provider_smtpcm.smtp.queue import apply_defaults

        rendered: Any = self  # Airflow has replaced outputs of other tasks by their values
        templates = RowTemplates(
            {name: getattr(self, name) for name in ROW_FIELDS},
            self.get_template_env(),
            cast("Mapping[str, Any]", context),
            encoding=self.encoding,
        )
        manager = hook.connection_manager  # a fault in it affects every row
        resolve_constants(templates, manager)
        policy = FailurePolicy(
            allow_failed=self.on_error == "continue",
            allow_refused=self.on_refused == "warn",
            retry_unknown=self.on_unknown == "retry",
        )
        lineage = Lineage(hook)
        try_number = getattr(context["ti"], "try_number", 1)
        with closing(MergeReport(rendered.report_file, try_number=try_number, locate=storage_path)) as report:
            if self.report_file:
                lineage.add_output(self.report_file)
            encoding = self.rows_encoding or self.encoding
            rows = open_rows(self._given_rows(), encoding=encoding, delimiter=self.delimiter, locate=storage_path)
            if is_path(self.rows):
                lineage.add_input(self.rows.strip() if isinstance(self.rows, str) else self.rows)
            result = MergeResult(rows=rows, report=report)
            attempt.may_have_arrived = result.may_have_arrived
            with attempt.open_ledger(
                on_clear=self.on_clear, window=self.ledger_window, connections=self.connections
            ) as ledger:
                if ledger is not None and ledger.finished_result is not None:
                    return ledger.finished_result
                mails = RowMails(
                    rows,
                    templates,
                    result=result,
                    apply_defaults=partial(apply_defaults, manager=manager),
                    identity=partial(attempt.message_identity, ledger),
                    prior=None if ledger is None else PriorAttempts(ledger, result, retry_unknown=policy.retry_unknown),
                )
                send = partial(self._send, hook, stop)
                failure = send_rows(mails, result, ledger, send=send, on_delivery=lineage.add_mail, stop=stop)
                mails.add_rows_not_reached()
                report.close()
                faults = [fault for fault in (mails.failure, report.fault) if fault is not None]
                # A temporarily refused recipient might have been retried in this attempt, and is in the next one.
                if stop.is_canceled and (not mails.is_exhausted or (ledger is not None and result.retryable)):
                    faults.append(stop.error())
                failure = failure or policy.failure(result, faults, is_durable=ledger is not None)
                if failure is not None:
                    attempt.failure = airflow_error(failure)
                    attempt.failure.__cause__ = failure.__cause__
                result.log_repetitions()
                attempt.result = returned = result.to_dict()
                attempt.summary = without_addresses(returned)
                log.info(
                    "MailMergeTaskEnd: %s (%s) in %s seconds.",
                    count_of(result.rows, "row"),
                    result.summary(),
                    returned["elapsed"],
                )
        return returned

    def _send(
        self,
        hook: SmtpConnectionManagerHook,
        stop: CancellationToken,
        requests: Iterator[SendRequest | float],
        journal: LedgerJournal | None,
    ) -> Generator[Delivery, None, None]:
        return hook.send_requests(
            requests,
            connections=self.connections,
            rate_limit=self.rate_limit,
            retry_for=retry_budget(self.retry_for, self.execution_timeout),
            journal=journal,
            cancellation=stop,
        )

    def _given_rows(self) -> Any:
        """Return the rows as they were passed; those that another task returned are many, and need no `undeferred`."""
        is_output = isinstance(self.rows, list) and not self._rows_hold_outputs
        return locked(self.rows if is_output else undeferred(self.rows))


def storage_path(text: str) -> Any:
    """Return the object for a path or URL: a URL such as `s3://bucket/key` is Airflow's ObjectStoragePath.

    Raises:
        MessageError: Airflow supports no such storage.
    """
    if "://" not in text:
        return Path(text)
    from airflow.sdk import ObjectStoragePath

    try:
        return ObjectStoragePath(text)
    except (ValueError, ImportError) as error:
        raise MessageError(f"'{text}' is not the URL of a storage: {error}.", remedy=STORAGE_REMEDY) from None
