"""The fields of a Send Mail task as arguments of the operator or the notifier. Knows no flow.

An expression wins over what is written beside it, which is what the developer's machine evaluated last. What cannot be
said as a template becomes `{{ complete_me.subject }}`, which fails, and the original stands above it as a comment.
"""

from __future__ import annotations

import re

from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    TemplateContext,
    escape_template,
    parse,
    quote_string,
)
from airflow_provider_smtpcm.ssis.model import MessageSourceType, SendMailTask, SmtpConnection, Variable
from airflow_provider_smtpcm.ssis.output import clean
from airflow_provider_smtpcm.ssis.writing.field_writer import FieldWriter, Shared
from airflow_provider_smtpcm.ssis.writing.outcome import How
from airflow_provider_smtpcm.ssis.writing.secrets import shown
from airflow_provider_smtpcm.ssis.writing.symbols import Scope

DEFAULT_CONNECTION = "smtpcm_default"
_PRIORITIES = {"high": "high", "1": "high", "2": "high", "low": "low", "5": "low", "4": "low"}
_TEXTS = (
    ("FromLine", "from_line", "from_address"),
    ("ToLine", "to_line", "to"),
    ("CCLine", "cc_line", "cc"),
    ("BCCLine", "bcc_line", "bcc"),
    ("Subject", "subject", "subject"),
)
_BREAK = re.compile(r"\s*[\r\n\t]\s*")
_RECIPIENTS = {"to", "cc", "bcc"}
_USUAL_DESCRIPTIONS = {"", "send mail task"}


class Fields(FieldWriter):
    """The arguments of one mail, as they grow.

    Args:
        shared: of the package.
        task: the mail.
        scope: the variables that it sees.
        place: whether it becomes a task or a callback.
    """

    def __init__(self, shared: Shared, task: SendMailTask, scope: Scope, place: TemplateContext) -> None:
        super().__init__(shared, task, scope, place)
        self.connection = self._connection()
        for name, attribute, argument in _TEXTS:
            self._line(name, getattr(task, attribute), argument)
        if not any(one.name in _RECIPIENTS for one in self.arguments):
            shared.findings.decision(
                "no-recipient", self._where, "There is no recipient, and SSIS fails here.", "Name one in the DAG."
            )
        self._message()
        self._priority()
        self._attachments()
        self._rest()

    # --- One way for each property.

    def _connection(self) -> str:
        task = self._task
        found, how = task.connection, How.MAPPED
        comments: tuple[str, ...] = ()
        if (text := task.expressions.get("SmtpConnection")) is not None:
            found = self._named(text)
        own = self._shared.names.package.connection_managers
        if found is None and "SmtpConnection" not in task.expressions and len(own) == 1:
            found, how = own[0], How.DECISION
            comments = (f"SSIS: a connection manager that is missing; {found.name!r} is the only one of the package.",)
        if found is None:
            how = How.DECISION
            meant = shown(text) if text is not None else clean(task.connection_reference)
            comments = (f"SSIS: the connection manager {meant or 'is missing'}",)
            self._shared.findings.decision(
                "connection-to-choose",
                self._where,
                f"Which connection manager is meant cannot be told; the mail has {DEFAULT_CONNECTION!r}.",
                f"Set smtpcm_conn_id in the DAG, or make a connection {DEFAULT_CONNECTION!r}.",
            )
        conn_id = DEFAULT_CONNECTION if found is None else self._shared.connection_id(found)
        self._shared.used_connections[conn_id] = None
        original = text if text is not None else (found.name if found else task.connection_reference)
        self._add(
            "SmtpConnection",
            "smtpcm_conn_id",
            conn_id,
            original,
            how,
            is_expression=text is not None,
            comments=comments,
        )
        return conn_id

    def _named(self, text: str) -> SmtpConnection | None:
        try:
            name = self._shared.names.known(text, self._scope)
        except (ExpressionError, RecursionError):
            return None
        return next((one for one in self._shared.names.package.connection_managers if one.name == name), None)

    def _line(self, name: str, written: str, argument: str) -> None:
        text = self._task.expressions.get(name)
        if text is None and not written.strip(" ;" if argument in _RECIPIENTS else None):
            if name == "FromLine":
                self._shared.findings.decision(
                    "no-sender",
                    self._where,
                    "FromLine is empty, and SSIS fails here. In Airflow the connection's from_address is taken.",
                    "Set from_address of the connection, or the field in the DAG.",
                )
            return
        if text is None:
            # Of several lines, each is a name or an address; a header is one.
            written = written if name == "Subject" else _BREAK.sub(" ", written).strip()
            self._written(name, argument, written)
            return
        self._translated(name, argument, text)

    def _message(self) -> None:
        task, source = self._task, self._task.message_source
        text = task.expressions.get("MessageSource")
        kind = self._source_type()
        if kind is MessageSourceType.VARIABLE:
            self._variable(source, text)
        elif kind is MessageSourceType.FILE_CONNECTION:
            self._file(text)
        elif text is not None:
            self._translated("MessageSource", "text", text)
        elif task.has_unreadable_data:
            self._incomplete("MessageSource", "text", "", "The task's own properties cannot be read.")
        elif source:
            self._written("MessageSource", "text", source)
        if kind is not MessageSourceType.DIRECT_INPUT:
            self._record("MessageSourceType", str(kind), "text", How.MAPPED)
        if not any(one.name == "text" for one in self.arguments) and self._place is TemplateContext.CALLBACK:
            # An alert without a text is the page that the notifier makes itself.
            comment = "SSIS: a mail without text; with no text here it would be the default page"
            self._add("MessageSource", "text", " ", "", How.MAPPED, comments=(comment,))

    def _source_type(self) -> MessageSourceType:
        text = self._task.expressions.get("MessageSourceType")
        if text is None:
            return self._task.message_source_type
        numbers = {
            "0": MessageSourceType.DIRECT_INPUT,
            "1": MessageSourceType.FILE_CONNECTION,
            "2": MessageSourceType.VARIABLE,
        }
        try:
            return numbers[self._shared.names.known(text, self._scope)]
        except (ExpressionError, KeyError, RecursionError):
            self._shared.findings.decision(
                "message-source-type",
                self._where,
                f"MessageSourceType comes from the expression {shown(text)}; taken as DirectInput.",
                "Look at where the text should come from.",
            )
            return MessageSourceType.DIRECT_INPUT

    def _variable(self, source: str, text: str | None) -> None:
        name = source.strip()
        if text is not None:
            try:
                name = self._shared.names.known(text, self._scope).strip()
            except (ExpressionError, RecursionError) as error:
                self._incomplete("MessageSource", "text", text, error)
                return
        found = self._shared.names.find(name, self._scope)
        if isinstance(found, Variable) and found.data_type != 8:
            self._shared.findings.decision(
                "message-variable-no-text",
                self._where,
                f"The text comes from {name}, which is no String; SSIS fails here.",
                "Look at what the text should be.",
            )
        self._translated("MessageSource", "text", f"@[{name}]", original=name, is_expression=False)

    def _file(self, text: str | None) -> None:
        file = self._task.message_file
        code = None if file is None else file.expressions.get("ConnectionString")
        if file is None or text is not None:
            original = text if text is not None else self._task.message_source
            why = "The text comes from a file that is not known."
            self._incomplete("MessageSource", "text", original, why, is_expression=text is not None)
            return
        for one in file.set_by if code is None else ():
            said = f"The path of the File connection manager {file.name!r} is that of the parameter {one.by} in "
            self._shared.findings.note("connection-parameter", self._where, f"{said}{one.source}.")
        try:
            tree = parse(code) if code is not None else None
        except ExpressionError as error:
            self._incomplete("MessageSource", "text", code or "", error)
            return
        if tree is None:
            path = quote_string(self._path(file.connection_string))
            template = f"{{{{ read_message_file({path}) }}}}"
        else:
            translation = self._jinja(tree, path=True)
            if isinstance(translation, str) and translation.startswith("{{ ") and translation.count("{{") == 1:
                template = f"{{{{ read_message_file({translation[3:-3]}) }}}}"
            elif isinstance(translation, str):
                template = f"{{% set path %}}{translation}{{% endset %}}{{{{ read_message_file(path) }}}}"
            else:
                self._incomplete("MessageSource", "text", code or "", translation)
                return
        self._shared.macros.add("read_message_file")
        comment = "the file is read as it is; it is no template"
        self._add("MessageSource", "text", template, code or file.connection_string, How.MAPPED, comments=(comment,))

    def _priority(self) -> None:
        text = self._task.expressions.get("Priority")
        if text is None:
            written = self._task.priority.strip()
            word = _PRIORITIES.get(written.lower(), "normal")
            if word != "normal":
                self._add("Priority", "priority", word, written, How.MAPPED)
            elif written.lower() not in ("", "normal", "3"):
                note = "SSIS knows no such priority; 0 is what a designer leaves beside an expression"
                self._record("Priority", written, "", How.MAPPED, note=note)
            return
        choice = f'({text}) == 1 ? "high" : ({text}) == 5 ? "low" : "normal"'
        self._translated("Priority", "priority", choice, original=text)

    def _attachments(self) -> None:
        text, written = self._task.expressions.get("FileAttachments"), self._task.file_attachments
        if text is not None:
            self._translated("FileAttachments", "attachments", text, path=True)
            return
        files = [one.strip() for one in written.split("|") if one.strip()]
        if files:
            mapped = [escape_template(self._path(one)) for one in files]
            how = How.KEPT if mapped == files else How.MAPPED
            self._add("FileAttachments", "attachments", mapped, written, how)

    def _rest(self) -> None:
        description = self._task.description.strip()
        if "Description" in self._task.expressions:
            text = self._task.expressions["Description"]
            self._record("Description", text, "", How.LOST, is_expression=True, note="it is no part of the mail")
        elif description.lower() not in _USUAL_DESCRIPTIONS and description != self._task.name:
            if self._place is TemplateContext.TASK:
                self._add("Description", "doc", clean(description), description)
            else:
                self._record("Description", description, "", How.LOST, note="a callback has none")
        known = {"FromLine", "ToLine", "CCLine", "BCCLine", "Subject", "MessageSource", "MessageSourceType", "Priority"}
        known |= {"FileAttachments", "SmtpConnection", "Description", "Disable"}
        for name, text in self._task.expressions.items():
            if name not in known:
                self._record(name, text, "", How.LOST, is_expression=True, note="it is no part of the mail")
