"""The SQL to mail operator: one task runs a query and sends its result, as a table, as files, or both."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_smtpcm.arguments import as_reusable, check_choice, check_delimiter, check_int_in_range
from airflow_provider_smtpcm.arguments.validation import is_static, raise_faults
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.merge.rows import Row
from airflow_provider_smtpcm.merge.templates import DeferredTemplate, make_row_environment
from airflow_provider_smtpcm.operators._task import AirflowSkipException
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
from airflow_provider_smtpcm.operators.sql_query import QueryResult, SqlQuery

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context, XComArg

    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.mail import Attachment
    from airflow_provider_smtpcm.mail.mime_message import AnyMail
    from airflow_provider_smtpcm.operators._rendering import TextArgument
    from airflow_provider_smtpcm.operators._task import Attempt
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.outcome import Delivery

log = logging.getLogger(__name__)

#: The fields whose templates may use `result`.
RESULT_FIELDS = ("subject", "text", "html")
_BODY_FIELDS = ("text", "html", "text_file", "html_file")
_MESSAGE_FAULT = (
    "'message' is a complete message, which is sent as it is: a result cannot be added to it. Leave it out, or send it "
    "with a SendMailOperator."
)


class SqlToMailOperator(SendMailOperator):
    """Run a query through a database hook of Airflow, send its result in one mail, and return the delivery.

    The mail is that of `SendMailOperator`, with its arguments except `message`, its retries and its guarantees. The
    templates of `subject`, `text`, `html`, `text_file` and `html_file` may also use

    - `result.table`: the first `max_rows` rows as a table, HTML or plain text as the field is;
    - `result.rows`: the same rows as mappings, such as `{{ result.rows[0].total }}`, in which NULL renders as an empty
      text;
    - `result.columns`: the names of the columns;
    - `result.row_count`: how many rows the query returned.

    Without a body of your own, the body is the table. Values are written in the same way in the table and in files of
    text: NULL as an empty text, dates and times in ISO 8601, octets in hexadecimal.

    A retry runs the query again. From Airflow 3.3 on, it does not if all recipients have the mail, and those who lack
    it get the result of that attempt.

    Args:
        sql: one statement that returns rows; of several result sets, the first counts. `{% include 'orders.sql' %}`
            reads it from a file beside the DAG or in `template_searchpath`.
        sql_conn_id: the Airflow connection of the database, of any type whose hook is a `DbApiHook`.
        parameters: the values of the placeholders in `sql`, in the style of the database's driver (`?`, `%s`, `:name`).
            Pass values here rather than in the text of the statement, since the driver quotes them.
        sql_hook_params: arguments for the hook, such as `{"driver": "ODBC Driver 18 for SQL Server"}`.
        attach_as: the names of files to which all rows are written and which are attached: one name, or a list. The
            name decides what a file is: `.csv`, `.tsv`, `.xlsx` (extra `xlsx`) or `.parquet` (extra `parquet`).
        max_rows: how many rows a body shows at most; the table then says how many more there are.
        on_empty: what happens if the query returns no rows: the mail is sent (`send`), or the task is skipped (`skip`),
            and with it, by their usual trigger rule, the tasks downstream.
        delimiter: between the cells of a CSV file; None: a comma, or a tab in a .tsv file. Excel expects a semicolon
            where the decimal sign is a comma.
        escape_formulas: whether a text in a CSV file that a spreadsheet would run as a formula (`=HYPERLINK(...)`) gets
            an apostrophe in front of it. Numbers and telephone numbers do not, and no other kind of file needs it.
        kwargs: the arguments of `SendMailOperator`, except `message`.

    Returns:
        The delivery as a dict (`Delivery.to_dict`), which is the task's XCom.

    Raises:
        AirflowException: a retry may help and delivers nothing twice.
        AirflowFailException: a retry would not help, or could deliver the mail twice.
        AirflowSkipException: there are no rows, and `on_empty` is `skip`.
    """

    template_fields: Sequence[str] = (
        "sql",
        "sql_conn_id",
        "parameters",
        "sql_hook_params",
        "attach_as",
        *SendMailOperator.template_fields,
    )
    rendered_later = RESULT_FIELDS
    template_fields_renderers = {  # noqa: RUF012
        "sql": "sql",
        "parameters": "json",
        "sql_hook_params": "json",
        **SendMailOperator.template_fields_renderers,
    }
    # The files of this run, which are deleted after it.
    _open_files: ExitStack
    _cancellation: CancellationToken | None

    def __init__(
        self,
        *,
        sql: TextArgument,
        sql_conn_id: TextArgument,
        parameters: Sequence[Any] | Mapping[str, Any] | XComArg | None = None,
        sql_hook_params: Mapping[str, Any] | XComArg | None = None,
        attach_as: TextArgument | Iterable[TextArgument] | None = None,
        max_rows: int = 100,
        on_empty: Literal["send", "skip"] = "send",
        delimiter: str | None = None,
        escape_formulas: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.sql_hook_params = sql_hook_params
        self.attach_as = as_reusable(attach_as)
        self.max_rows = max_rows
        self.on_empty = on_empty
        self.delimiter = delimiter
        self.escape_formulas = escape_formulas
        for name in RESULT_FIELDS:
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, DeferredTemplate(value))
        faults = [_MESSAGE_FAULT] if self.message is not None else []
        if is_static(self.attach_as) and self.attach_as and self._has_arguments_of_dag_file():
            try:
                _check_names(self.attach_as)
            except MessageError as fault:
                faults.append(str(fault))
        raise_faults(
            f"{self.operator_name} '{self.task_id}'",
            (
                partial(check_int_in_range, "max_rows", max_rows, 1),
                partial(check_choice, "on_empty", on_empty, ("send", "skip")),
                partial(check_delimiter, delimiter),
            ),
            faults,
        )

    def _execute(self, context: Context, attempt: Attempt, cancellation: CancellationToken) -> Delivery | None:
        with ExitStack() as self._open_files:
            return super()._execute(context, attempt, cancellation)

    def preview_rendered(self, context: Mapping[str, Any], *, manager: SmtpConnectionManager | None = None) -> AnyMail:
        """Return the mail, for an operator whose fields are rendered. This runs the query.

        Args:
            context, manager: as in `preview`.

        Raises:
            AirflowSkipException: there are no rows, and `on_empty` is `skip`.
        """
        self._open_files = ExitStack()  # not closed: the mail may be read as long as it exists
        return super().preview_rendered(context, manager=manager)

    def _make_mail(
        self, context: Context, manager: SmtpConnectionManager, attempt: Attempt, ledger: Ledger | None
    ) -> AnyMail:
        from airflow_provider_smtpcm.mail.attachment import parse_attachments
        from airflow_provider_smtpcm.tables.body_table import BodyTable, TemplateResult
        from airflow_provider_smtpcm.tables.files import check_library

        rendered: Any = self  # Airflow has rendered the fields
        content_types = _check_names(rendered.attach_as)  # before a query that may take an hour
        names = list(content_types)
        for name in names:
            check_library(name)
        query = SqlQuery(
            sql=rendered.sql,
            sql_conn_id=rendered.sql_conn_id,
            parameters=rendered.parameters,
            sql_hook_params=rendered.sql_hook_params,
        )
        check = (lambda: None) if self._cancellation is None else self._cancellation.raise_if_canceled
        with closing(query.fetch(check)) as rows:
            if not len(rows) and self.on_empty == "skip":
                raise AirflowSkipException("The query returned no rows.")
            shown = [Row(row) for row in islice(rows, self.max_rows)]
            files = [self._attach(rows, name, content_type) for name, content_type in content_types.items()]
            result = TemplateResult(
                table=BodyTable(
                    rows.columns, [tuple(row.values()) for row in shown], row_count=len(rows), attachments=names
                ),
                rows=shown,
                columns=rows.columns,
                row_count=len(rows),
            )
        if all(getattr(self, name) is None for name in _BODY_FIELDS):
            self.html = result.table.__html__()
        variables: Any = {**context, "result": result}
        self._render_result_fields(variables)
        rendered.attachments = [*parse_attachments(rendered.attachments), *files]
        return super()._make_mail(variables, manager, attempt, ledger)

    def _make_body_environment(self) -> jinja2.Environment:
        return make_row_environment(self.get_template_env(), is_strict=False)

    def _attach(self, rows: QueryResult, name: str, content_type: str) -> Attachment:
        """Return an attachment with all rows."""
        from airflow_provider_smtpcm.mail import Attachment
        from airflow_provider_smtpcm.tables.files import TemporaryResultFile, write_file

        path = self._open_files.enter_context(closing(TemporaryResultFile(name)))
        try:
            write_file(rows, name, path.file, delimiter=self.delimiter, escape_formulas=self.escape_formulas)
        except MailError:
            raise
        except Exception as error:  # the libraries raise errors of their own
            raise MessageError(
                f"'{name}' cannot be written: {type(error).__name__}: {error}.",
                remedy="Select other values, or make room in the worker's temporary folder (TMPDIR).",
                retryable=isinstance(error, OSError) or isinstance(error.__context__, OSError),  # XlsxWriter wraps it
            ) from error
        attachment = Attachment(path, name=name, content_type=content_type)
        log.info("The result is attached as %s, %d octets.", name, attachment.size())
        return attachment

    def _render_result_fields(self, variables: Mapping[str, Any]) -> None:
        """Render the templates that may use `result`. What another task computed is data, and not wrapped."""
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments

        environment = self.get_template_env()
        environments = FieldEnvironments(environment, text=self._make_body_environment())
        names = {**environment.globals, **variables}
        for name in RESULT_FIELDS:
            value = getattr(self, name)
            if not isinstance(value, DeferredTemplate):
                continue
            try:
                setattr(self, name, environments.compile(name, value.value)(names))
            except MailError:
                raise
            except Exception as error:  # a template may call anything
                raise MessageError(
                    f"{name} cannot be rendered ({type(error).__name__}: {error}).",
                    remedy="Correct the template. It may use result.table, result.rows, result.columns and "
                    "result.row_count.",
                ) from error


def _check_names(attach_as: Any) -> dict[str, str]:
    """Return the names of the files, each with its media type.

    Raises:
        MessageError: a name is given twice, or is not one of a file that can be written.
    """
    from airflow_provider_smtpcm.tables.files import check_file_name

    given = [attach_as] if attach_as is None or isinstance(attach_as, str) else attach_as
    names = [name for name in given if name] if isinstance(given, Iterable) else [given]
    if len(set(map(str, names))) < len(names) or not all(isinstance(name, str) for name in names):
        raise MessageError(
            f"'attach_as' is {attach_as!r}.", remedy="Give one file name, or a list of different file names."
        )
    return {name: check_file_name(name) for name in names}
