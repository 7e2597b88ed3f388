"""The mail merge operator: one task sends a mail for each row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_provider_smtpcm.arguments import (
    DEFAULT_RETRY_FOR,
    MAIL_FIELDS,
    MAX_CONNECTIONS,
    as_reusable,
    check_bool,
    check_choice,
    check_delimiter,
    check_int_in_range,
    check_not_negative,
    check_positive_or_none,
)
from airflow_provider_smtpcm.arguments.validation import check_names, find_mail_faults, is_static, raise_faults
from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.hooks.object_storage import to_storage_path
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.merge.rows import is_path, open_rows
from airflow_provider_smtpcm.merge.templates import defer_templates, undefer_templates
from airflow_provider_smtpcm.operators._rendering import FIELD_RENDERERS, RenderedOperator
from airflow_provider_smtpcm.operators._task import (
    Attempt,
    Cancelable,
    airflow_error,
    at_most_once,
    fetch_under_lock,
    retry_budget,
    supervisor_lock,
)
from airflow_provider_smtpcm.operators.sql_query import SqlQuery

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow.sdk import Context

    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.ledger.journal import LedgerJournal
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.merge.rows import Rows
    from airflow_provider_smtpcm.merge.templates import RowTemplates
    from airflow_provider_smtpcm.operators._rendering import (
        AddressArgument,
        AddressesArgument,
        AttachmentsArgument,
        BodyArgument,
        HeadersArgument,
        InlineImagesArgument,
        PriorityArgument,
        TextArgument,
    )
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.outcome import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest

log = logging.getLogger(__name__)

#: The fields of each mail: templates over `row`, which Airflow cannot render, since it has no row.
ROW_FIELDS = (*MAIL_FIELDS, "message_id", "row_key")


class MailMergeOperator(Cancelable, RenderedOperator):
    """Send one mail for each row through an SMTP connection manager, and return the result.

    The fields of the mail are those of `SendMailOperator`. Their templates may also use `row` (`{{ row.name }}` or
    `{{ row["First name"] }}`) and `row_number` (from 1). A field that uses neither is rendered once, for all mails. In
    `html` and `html_file`, values are escaped, unless `| safe` follows. None (the NULL of a database) renders as an
    empty text. The values in a row are data: templates in them are not rendered. The output of another task may be
    passed for any field and is data too, even if the task is mapped over it.

    Args:
        rows: a list of mappings; the path or URL of a .csv, .tsv, .jsonl, .ndjson or .parquet file, which is read as
            rows are needed; a `SqlQuery`; another iterable of mappings; or a pandas DataFrame. The first line of a CSV
            file names the columns.
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address, to, cc, bcc, reply_to, subject, text, html: as in `SendMailOperator`.
        text_file, html_file, attachments, inline_images, priority, headers, message_id: as in `SendMailOperator`.
        envelope_from, auto_generated: as in `SendMailOperator`.
        row_key: a template that identifies a row, such as `{{ row.id }}`: its mail then has the same Message-ID in
            every attempt, and a second row with the same key fails. None: a digest of the row identifies it, and equal
            rows are numbered.
        on_error: what happens if a row cannot be turned into a mail (a column is missing, an address is invalid, a file
            does not exist): all other rows are sent, and then the task fails (`fail`) or succeeds with a warning
            (`continue`).
        on_refused: whether the task fails (`fail`) or logs a warning (`warn`) if the server refused recipients. If no
            recipient at all was accepted, the task fails regardless of `on_error` and `on_refused`.
        on_unknown: what happens if no reply came after a whole message was sent: `fail` and never send it again, or
            `retry` it in the next attempt with the same Message-ID.
        connections: the maximum number of sessions, from 1 to 256.
        rate_limit: the maximum number of mails per minute over all connections, counted like Exchange's
            `MessageRateLimit`; None: no limit.
        report_file: the path or URL of a file that receives a line of JSON for each row as it finishes;
            None: no report.
        encoding: the encoding of all files that are read as text; for `text_file` and `html_file` as in
            `SendMailOperator`.
        rows_encoding: the encoding of the file of rows; None: `encoding`.
        delimiter: between the cells of a CSV file; None: a comma, or a tab in a .tsv file.
        retry_for: seconds for which a mail is retried within this attempt if it was temporarily refused or not sent, or
            the server could not be reached; 0: no retry.
        on_clear: what happens if the task is cleared before it succeeded: it sends the pending rows
            (`resume_unfinished`) or all rows (`send_again`). After a success it always sends all rows.
        ledger_window: how many rows may be in doubt after a crash; None: the number that is sent in a quarter of a
            second, at most 384. It is never less than `connections`. A small window means more writes to Airflow's task
            state store.

    Returns:
        The task's XCom, even if it fails: `counts`, the first hundred rows that were `refused` and that `failed`,
        `elapsed` (seconds) and `mails_per_second`.

    From Airflow 3.3 on, a ledger is kept in the task state store, so that a further attempt sends only pending rows.

    Raises:
        ValueError: an argument without a template is wrong: all faults at once, when the DAG is parsed.
        AirflowException: a retry may help and sends nothing twice.
        AirflowFailException: a retry would not help or, before Airflow 3.3, would send mails twice.
    """

    # The row fields are included so that Airflow resolves outputs in them; `defer_templates` hides their templates.
    template_fields: Sequence[str] = ("smtpcm_conn_id", "rows", "report_file", *ROW_FIELDS)
    rendered_later = ROW_FIELDS
    template_ext: Sequence[str] = ()
    template_fields_renderers = {"rows": "json", **FIELD_RENDERERS}  # noqa: RUF012
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
        text: BodyArgument | None = None,
        html: BodyArgument | None = None,
        text_file: BodyArgument | None = None,
        html_file: BodyArgument | None = None,
        attachments: AttachmentsArgument | None = None,
        inline_images: InlineImagesArgument | None = None,
        priority: PriorityArgument = "normal",
        headers: HeadersArgument | None = None,
        message_id: TextArgument | None = None,
        envelope_from: AddressArgument | None = None,
        auto_generated: bool = True,
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
        check_names(self.operator_name, kwargs)
        super().__init__(**kwargs)
        self.rows = rows if is_path(rows) or isinstance(rows, SqlQuery) else defer_templates(rows)
        self.smtpcm_conn_id = smtpcm_conn_id
        self.from_address = defer_templates(from_address)
        self.to = defer_templates(as_reusable(to))
        self.cc = defer_templates(as_reusable(cc))
        self.bcc = defer_templates(as_reusable(bcc))
        self.reply_to = defer_templates(as_reusable(reply_to))
        self.subject = defer_templates(subject)
        self.text = defer_templates(text)
        self.html = defer_templates(html)
        self.text_file = defer_templates(text_file)
        self.html_file = defer_templates(html_file)
        self.attachments = defer_templates(as_reusable(attachments))
        self.inline_images = defer_templates(as_reusable(inline_images))
        self.priority = defer_templates(priority)
        self.headers = defer_templates(as_reusable(headers))
        self.message_id = defer_templates(message_id)
        self.envelope_from = defer_templates(envelope_from)
        self.auto_generated = auto_generated
        self.row_key = defer_templates(row_key)
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
        # `rows` is still a list here only if it is written in the DAG file and contains outputs of other tasks.
        self._has_outputs_in_rows = isinstance(self.rows, list)
        faults: list[str] = []
        if self._has_arguments_of_dag_file():
            fields = {name: undefer_templates(getattr(self, name)) for name in ROW_FIELDS}
            faults = find_mail_faults(fields, is_complete=True, has_default_body=False)
            faults += [
                f"'{name}' is the same for every row. Use a column in it: '{{{{ row.id }}}}'."
                for name in ("row_key", "message_id")
                if fields[name] is not None and is_static(fields[name])
            ]
        raise_faults(
            f"{self.operator_name} '{self.task_id}'",
            (
                partial(check_choice, "on_error", on_error, ("fail", "continue")),
                partial(check_choice, "on_refused", on_refused, ("fail", "warn")),
                partial(check_choice, "on_unknown", on_unknown, ("fail", "retry")),
                partial(check_choice, "on_clear", on_clear, ("resume_unfinished", "send_again")),
                partial(check_int_in_range, "connections", connections, 1, MAX_CONNECTIONS),
                partial(check_not_negative, "retry_for", retry_for),
                partial(check_int_in_range, "ledger_window", 1 if ledger_window is None else ledger_window, 1),
                partial(check_positive_or_none, "rate_limit", rate_limit),
                partial(check_delimiter, delimiter),
                partial(check_bool, "auto_generated", auto_generated),
            ),
            faults,
        )

    def execute(self, context: Context) -> dict[str, object]:
        """Send the mails."""
        log.info("MailMergeTaskBegin: the task began to send a mail for each row through '%s'.", self.smtpcm_conn_id)
        with at_most_once(self, context) as attempt:
            return self._execute(context, attempt, self._new_cancellation_token())

    def _execute(self, context: Context, attempt: Attempt, cancellation: CancellationToken) -> dict[str, object]:
        from airflow_provider_smtpcm.operators._lineage import annotate_outlet_events

        rendered: Any = self  # Airflow has rendered the fields
        hook = SmtpConnectionManagerHook(rendered.smtpcm_conn_id)
        try:
            result = self._merge(context, hook, attempt, cancellation)
        except MailError as error:
            attempt.failure = airflow_error(error)
            return {}
        if attempt.failure is None:
            annotate_outlet_events(context, self.outlets, {"counts": result["counts"]})
        elif self.do_xcom_push:
            try:
                context["ti"].xcom_push(key="return_value", value=result)  # a task that handles the failure may read it
            except Exception as error:  # noqa: BLE001 - it must not replace the task's failure
                log.warning("The result could not be stored as an XCom: %s: %s", type(error).__name__, error)
        return result

    def _merge(
        self, context: Context, hook: SmtpConnectionManagerHook, attempt: Attempt, cancellation: CancellationToken
    ) -> dict[str, object]:
        """Send the pending rows and return the result; an error of the task is set as `attempt.failure`."""
        from airflow_provider_smtpcm.merge.messages import PriorAttempts, RowMails, is_line_of_run
        from airflow_provider_smtpcm.merge.report import MergeReport
        from airflow_provider_smtpcm.merge.result import FailurePolicy, MergeResult, format_count, without_addresses
        from airflow_provider_smtpcm.merge.sending import send_rows
        from airflow_provider_smtpcm.operators._lineage import Lineage
        from airflow_provider_smtpcm.smtp.queue import apply_defaults

        rendered: Any = self  # Airflow has resolved the outputs of other tasks
        manager = hook.connection_manager  # before any row: an error in the connection affects all of them
        templates = self._make_templates(cast("Mapping[str, Any]", context), manager)
        policy = FailurePolicy(
            allow_failed=self.on_error == "continue",
            allow_refused=self.on_refused == "warn",
            retry_unknown=self.on_unknown == "retry",
        )
        lineage = Lineage(hook)
        try_number = getattr(context["ti"], "try_number", 1)
        with (
            ExitStack() as resources,
            closing(MergeReport(rendered.report_file, try_number=try_number, to_path=to_storage_path)) as report,
        ):
            if self.report_file:
                lineage.add_output(self.report_file)
            rows = self._open_rows(resources, cancellation.raise_if_canceled)
            if is_path(self.rows):
                lineage.add_input(self.rows.strip() if isinstance(self.rows, str) else self.rows)
            result = MergeResult(rows=rows, report=report)
            attempt.arrival_check = result.may_have_arrived
            with attempt.open_ledger(
                on_clear=self.on_clear, window=self.ledger_window, connections=self.connections
            ) as ledger:
                if ledger is not None and ledger.finished_result is not None:
                    return ledger.finished_result
                identity = partial(attempt.message_identity, ledger)
                if ledger is not None and ledger.is_resumed:
                    # A Message-ID that the author of the DAG wrote does not identify the run.
                    is_own = partial(is_line_of_run, identity) if self.message_id is None else lambda *_: True
                    report.read_earlier_lines(ledger.rows_seen, is_own)
                mails = RowMails(
                    rows,
                    templates,
                    auto_generated=self.auto_generated,
                    result=result,
                    apply_defaults=partial(apply_defaults, manager=manager),
                    identity=identity,
                    prior=None if ledger is None else PriorAttempts(ledger, result, retry_unknown=policy.retry_unknown),
                )
                send = partial(self._send, hook, cancellation)
                failure = send_rows(
                    mails, result, ledger, send=send, on_delivery=lineage.add_mail, cancellation=cancellation
                )
                mails.add_unreached_rows()
                report.close()
                errors = [error for error in (mails.failure, report.error) if error is not None]
                # Cancellation is an error if it left anything for the next attempt: rows, or temporary failures.
                if cancellation.is_canceled and (not mails.is_exhausted or (ledger is not None and result.retryable)):
                    errors.append(cancellation.error())
                failure = failure or policy.find_failure(result, errors, is_durable=ledger is not None)
                if failure is not None:
                    attempt.failure = airflow_error(failure)
                    attempt.failure.__cause__ = failure.__cause__
                result.log_repetitions()
                attempt.result = returned = result.to_dict()
                attempt.summary = without_addresses(returned)
                log.info(
                    "MailMergeTaskEnd: %s (%s) in %s seconds.",
                    format_count(result.rows, "row"),
                    result.summary(),
                    returned["elapsed"],
                )
        return returned

    def _make_templates(self, context: Mapping[str, Any], manager: SmtpConnectionManager) -> RowTemplates:
        """Return the templates of the mails, in which the values that are the same in every mail are checked."""
        from airflow_provider_smtpcm.merge.messages import resolve_constants
        from airflow_provider_smtpcm.merge.templates import RowTemplates

        templates = RowTemplates(
            {name: getattr(self, name) for name in ROW_FIELDS},
            self.get_template_env(),
            context,
            encoding=self.encoding,
            to_path=to_storage_path,
            request_lock=supervisor_lock,
        )
        resolve_constants(templates, manager)
        return templates

    def _open_rows(self, resources: ExitStack, raise_if_canceled: Callable[[], None]) -> Rows:
        """Open the rows; `resources` gets what is to be closed after the last one."""
        return open_rows(
            self._get_rows(resources, raise_if_canceled),
            encoding=self.rows_encoding or self.encoding,
            delimiter=self.delimiter,
            to_path=to_storage_path,
        )

    def preview(
        self,
        context: Mapping[str, Any],
        *,
        rows: Collection[int] = (1, 2, 3),
        manager: SmtpConnectionManager | None = None,
    ) -> dict[int, Mail]:
        """Return the mails that the task would send for some rows, without sending them.

        As in `SendMailOperator.preview`. Rows that earlier attempts have settled are not left out. If `rows` is
        an iterator, the rows are missing from it afterward.

        Args:
            context: the context of a task; a test may pass a dict with only what the templates need.
            rows: the numbers of the rows, from 1; the rows after the last of them are not read.
            manager: the connection, for its From and Reply-To; None: that of `smtpcm_conn_id`.

        Returns:
            The mails by the numbers of their rows, without numbers that no row has.

        Raises:
            MailError: a row cannot be turned into a mail, or the rows cannot be read, or there is no such connection.
        """
        mails: dict[int, Mail] = {}
        for number, mail in self.render_for_preview(context).preview_rendered(context, rows=rows, manager=manager):
            if isinstance(mail, MailError):
                raise mail
            mails[number] = mail
        return mails

    def preview_rendered(
        self, context: Mapping[str, Any], *, rows: Collection[int], manager: SmtpConnectionManager | None = None
    ) -> Iterator[tuple[int, Mail | MailError]]:
        """Yield each row's mail or error, for an operator whose fields are rendered.

        Args:
            context, rows, manager: as in `preview`.
        """
        from airflow_provider_smtpcm.merge.messages import RowMails
        from airflow_provider_smtpcm.merge.report import MergeReport
        from airflow_provider_smtpcm.merge.result import MergeResult
        from airflow_provider_smtpcm.smtp.queue import apply_defaults

        rendered: Any = self
        manager = manager or SmtpConnectionManagerHook(rendered.smtpcm_conn_id).connection_manager
        templates = self._make_templates(context, manager)
        no_report = MergeReport(None, try_number=1, to_path=to_storage_path)
        with ExitStack() as resources:
            opened = self._open_rows(resources, lambda: None)
            mails = RowMails(
                opened,
                templates,
                auto_generated=self.auto_generated,
                result=MergeResult(rows=opened, report=no_report),
                apply_defaults=partial(apply_defaults, manager=manager),
                identity=partial(Attempt.of_preview(context).message_identity, None),
            )
            yield from mails.preview(rows)

    def _send(
        self,
        hook: SmtpConnectionManagerHook,
        cancellation: CancellationToken,
        requests: Iterator[SendRequest | float],
        journal: LedgerJournal | None,
    ) -> Generator[Delivery, None, None]:
        return hook.send_requests(
            requests,
            connections=self.connections,
            rate_limit=self.rate_limit,
            retry_for=retry_budget(self.retry_for, self.execution_timeout),
            journal=journal,
            cancellation=cancellation,
        )

    def _get_rows(self, resources: ExitStack, raise_if_canceled: Callable[[], None]) -> Any:
        """Return the rows without the wrappers of `defer_templates`; `resources` gets those of a query to close."""
        if isinstance(self.rows, SqlQuery):
            return resources.enter_context(closing(self.rows.fetch(raise_if_canceled)))
        # A list that another task returned has no wrappers, and may be long.
        is_output = isinstance(self.rows, list) and not self._has_outputs_in_rows
        return fetch_under_lock(self.rows if is_output else undefer_templates(self.rows))
