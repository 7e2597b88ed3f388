"""Converts a Send Mail task to the arguments of a `SendMailOperator` or a `SendMailNotifier`.

If a property has an expression, its value is ignored: that is what the developer's machine evaluated last. A property
that cannot be translated becomes `{{ complete_me.subject }}`, which fails when it is rendered, with the original in a
comment above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    NotTranslatable,
    TemplateContext,
    escape_template,
    find_variables,
    parse,
    quote_string,
)
from airflow_provider_smtpcm.ssis.findings import Question, ask_for_connection_manager
from airflow_provider_smtpcm.ssis.model import MessageSourceType, SendMailTask, SmtpConnection, Variable
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord, PropertyRecord, PropertyStatus, WritingContext
from airflow_provider_smtpcm.ssis.writing.header_fields import convert_header_field
from airflow_provider_smtpcm.ssis.writing.python_source import KeywordArgument, expression_lines, quoted_list
from airflow_provider_smtpcm.ssis.writing.secrets import (
    display_expression,
    find_password_line,
    has_credentials,
    sanitize,
)
from airflow_provider_smtpcm.ssis.writing.symbols import Scope
from airflow_provider_smtpcm.ssis.writing.templates import (
    COMPLETE_ME,
    TemplateTranslator,
    error_summary,
    separate_lines,
)

DEFAULT_CONNECTION = "smtpcm_default"
_VT_BSTR = 8  # the VARENUM of String
_VARIABLE_NAME = re.compile(r"(?:[^\W\d]\w*::)?[^\W\d][\w .-]*")
# A package has the word, or .NET's number: 1 is High and 5 is Low.
_PRIORITIES = {"high": "high", "1": "high", "2": "high", "low": "low", "5": "low", "4": "low"}
_MESSAGE_SOURCE_TYPES = {
    "0": MessageSourceType.DIRECT_INPUT,
    "1": MessageSourceType.FILE_CONNECTION,
    "2": MessageSourceType.VARIABLE,
}
# The property, its attribute in `SendMailTask`, and the operator's argument.
_HEADER_FIELDS = (
    ("FromLine", "from_line", "from_address"),
    ("ToLine", "to_line", "to"),
    ("CCLine", "cc_line", "cc"),
    ("BCCLine", "bcc_line", "bcc"),
    ("Subject", "subject", "subject"),
)
_MARKUP = re.compile(r"<(?:html|body|table|br|p|div|span|b|h[1-6]|ul|font)\b[^<>]*>", re.IGNORECASE)
_HEADER_ARGUMENTS = {argument for _, _, argument in _HEADER_FIELDS}
_RECIPIENTS = {"to", "cc", "bcc"}
_UNTRANSLATABLE = "which cannot be translated to a template"
_DEFAULT_DESCRIPTIONS = {"", "send mail task"}
# The properties whose expressions are converted; `Disable` is part of the control flow.
_CONVERTED = {"FromLine", "ToLine", "CCLine", "BCCLine", "Subject", "MessageSource", "MessageSourceType", "Priority"}
_CONVERTED |= {"FileAttachments", "SmtpConnection", "Description", "Disable"}


class MailConverter:
    """Converts one Send Mail task; the constructor does all of it.

    Args:
        context: the package's context.
        task: the Send Mail task.
        scope: resolves the names in its expressions.
        template_context: whether it becomes a task or a callback.

    Attributes:
        arguments: the arguments of the operator or the notifier.
        records: what became of each property.
        connection: the id of the Airflow connection.
    """

    def __init__(
        self, context: WritingContext, task: SendMailTask, scope: Scope, template_context: TemplateContext
    ) -> None:
        self._context, self._task, self._scope, self._template_context = context, task, scope, template_context
        self._findings = context.findings
        self._where = task.where
        self._translator = TemplateTranslator.inside(task, context, scope, template_context)
        # The reader has reported that all properties are missing.
        self._is_reported = task.is_unconfigured or task.has_unreadable_data
        self.arguments: list[KeywordArgument] = []
        self.records: list[PropertyRecord] = []
        self.connection = self._convert_connection()
        for name, attribute, argument in _HEADER_FIELDS:
            self._convert_header_field(name, getattr(task, attribute), argument)
        if not any(argument.name in _RECIPIENTS for argument in self.arguments):
            if not self._is_reported:
                self._findings.decision(
                    "no-recipient", self._where, "The mail has no recipient; SSIS fails here.", "Add one in the DAG."
                )
            # Without it, the whole DAG would have an import error.
            self.arguments.append(KeywordArgument("to", f"{{{{ {COMPLETE_ME}.to }}}}"))
        self._convert_message()
        self._convert_priority()
        self._convert_attachments()
        self._convert_description()
        self._record_unconverted_expressions()

    def to_record(self, became: str, event: str = "") -> MailRecord:
        """Return the record of the mail for the report.

        Args:
            became: what it is in the DAG, such as `task send_mail`.
            event: the event of the handler that contains the mail; empty in the control flow.
        """
        return MailRecord(
            where=self._where, event=event, became=became, connection=self.connection, properties=tuple(self.records)
        )

    def _convert_connection(self) -> str:
        task = self._task
        manager, status = task.connection, PropertyStatus.MAPPED
        comments: tuple[str, ...] = ()
        if (expression := task.expressions.get("SmtpConnection")) is not None:
            manager = self._connection_by_expression(expression)
        question = self._ask_for_connection()
        if manager is None and expression is None and (answer := self._findings.value(question.key)) is not None:
            manager = self._connection_from_answer(answer)
        own = self._context.symbols.package.connection_managers
        if manager is None and expression is None and len(own) == 1:
            manager, status = own[0], PropertyStatus.DECISION
            comments = (f"SSIS: the connection manager is missing; {manager.name!r} is the package's only one",)
        if manager is None:
            status = PropertyStatus.DECISION
            name = sanitize(task.connection_reference) if expression is None else display_expression(expression)
            comments = (f"SSIS: the connection manager {name or 'is missing'}",)
            if not task.is_unconfigured:
                self._findings.decision(
                    "connection-to-choose",
                    self._where,
                    "The connection manager cannot be determined; the mail uses the connection "
                    f"{DEFAULT_CONNECTION!r}.",
                    f"Set smtpcm_conn_id in the DAG, or define the connection {DEFAULT_CONNECTION!r}.",
                    question if task.connection_reference and expression is None else None,
                )
        conn_id = DEFAULT_CONNECTION if manager is None else self._context.get_conn_id(manager)
        self._context.used_connections[conn_id] = None
        self._add_argument(
            "SmtpConnection",
            "smtpcm_conn_id",
            conn_id,
            expression if expression is not None else (manager.name if manager else task.connection_reference),
            status,
            is_expression=expression is not None,
            comments=comments,
        )
        return conn_id

    def _ask_for_connection(self) -> Question:
        own = self._context.symbols.package.connection_managers
        return ask_for_connection_manager(self._task.connection_reference, own[0].name if len(own) == 1 else "")

    def _connection_from_answer(self, answer: str) -> SmtpConnection:
        """Return the connection manager of the package or its project with this name, or one for this server."""
        symbols = self._context.symbols
        known = symbols.package.connection_managers + (symbols.project.connection_managers if symbols.project else ())
        named = next((manager for manager in known if manager.name.lower() == answer.lower()), None)
        if named is not None:
            return named
        if "=" not in answer:
            self._findings.note(
                "answer-as-server",
                self._where,
                f"The answer {sanitize(answer)} names no connection manager of this package or its project, so "
                "it is used as a mail server.",
                "If it is a connection manager of another package, answer with its server or its connection string.",
            )
        string = answer if "=" in answer else f"SmtpServer={answer};"
        return SmtpConnection(name=self._task.connection_reference, id="", connection_string=string)

    def _connection_by_expression(self, expression: str) -> SmtpConnection | None:
        try:
            name = self._evaluate("SmtpConnection", expression)
        except (ExpressionError, RecursionError):
            return None
        managers = self._context.symbols.package.connection_managers
        return next(
            (manager for manager in managers if name == manager.name or name.upper() == manager.id.upper()), None
        )

    def _evaluate(self, name: str, expression: str) -> str:
        """Return the value that the expression of a property has in the files.

        Raises:
            ExpressionError: as in `SymbolTable.evaluate`.
        """
        symbols = self._context.symbols
        value = symbols.evaluate(expression, self._scope)
        if find_variables(parse(expression)):
            self._findings.note(
                "property-evaluated",
                self._where,
                f"{name} comes from the expression {display_expression(expression)}; the DAG has its value from the "
                f"files: {sanitize(value)}. The environments of the SSIS catalog, which are not in the files, may set "
                "another one.",
            )
        for parameter in symbols.configured_parameters(expression, self._scope):
            self._findings.decision(
                "project-configuration",
                self._where,
                f"{name} comes from {parameter.qualified_name}, for which these configurations of the project set a "
                f"value other than the one used here: {quoted_list(parameter.configured_in)}.",
                "Look up which configuration is deployed, and check the mail in the DAG.",
            )
        return value

    def _convert_header_field(self, name: str, value: str, argument: str) -> None:
        expression = self._task.expressions.get(name)
        if expression is not None:
            self._translate(name, argument, expression)
        else:
            self._keep_text(name, argument, separate_lines(value.strip()) if argument in _RECIPIENTS else value)

    def _add_constant(
        self, name: str, argument: str, text: str, original: str, status: PropertyStatus, *, is_expression: bool = False
    ) -> None:
        """Add the argument for a header field that is the same in each run, unless it is blank.

        Args:
            name, argument, original, is_expression: as in `_translate`.
            text: the value.
            status: what became of the property if the argument is the value.
        """
        if not text.strip("; \t\r\n" if argument in _RECIPIENTS else None):
            if is_expression:
                self._add_record(name, original, "", status, is_expression=True, note="it is empty")
            if name == "FromLine" and not self._is_reported:
                self._findings.decision(
                    "no-sender",
                    self._where,
                    "FromLine is empty; SSIS fails here. In Airflow, the connection's from_address is used.",
                    "Set from_address in the connection or in the DAG.",
                )
            return
        is_alert = self._template_context is TemplateContext.CALLBACK
        try:
            converted = convert_header_field(argument, text, is_alert=is_alert)
        except MessageError as error:
            self._add_placeholder(name, argument, original, error, is_expression=is_expression)
            return
        comments: tuple[str, ...] = ()
        if converted.split() != text.split():
            status, comments = PropertyStatus.MAPPED, (f"SSIS: {sanitize(text)}",)
        value = escape_template(converted)
        self._add_argument(name, argument, value, original, status, is_expression=is_expression, comments=comments)

    def _convert_message(self) -> None:
        task, source = self._task, self._task.message_source
        expression = task.expressions.get("MessageSource")
        source_type = self._message_source_type()
        if source_type is MessageSourceType.VARIABLE:
            self._convert_message_variable(source, expression)
        elif source_type is MessageSourceType.FILE_CONNECTION:
            self._convert_message_file(expression)
        elif expression is not None:
            self._translate("MessageSource", "text", expression)
        elif task.has_unreadable_data:
            reason = "The task's own properties cannot be read."
            self._add_placeholder("MessageSource", "text", "", reason, is_expression=False)
        elif source:
            self._keep_text("MessageSource", "text", source)
        if source_type is not MessageSourceType.DIRECT_INPUT:
            self._add_record("MessageSourceType", str(source_type), "text", PropertyStatus.MAPPED)
        if (
            not any(argument.name == "text" for argument in self.arguments)
            and self._template_context is TemplateContext.CALLBACK
        ):
            # Without `text`, a notifier sends its default text.
            comment = "SSIS: the mail has no text; without this argument, the alert would have the default text"
            self._add_argument("MessageSource", "text", " ", "", PropertyStatus.MAPPED, comments=(comment,))

    def _message_source_type(self) -> MessageSourceType:
        expression = self._task.expressions.get("MessageSourceType")
        if expression is None:
            return self._task.message_source_type
        try:
            return _MESSAGE_SOURCE_TYPES[self._evaluate("MessageSourceType", expression)]
        except (ExpressionError, KeyError, RecursionError):
            self._findings.decision(
                "message-source-type",
                self._where,
                f"MessageSourceType comes from the expression {display_expression(expression)}, which gives no known "
                "value; DirectInput was used.",
                "Check where the text of the mail should come from.",
            )
            return MessageSourceType.DIRECT_INPUT

    def _convert_message_variable(self, source: str, expression: str | None) -> None:
        name = source.strip()
        if expression is not None:
            try:
                name = self._evaluate("MessageSource", expression).strip()
            except (ExpressionError, RecursionError) as error:
                self._add_placeholder("MessageSource", "text", expression, error)
                return
        symbol = self._context.symbols.lookup(name, self._scope)
        if symbol is None and expression is not None and not _VARIABLE_NAME.fullmatch(name):
            reason = (
                "MessageSourceType is Variable, but the expression for MessageSource gives a text and not the name of "
                "a variable; SSIS fails here."
            )
            remedy = (
                "If the mail is meant to have that text, set MessageSourceType to DirectInput in the package, or write "
                "the text in the DAG."
            )
            self._add_placeholder("MessageSource", "text", expression, f"{reason} {remedy}")
            return
        if isinstance(symbol, Variable) and symbol.data_type != _VT_BSTR:
            self._findings.decision(
                "message-variable-no-text",
                self._where,
                f"The text comes from {name}, which is not a String; SSIS fails here.",
                "Check what the text of the mail should be.",
            )
        self._translate("MessageSource", "text", f"@[{name}]", original=name, is_expression=False)

    def _convert_message_file(self, expression: str | None) -> None:
        file = self._task.message_file
        if file is None or expression is not None:
            self._add_placeholder(
                "MessageSource",
                "text",
                expression if expression is not None else self._task.message_source,
                "The text comes from a file whose path is not known.",
                is_expression=expression is not None,
            )
            return
        path_expression = file.expressions.get("ConnectionString")
        if path_expression is None:
            for setting in file.set_by:
                self._findings.note(
                    "connection-parameter",
                    self._where,
                    f"The parameter {setting.by} in {setting.source} sets the path of the File connection manager "
                    f"{file.name!r}.",
                )
            path = quote_string(self._translator.map_path(file.connection_string))
            template = f"{{{{ read_message_file({path}) }}}}"
        else:
            try:
                path = self._translator.translate(path_expression, is_path=True).text
            except (ExpressionError, NotTranslatable) as error:
                self._add_placeholder("MessageSource", "text", path_expression, error)
                return
            template = self._translator.read_file(path)
        self._context.macros.add("read_message_file")
        self._add_argument(
            "MessageSource",
            "text",
            template,
            path_expression or file.connection_string,
            PropertyStatus.MAPPED,
            comments=("the text of the file is not rendered as a template",),
        )

    def _convert_priority(self) -> None:
        expression = self._task.expressions.get("Priority")
        if expression is not None:
            conditional = f'({expression}) == 1 ? "high" : ({expression}) == 5 ? "low" : "normal"'
            self._translate("Priority", "priority", conditional, original=expression)
            return
        value = self._task.priority.strip()
        priority = _PRIORITIES.get(value.lower(), "normal")
        if priority != "normal":
            self._add_argument("Priority", "priority", priority, value, PropertyStatus.MAPPED)
        elif value.lower() not in ("", "normal", "3"):
            note = "not a priority of SSIS, whose designer writes 0 if there is an expression; normal is used"
            self._add_record("Priority", value, "", PropertyStatus.MAPPED, note=note)

    def _convert_attachments(self) -> None:
        expression, value = self._task.expressions.get("FileAttachments"), self._task.file_attachments
        if expression is not None:
            self._translate("FileAttachments", "attachments", expression, is_path=True)
            return
        paths = [path.strip() for path in value.split("|") if path.strip()]
        if paths:
            mapped = [escape_template(self._translator.map_path(path)) for path in paths]
            status = PropertyStatus.KEPT if mapped == paths else PropertyStatus.MAPPED
            self._add_argument("FileAttachments", "attachments", mapped, value, status)

    def _convert_description(self) -> None:
        description = self._task.description.strip()
        if "Description" in self._task.expressions:
            self._add_lost_record("Description", self._task.expressions["Description"])
        elif description.lower() not in _DEFAULT_DESCRIPTIONS and description != self._task.name:
            if self._template_context is TemplateContext.TASK:
                self._add_argument("Description", "doc", sanitize(description), description)
            else:
                note = "a callback has no description"
                self._add_record("Description", description, "", PropertyStatus.LOST, note=note)

    def _record_unconverted_expressions(self) -> None:
        for name, expression in self._task.expressions.items():
            if name not in _CONVERTED:
                self._add_lost_record(name, expression)

    def _add_lost_record(self, name: str, expression: str) -> None:
        note = "not part of the mail"
        self._add_record(name, expression, "", PropertyStatus.LOST, is_expression=True, note=note)

    def _translate(
        self,
        name: str,
        argument: str,
        expression: str,
        *,
        original: str | None = None,
        is_expression: bool = True,
        is_path: bool = False,
    ) -> None:
        """Add the argument for an expression.

        Args:
            name: the SSIS property.
            argument: the argument of the operator.
            original: what the package has, if `expression` was derived from it.
            is_expression: whether the original is an expression.
            is_path: whether to map Windows paths.
        """
        original = original or expression
        original = display_expression(original) if is_expression else original
        try:
            template = self._translator.translate(expression, argument=argument, is_path=is_path)
        except (ExpressionError, NotTranslatable) as error:
            self._add_placeholder(name, argument, original, error, is_expression=is_expression)
            return
        self._report_password(name, argument, template.literals)
        if argument == "text":
            self._report_markup(template.literals)
        status = PropertyStatus.TRANSLATED
        if template.constant is not None and argument in _HEADER_ARGUMENTS:
            self._add_constant(name, argument, template.constant, original, status, is_expression=is_expression)
        else:
            self._add_argument(name, argument, template.text, original, status, is_expression=is_expression)

    def _report_markup(self, texts: Iterable[str]) -> None:
        if any(_MARKUP.search(text) for text in texts):
            self._findings.note(
                "html-in-text",
                self._where,
                "The text contains HTML. Like SSIS, the DAG sends it as plain text, so the recipients see the tags.",
                "To have it displayed, rename the argument 'text' to 'html' in the DAG.",
            )

    def _keep_text(self, name: str, argument: str, text: str) -> None:
        """Add the argument for a value that is not an expression."""
        if has_credentials(text):
            reason = "It contains credentials, which were not copied."
            self._add_placeholder(name, argument, text, reason, is_expression=False)
        else:
            self._report_password(name, argument, [text])
            if argument in _HEADER_ARGUMENTS:
                self._add_constant(name, argument, text, text, PropertyStatus.KEPT)
                return
            self._report_markup([text])
            self._add_argument(name, argument, escape_template(text), text)

    def _add_placeholder(
        self, name: str, argument: str, original: str, error: Exception | str, *, is_expression: bool = True
    ) -> None:
        """Add an argument whose template fails until a person replaces it."""
        reason = sanitize(str(error))
        summary = error_summary(error) if isinstance(error, Exception) else reason
        problem = "whose value no mail can have" if isinstance(error, MessageError) else _UNTRANSLATABLE
        self._findings.decision(
            "expression-to-complete",
            self._where,
            f"{name} comes from the expression {sanitize(original)}, {problem}: {summary}"
            if is_expression
            else f"{name} was left out: {summary}",
            f"Write {argument!r} in the DAG; until then, the mail fails because of the placeholder {COMPLETE_ME!r}.",
        )
        self._add_argument(
            name,
            argument,
            f"{{{{ {COMPLETE_ME}.{argument} }}}}",
            original,
            PropertyStatus.DECISION,
            is_expression=is_expression,
            comments=(f"SSIS: {original}", reason) if original else (reason,),
            note=reason,
        )

    def _report_password(self, name: str, argument: str, texts: Iterable[str]) -> None:
        """Report a password in the mail's own text, since the text is now in the DAG file."""
        line = next((line for text in texts if (line := find_password_line(text))), None)
        if line is not None:
            self._findings.decision(
                "password-in-text",
                self._where,
                f"{name} seems to contain a password (line {line} of {argument!r}). It is the mail's own text and was "
                "kept, so the password is in the DAG, and in the report where this property is shown.",
                "Remove it, or read it from a secrets backend. If it is still in use, change it.",
            )

    def _add_argument(
        self,
        name: str,
        argument: str,
        value: object,
        original: str,
        status: PropertyStatus = PropertyStatus.KEPT,
        *,
        is_expression: bool = False,
        comments: tuple[str, ...] = (),
        note: str = "",
    ) -> None:
        self.arguments.append(KeywordArgument(argument, value, comments=comments))
        became = f"{argument}={' '.join(line.strip() for line in expression_lines(value))}"
        self._add_record(name, original, became, status, is_expression=is_expression, note=note)

    def _add_record(
        self,
        name: str,
        original: str,
        became: str,
        status: PropertyStatus,
        *,
        is_expression: bool = False,
        note: str = "",
    ) -> None:
        self.records.append(
            PropertyRecord(
                where=self._where,
                property=name,
                ssis=sanitize(original),
                is_expression=is_expression,
                became=became,
                status=status,
                note=note,
            )
        )
