"""One task, many personalised mails: rows in, one mail for each, few connections. Knows Airflow, and no SMTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_provider_smtpcm.arguments.templates import as_written, unrendered
from airflow_provider_smtpcm.arguments.values import RETRY_FOR, above_zero_or_none, at_least_one, one_of, zero_or_more
from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.merge.failure_policy import Tolerance, verdict
from airflow_provider_smtpcm.merge.result import MergeReport, MergeTally, without_addresses
from airflow_provider_smtpcm.merge.rows import is_path, open_rows
from airflow_provider_smtpcm.operators._lineage import Lineage, tell_outlets
from airflow_provider_smtpcm.operators._rendering import RenderedOperator
from airflow_provider_smtpcm.operators._task import (
    Attempt,
    Stoppable,
    airflow_error,
    budget,
    identity_of,
    ledger_of,
    sent_once,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.mail import Address, Attachment, Priority
    from airflow_provider_smtpcm.smtp.cancellation import Stop

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
    """Send one mail for each row, through an SMTP connection manager, and return what became of them.

    The fields of the mail are those of `SendMailOperator`, as templates over `row` (`{{ row.name }}`, or
    `{{ row["First name"] }}`) and `row_number` (from 1), besides all that Airflow's templates know. A field that names
    neither is rendered once, for all mails. In `html` and `html_file` what is filled in is escaped, unless `| safe`
    follows; None (the NULL of a database) is written as nothing. What stands in a row is data: templates in it are not
    evaluated. The output of another task may be given for any field, and is data too, also where a task is mapped over
    it.

    Args:
        rows: a list of mappings; the path or URL of a .csv, .tsv, .jsonl, .ndjson or .parquet file, which is read as it
            is needed; another iterable of mappings; or a pandas DataFrame. The first line of a CSV file names the
            columns.
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address, to, cc, bcc, reply_to, subject, text, html: as `SendMailOperator` has them.
        text_file, html_file, attachments, inline_images, priority, headers, message_id: likewise.
        row_key: a template for what tells a row from all others, such as `{{ row.id }}`: with it a mail bears the same
            Message-ID on every try, and a second row with the same key makes no mail. None: a digest of the row and
            how many like it came before.
        on_error: what a row means of which no mail can be made (a column is missing, an address is none, a file is not
            there): all others are sent, and then the task ends as failed (`fail`) or well, with a warning (`continue`).
        on_refused: what it means that the server refused some: `fail`, or `warn`. Where nobody at all was accepted the
            task fails, whatever `on_error` and `on_refused` say.
        on_unknown: what it means that nobody answered after a whole message was handed over: `fail`, and never send it
            again, or `retry` it on the next try, with the same Message-ID.
        connections: how many sessions at the most.
        rate_limit: how many mails a minute at the most, over all connections, as Exchange's `MessageRateLimit` counts;
            None: as many as the server takes.
        report_file: the path or URL of a file that gets a line of JSON for each row as it finishes.
        encoding: of all files that are read as text.
        rows_encoding: of the file of rows, where it differs.
        delimiter: between the cells of a CSV file; None: a comma, in .tsv a tab.
        retry_for: seconds for which, within this try, a mail that was refused for now or not sent is tried again, and a
            server that cannot be reached; 0: not at all.
        on_clear: what clearing the task means after it failed for good: send what is left (`resume_unfinished`), or all
            (`send_again`). After a success it always means all.
        ledger_window: how many rows may be in doubt after a crash; None: the smaller of 256 and a quarter of a second
            of sending. Never fewer than `connections`. A small one has Airflow's task state store written more often.

    Returns:
        `counts`, the first hundred mails that were `refused` and rows that `failed`, `elapsed` (seconds) and
        `mails_per_second`: the task's XCom, also where it fails.

    From Airflow 3.3 on a ledger is kept in the task state store: another try sends only what is left.

    Raises:
        AirflowException: trying again may help, and can send nothing twice.
        AirflowFailException: trying again would not help; or, before Airflow 3.3, would send mails a second time.
    """

    # Those of the mail are here for the outputs of other tasks in them; `unrendered` keeps their templates.
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
        smtpcm_conn_id: str = SmtpConnectionManagerHook.default_conn_name,
        from_address: str | Address | None = None,
        to: str | Sequence[str | Address] | None = None,
        cc: str | Sequence[str | Address] | None = None,
        bcc: str | Sequence[str | Address] | None = None,
        reply_to: str | Sequence[str | Address] | None = None,
        subject: str = "",
        text: str | None = None,
        html: str | None = None,
        text_file: str | None = None,
        html_file: str | None = None,
        attachments: str | Sequence[str | Attachment] | None = None,
        inline_images: Mapping[str, str | Attachment] | None = None,
        priority: str | Priority = "normal",
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        row_key: str | None = None,
        on_error: Literal["fail", "continue"] = "fail",
        on_refused: Literal["fail", "warn"] = "fail",
        on_unknown: Literal["fail", "retry"] = "fail",
        connections: int = 1,
        rate_limit: float | None = None,
        report_file: str | None = None,
        encoding: str = "utf-8-sig",
        rows_encoding: str | None = None,
        delimiter: str | None = None,
        retry_for: float = RETRY_FOR,
        on_clear: Literal["resume_unfinished", "send_again"] = "resume_unfinished",
        ledger_window: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = rows if is_path(rows) else unrendered(rows)
        self.smtpcm_conn_id = smtpcm_conn_id
        self.from_address = unrendered(from_address)
        self.to = unrendered(to)
        self.cc = unrendered(cc)
        self.bcc = unrendered(bcc)
        self.reply_to = unrendered(reply_to)
        self.subject = unrendered(subject)
        self.text = unrendered(text)
        self.html = unrendered(html)
        self.text_file = unrendered(text_file)
        self.html_file = unrendered(html_file)
        self.attachments = unrendered(attachments)
        self.inline_images = unrendered(inline_images)
        self.priority = unrendered(priority)
        self.headers = unrendered(headers)
        self.message_id = unrendered(message_id)
        self.row_key = unrendered(row_key)
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
        self._rows_hold_outputs = isinstance(self.rows, list)  # of other tasks, among rows that stand in the DAG
        one_of("on_error", on_error, ("fail", "continue"))
        one_of("on_refused", on_refused, ("fail", "warn"))
        one_of("on_unknown", on_unknown, ("fail", "retry"))
        one_of("on_clear", on_clear, ("resume_unfinished", "send_again"))
        at_least_one("connections", connections)
        zero_or_more("retry_for", retry_for)
        if ledger_window is not None:
            at_least_one("ledger_window", ledger_window)
        above_zero_or_none("rate_limit", rate_limit)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(f"delimiter is {delimiter!r}; give one character, or None.")

    def execute(self, context: Context) -> dict[str, object]:
        """Send the mails."""
        log.info("MailMergeTaskBegin: the task began to send a mail for each row through '%s'.", self.smtpcm_conn_id)
        with sent_once(context) as attempt:
            return self._execute(context, attempt, self._begin_to_run())

    def _execute(self, context: Context, attempt: Attempt, stop: Stop) -> dict[str, object]:
        hook = SmtpConnectionManagerHook(self.smtpcm_conn_id)
        try:
            result = self._merge(context, hook, attempt, stop)
        except MailError as error:
            attempt.failure = airflow_error(error, retry_unknown=False)
            attempt.failure.__suppress_context__ = True
            return {}
        if attempt.failure is None:
            tell_outlets(context, self.outlets, {"counts": result["counts"]})
        elif self.do_xcom_push:
            try:
                context["ti"].xcom_push(key="return_value", value=result)  # for the task that looks after failures
            except Exception as error:  # noqa: BLE001 - it would stand in for the failure itself
                log.warning("The result could not be stored: %s", error)
        return result

    def _merge(
        self, context: Context, hook: SmtpConnectionManagerHook, attempt: Attempt, stop: Stop
    ) -> dict[str, object]:
        """Send what is left; the result. The error with which the task ends, if it ends with one, is the attempt's."""
        from airflow_provider_smtpcm.merge.messages import Past, RowMails, settle
        from airflow_provider_smtpcm.merge.sending import Terms, send_all
        from airflow_provider_smtpcm.merge.templates import RowTemplates

        templates = RowTemplates(
            {name: getattr(self, name) for name in ROW_FIELDS},
            self.get_template_env(),
            cast("Mapping[str, Any]", context),
            encoding=self.encoding,
        )
        settle(templates, hook)
        tolerance = Tolerance(
            failed=self.on_error == "continue",
            refused=self.on_refused == "warn",
            retry_unknown=self.on_unknown == "retry",
        )
        terms = Terms(
            connections=self.connections,
            rate_limit=self.rate_limit,
            retry_for=budget(self.retry_for, self.execution_timeout),
            stop=stop,
        )
        lineage = Lineage(hook)
        with closing(MergeReport(self.report_file, try_number=getattr(context["ti"], "try_number", 1))) as report:
            if self.report_file:
                lineage.written(self.report_file)
            rows = open_rows(self._given_rows(), encoding=self.rows_encoding or self.encoding, delimiter=self.delimiter)
            if is_path(self.rows):
                lineage.read(self.rows.strip() if isinstance(self.rows, str) else self.rows)
            tally = MergeTally(source=rows, report=report)
            attempt.may_have_arrived = tally.may_have_arrived
            with ledger_of(
                context, on_clear=self.on_clear, window=self.ledger_window, connections=self.connections
            ) as tries:
                ledger = tries.ledger
                if ledger is not None and ledger.done is not None:
                    return ledger.done
                mails = RowMails(
                    rows,
                    templates,
                    tally=tally,
                    addressed=hook.addressed,
                    identity=lambda key: identity_of(context, ledger, key),
                    past=None if ledger is None else Past(ledger, tally, retry_unknown=tolerance.retry_unknown),
                )
                failure = send_all(hook, mails, tally, ledger, terms, sent=lineage.sent)
                mails.name_doubts()
                report.close()
                faults = [fault for fault in (mails.broken, report.fault) if fault is not None]
                # Who was refused for now might have had another turn, and has one in another try.
                if stop.asked and (not mails.ended or (ledger is not None and tally.retryable)):
                    faults.append(stop.error())
                attempt.failure = tries.failure = failure or verdict(
                    tally, tolerance, faults, durable=ledger is not None
                )
                tally.tell_repeated()
                tries.result = result = tally.result()
                tries.summary = without_addresses(result)
                log.info(
                    "MailMergeTaskEnd: %d rows (%s) in %s seconds.", tally.rows, tally.summary(), result["elapsed"]
                )
        return result

    def _given_rows(self) -> Any:
        """As written, or as another task returned them: those are many, and hold nothing of ours."""
        return self.rows if isinstance(self.rows, list) and not self._rows_hold_outputs else as_written(self.rows)
