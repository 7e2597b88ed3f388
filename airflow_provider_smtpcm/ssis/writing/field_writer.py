"""What the fields of a mail have in common: each becomes an argument, and leaves a record of what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import (
    Expression,
    ExpressionError,
    Literal,
    NotTranslatable,
    TemplateContext,
    escape_template,
    find_leading_strings,
    find_variables,
    merge_strings,
    parse,
    replace_strings,
    to_jinja,
    walk,
)
from airflow_provider_smtpcm.ssis.model import SendMailTask, SmtpConnection
from airflow_provider_smtpcm.ssis.output import clean, holds_account
from airflow_provider_smtpcm.ssis.writing.connections import Connections
from airflow_provider_smtpcm.ssis.writing.outcome import Findings, How, PropertyRecord
from airflow_provider_smtpcm.ssis.writing.secrets import (
    behind_a_password,
    password_line,
    reason,
    shown,
    texts_in,
    without_account,
)
from airflow_provider_smtpcm.ssis.writing.source import Argument, expression
from airflow_provider_smtpcm.ssis.writing.symbols import Declared, Names, Scope, value_of

# folded: Paths of Windows as paths of a worker, by a mapping of their beginnings.
#   Either kind of slash, any case, drive letters and UNC paths; the longest beginning wins. It ends where a folder
#   ends:
#   `\\srv\share` is no beginning of `\\srv\share2`.

_WINDOWS = re.compile(r"\\\\[^\\]|//[^/]|[A-Za-z]:(?:[\\/]|\Z)")


class PathMap:
    """The mapping.

    Args:
        pairs: the beginning of a path in Windows, and what it is on a worker.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        known = {_key(windows).rstrip("/"): worker.rstrip("/") for windows, worker in pairs}
        self._pairs = sorted(known.items(), key=lambda pair: (-len(pair[0]), pair[0]))

    def map(self, path: str) -> str | None:
        """The path on a worker; None where no beginning fits."""
        key = _key(path)
        for windows, worker in self._pairs:
            if key.startswith(windows) and key[len(windows) : len(windows) + 1] in ("", "/"):
                return worker + path.replace("\\", "/")[len(windows) :] or "/"
        return None


def is_windows(path: str) -> bool:
    """Whether a text begins like an absolute path of Windows."""
    return _WINDOWS.match(path) is not None


def _key(path: str) -> str:
    return path.replace("\\", "/").lower()


# folded: here began the module itself

# Nobody defines it, so a template that asks for something of it fails, and the mail is not sent.
COMPLETE_ME = "complete_me"
# SSIS splits what a whole expression gives. An operator splits what its template says, so that a value stays one
# address or one file; only what is the whole field, as a value or by `| safe`, may hold several.
_SEPARATORS = {"to": ";,", "cc": ";,", "bcc": ";,", "attachments": "|"}


@dataclass(slots=True, kw_only=True)
class Shared:
    """What the writing of one package has in common.

    Args:
        macros: the macros that its templates use, by the name in them.
    """

    names: Names
    connections: Connections
    paths: PathMap
    findings: Findings
    root_scope: Scope = field(default_factory=dict)
    macros: set[str] = field(default_factory=set)
    used_connections: dict[str, None] = field(default_factory=dict)

    def connection_id(self, connection: SmtpConnection) -> str:
        """The Airflow connection of a connection manager."""
        return self.connections.take(connection, self.names, self.root_scope, self.findings)


class FieldWriter:
    """Writes single fields.

    Args:
        shared: of the package.
        task: the mail.
        scope: the variables that it sees.
        place: whether it becomes a task or a callback.
    """

    def __init__(self, shared: Shared, task: SendMailTask, scope: Scope, place: TemplateContext) -> None:
        self._shared, self._task, self._scope, self._place = shared, task, scope, place
        self._where = "\\".join(task.path)
        self.arguments: list[Argument] = []
        self.records: list[PropertyRecord] = []

    def _path(self, path: str) -> str:
        if not path.strip():
            return path
        mapped = self._shared.paths.map(path.strip())
        if mapped is not None:
            return mapped
        self._tell_unmapped(path.strip())
        return path

    def _tell_unmapped(self, path: str) -> None:
        if is_windows(path) or path.startswith("\\"):
            self._shared.findings.decision(
                "unmapped-path",
                self._where,
                f"{clean(path)} is a path of Windows, and no mapping says where it is on a worker.",
                r"Import again with --map-path '\\server\share=/mnt/share', or write the path into the DAG.",
            )
        elif path and not path.startswith("/"):
            self._shared.findings.decision(
                "unmapped-path",
                self._where,
                f"{clean(path)} does not begin with a drive or a share, so SSIS looks for it in the folder in which it "
                "happens to run; a worker has no such folder.",
                "Write the whole path into the DAG.",
            )

    def _held_paths(self, tree: Expression) -> list[tuple[Declared, str]]:
        """The variables in an expression that hold a path of Windows, with what that is on a worker."""
        found = [self._shared.names.find(name, self._scope) for name in find_variables(tree)]
        held = [(one, value_of(one)) for one in found if one is not None]
        windows = [(one, value) for one, value in held if isinstance(value, str) and is_windows(value.strip())]
        return [(one, mapped) for one, value in windows if (mapped := self._path(value)) != value]

    def _path_texts(self, tree: Expression) -> Expression:
        """With the mapping applied to the texts that a path is put together of."""
        tree = merge_strings(tree)
        for text in find_leading_strings(tree):
            if not is_windows(text.strip()):
                self._tell_unmapped(text.partition("|")[0].strip())

        def whole(text: str) -> str:
            files = text.split("|")
            done = [self._path(one) if is_windows(one.strip()) else one for one in files]
            mapped = mapped_any or done != files
            return "|".join(one.replace("\\", "/") if mapped else one for one in done)

        texts = [one.value for one in walk(tree) if isinstance(one, Literal) and isinstance(one.value, str)]
        mapped_any = any(self._shared.paths.map(one.strip()) for text in texts for one in text.split("|"))
        mapped_any = mapped_any or bool(self._held_paths(tree))
        return replace_strings(tree, whole)

    def _jinja(
        self, tree: Expression, *, path: bool = False, argument: str = ""
    ) -> str | ExpressionError | NotTranslatable:
        """The template of an argument, or why there is none."""
        names = self._shared.names
        try:
            with names.params.given_up_whole():
                tree = without_account(names.inlined(tree, self._scope, self._task.name))
                names.suspect(behind_a_password(tree), self._scope)
                if path:
                    tree = self._path_texts(tree)
                translation = to_jinja(tree, names.resolver(self._scope, self._place))
            for held, mapped in self._held_paths(tree) if path else ():
                names.params.keep_at(held, mapped)
        except (ExpressionError, NotTranslatable) as error:
            return error
        if translation.uses_macros:
            self._shared.macros.add("ssis")
        for note in translation.notes:
            self._shared.findings.note("system-variable", self._where, note)
        if translation.is_template and any(sign in translation.text for sign in _SEPARATORS.get(argument, "")):
            return f"{{% set {argument} %}}{translation.template}{{% endset %}}{{{{ {argument} | safe }}}}"
        return translation.template

    def _translated(
        self,
        name: str,
        argument: str,
        text: str,
        *,
        original: str | None = None,
        is_expression: bool = True,
        path: bool = False,
    ) -> None:
        said = original or text
        said = shown(said) if is_expression else said
        template: str | ExpressionError | NotTranslatable
        try:
            tree = parse(text)
            template = self._jinja(tree, path=path, argument=argument)
        except ExpressionError as error:
            template = error
        if isinstance(template, str):
            inlined = self._shared.names.inlined(tree, self._scope)
            self._tell_password(name, argument, texts_in(inlined))
            self._add(name, argument, template, said, How.TRANSLATED, is_expression=is_expression)
        else:
            self._incomplete(name, argument, said, template, is_expression=is_expression)

    def _written(self, name: str, argument: str, text: str) -> None:
        """A text that the package has, and no expression."""
        if holds_account(text):
            self._incomplete(name, argument, text, "It holds an account, which is not repeated.", is_expression=False)
        else:
            self._tell_password(name, argument, [text])
            self._add(name, argument, escape_template(text), text)

    def _tell_password(self, name: str, argument: str, texts: list[str]) -> None:
        """What an author tells the reader of his mail stays in it; but it stands in a file now."""
        line = next((line for text in texts if (line := password_line(text))), None)
        if line is not None:
            self._shared.findings.decision(
                "password-in-text",
                self._where,
                f"{name} seems to tell a password (line {line} of {argument!r}). It is the mail's own text and was "
                "kept, so the password stands in the DAG, and in the report that lists this property.",
                "Take it out, or take it from where secrets are kept; and change it, if it is still in use.",
            )

    def _incomplete(
        self, name: str, argument: str, original: str, error: Exception | str, *, is_expression: bool = True
    ) -> None:
        why = clean(str(error))
        shortly = reason(error) if isinstance(error, Exception) else why
        self._shared.findings.decision(
            "expression-to-complete",
            self._where,
            f"{name} comes from the expression {clean(original)}, which no template says: {shortly}"
            if is_expression
            else f"{name} is left out: {shortly}",
            f"Write {argument!r} in the DAG; until then the mail fails, by {COMPLETE_ME!r} in it.",
        )
        comments = (f"SSIS: {original}", why)
        value = f"{{{{ {COMPLETE_ME}.{argument} }}}}"
        self._add(
            name, argument, value, original, How.DECISION, is_expression=is_expression, comments=comments, note=why
        )

    def _add(
        self,
        name: str,
        argument: str,
        value: object,
        original: str,
        how: How = How.KEPT,
        *,
        is_expression: bool = False,
        comments: tuple[str, ...] = (),
        note: str = "",
    ) -> None:
        self.arguments.append(Argument(name=argument, value=value, comments=comments))
        became = f"{argument}={' '.join(line.strip() for line in expression(value))}"
        self._record(name, original, became, how, is_expression=is_expression, note=note)

    def _record(
        self, name: str, original: str, became: str, how: How, *, is_expression: bool = False, note: str = ""
    ) -> None:
        self.records.append(
            PropertyRecord(
                where=self._where,
                property=name,
                ssis=clean(original),
                is_expression=is_expression,
                became=became,
                how=how,
                note=note,
            )
        )
