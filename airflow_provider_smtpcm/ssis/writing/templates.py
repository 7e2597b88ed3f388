"""Translates the SSIS expressions of a package to Jinja templates.

Variables are inlined, and Windows paths are mapped to paths of a worker. An expression that contains the credentials of
a connection string is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_smtpcm.ssis.expressions import (
    DATE_FORMAT_NOTE,
    Call,
    DataType,
    Expression,
    ExpressionError,
    Literal,
    Name,
    TemplateContext,
    TypeSpec,
    contains_choice,
    find_leading_strings,
    find_variables,
    merge_strings,
    parse,
    quote_string,
    replace_compared,
    replace_strings,
    to_jinja,
    walk,
)
from airflow_provider_smtpcm.ssis.findings import KEEP, Question
from airflow_provider_smtpcm.ssis.model import (
    Executable,
    ExpressionTask,
    Package,
    Variable,
)
from airflow_provider_smtpcm.ssis.windows_paths import PathMap, is_windows_path, path_root
from airflow_provider_smtpcm.ssis.writing.conversion import WritingContext
from airflow_provider_smtpcm.ssis.writing.flow import MappedLoop
from airflow_provider_smtpcm.ssis.writing.live_variables import ReadPoint
from airflow_provider_smtpcm.ssis.writing.python_source import FunctionCall, keywords
from airflow_provider_smtpcm.ssis.writing.secrets import (
    display_expression,
    find_password_names,
    joined_literals,
    reject_credentials,
    sanitize,
)
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, Symbol, SymbolTable, design_value

#: A name that no template defines: reading an attribute of it fails, so the mail is not sent.
COMPLETE_ME = "complete_me"
# The separators by argument. SSIS splits the value of the whole expression. An operator splits the template and then
# renders each part, so that a value stays one address or one file; only a template that is a single value, or ends in
# `| safe`, may yield several.
_SEPARATORS = {"to": ";,", "cc": ";,", "bcc": ";,", "attachments": "|"}
_RECIPIENTS = {"to", "cc", "bcc"}
_RECIPIENT_LINES = re.compile(r"[ \t]*[;,]?[ \t]*[\r\n]+[\s;,]*")
_US_ENGLISH = 1033
_PASSWORD_WORD = re.compile(r"password|passwd|pwd", re.IGNORECASE)


def _ask_for_production(name: str, what: str, example: str, counterpart: str) -> tuple[Question, str]:
    question = Question(
        key=f"variable System::{name}",
        text=f"Expressions compare System::{name}. Which {what} in production? Answer with its name as SSIS has it, "
        f"such as {example}, or {KEEP} to compare {counterpart} instead.",
        guess=KEEP,
    )
    return question, f"for which the DAG has {counterpart}."


# The System variables that a person must answer where an expression compares them, with the sentence about each.
_COMPARED = {
    "MachineName": _ask_for_production(
        "MachineName", "server runs the packages", "SQLPROD01", "the name of the Airflow worker"
    ),
    "UserName": _ask_for_production(
        "UserName",
        "Windows account runs the packages",
        r"CORP\etl",
        "the user who triggered the run or owns the task",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The template for an expression.

    Args:
        text: the template.
        literals: the literal texts in the expression; texts joined by `+` are one.
        constant: the text of an expression that is a constant; None for any other.
    """

    text: str
    literals: list[str]
    constant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTranslator:
    """Translates the expressions of one executable.

    Args:
        scope: resolves the names in the expressions.
        template_context: what renders the templates: a task or a callback.
        reader: the executable; its name is the value of `System::TaskName`.
    """

    context: WritingContext
    scope: Scope
    template_context: TemplateContext
    reader: ReadPoint

    @classmethod
    def inside(
        cls,
        executable: Executable,
        context: WritingContext,
        scope: Scope,
        template_context: TemplateContext = TemplateContext.TASK,
    ) -> TemplateTranslator:
        """Return the translator for the expressions of an executable."""
        reader = ReadPoint.inside(executable, is_callback=template_context is TemplateContext.CALLBACK)
        return cls(context=context, scope=scope, template_context=template_context, reader=reader)

    def translate(self, expression: str, *, argument: str = "", is_path: bool = False) -> Template:
        """Return the template for an expression.

        Args:
            argument: the operator's argument; the values of `to`, `cc`, `bcc` and `attachments` may be lists.
            is_path: whether to map Windows paths: in literals at once, and what variables contain in each run.

        Raises:
            ExpressionError: the expression cannot be parsed.
            NotTranslatable: Jinja has no equivalent, or the expression contains credentials.
        """
        context, symbols = self.context, self.context.symbols
        original = parse(expression)
        with symbols.params.rollback_on_failure():
            tree = reject_credentials(symbols.inline(original, self.scope, self.reader.name))
            tree, questions = answer_compared(context, tree, self.scope)
            symbols.mark_secret(find_password_names(tree), self.scope)
            if is_path:
                tree, is_mapped_in_run = self._with_mapped_paths(merge_strings(tree))
            elif argument in _RECIPIENTS:
                tree = replace_strings(merge_strings(tree), separate_lines)
            translation = to_jinja(tree, symbols.jinja_resolver(self.scope, self.template_context, self.reader))
        if not is_path and argument in _RECIPIENTS:
            for symbol, text in self._text_variables(tree):
                symbols.params.set_default(symbol, separate_lines(text.strip()))
        if translation.uses_macros:
            context.macros.add("ssis")
        self._report(expression, translation.notes, questions)
        template = translation.template
        if translation.is_template and any(sign in translation.literal_text for sign in _SEPARATORS.get(argument, "")):
            template = f"{{% set {argument} %}}{template}{{% endset %}}{{{{ {argument} | safe }}}}"
        if is_path and is_mapped_in_run:
            template = self._map_in_each_run(template, tree)
        literals = joined_literals(symbols.inline(original, self.scope))
        return Template(text=template, literals=literals, constant=translation.constant)

    def _report(self, expression: str, notes: Iterable[str], questions: Mapping[str, Question]) -> None:
        """Add the findings about an expression.

        Args:
            notes: those of its translation.
            questions: those about the System variables that it compares, by variable.
        """
        findings, where = self.context.findings, self.reader.where
        for note in notes:
            if note != DATE_FORMAT_NOTE:
                findings.note("system-variable", where, note)
            elif self.context.symbols.package.properties.get("LocaleID") != _US_ENGLISH:
                findings.note("date-format", where, note)
        for name, question in questions.items():
            findings.decision(
                "system-variable",
                where,
                describe_compared(f"The expression {display_expression(expression)}", name),
                "Answer the question, or correct the expression in the DAG.",
                question,
            )

    def typed(self, expression: str, data_type: DataType | None) -> FunctionCall:
        """Return the call that makes the value of an expression, with its type, from a template.

        Raises:
            ExpressionError, NotTranslatable: as in `translate`.
        """
        self.context.imports.add("TypedTemplate")
        arguments = keywords(template=self.translate(expression).text)
        if data_type not in {None, DataType.WSTR}:
            arguments += keywords(data_type=str(data_type))
        return FunctionCall("TypedTemplate", arguments)

    def map_path(self, path: str) -> str:
        """Return the path on a worker, by an option or an answer; unchanged if there is neither.

        If no option maps it, its root is asked for, or a relative path is reported.
        """
        if not path.strip():
            return path
        if self.context.paths.map(path.strip()) is None:
            self._report_unmapped(path.strip())
        return self._find_mapped(path.strip()) or path

    def _find_mapped(self, path: str) -> str | None:
        """Return the path on a worker by an option or an answer, or None."""
        mapped = self.context.paths.map(path)
        if mapped is None and is_windows_path(path):
            root = path_root(path)
            answer = self.context.findings.value(f"path {root}")
            mapped = None if answer is None else PathMap([(root, answer)]).map(path)
        return mapped

    def _report_unmapped(self, path: str) -> None:
        if is_windows_path(path) or path.startswith("\\"):
            root = path_root(path)
            self.context.findings.decision(
                "unmapped-path",
                self.reader.where,
                f"{sanitize(path)} is a Windows path that no --map-path option maps to a path on a worker.",
                r"Import again with --map-path '\\server\share=/mnt/share', or write the path in the DAG.",
                Question(
                    key=f"path {root}",
                    text=f"Where is {root} on the workers? Answer with a path such as /mnt/share, or {KEEP}, "
                    "and write the paths in the DAGs yourself.",
                ),
            )
        elif path and not path.startswith("/"):
            self.context.findings.decision(
                "unmapped-path",
                self.reader.where,
                f"{sanitize(path)} is a relative path, which SSIS looks up in its current folder; a worker has no such "
                "folder.",
                "Write the full path in the DAG.",
            )

    def _map_in_each_run(self, template: str, tree: Expression) -> str:
        """Return the template with a macro that maps its paths, and fails for a Windows path that it does not know."""
        findings, table = self.context.findings, self.context.symbols
        symbols = [table.lookup(name, self.scope) for name in find_variables(tree)]
        live = [each for each in symbols if isinstance(each, Variable) and table.is_live(each, self.reader)]
        # A task that replaces a placeholder is written for the workers, so it sets paths that exist there.
        translated = [each for each in live if table.live.is_translated(each, self.reader)]
        known = [path for each in live for path in self._find_known_paths(each, is_guess=each in translated)]
        for path in known:
            self._map_paths(path)  # asks for the roots that no option maps
        pairs = {**findings.find_values("path "), **dict(self.context.paths.pairs)}
        setters = "; ".join(table.live.describe_setters(each) for each in translated)
        if setters and not pairs and not known:
            findings.decision(
                "unmapped-path",
                self.reader.where,
                f"{setters} in each run. The DAG uses the value as a path. No --map-path option is given, so the task "
                "fails if it is a Windows path.",
                r"Import again with --map-path '\\server\share=/mnt/share', or let that task set a path on a worker.",
            )
        elif setters:
            self.context.paths.unused.clear()  # any of them may be meant
            mapped = f" A path that begins with {' or '.join(map(sanitize, pairs))} is then mapped." if pairs else ""
            findings.note(
                "path-mapped-in-each-run",
                self.reader.where,
                f"{setters} in each run.{mapped} The task fails if it is {'another' if pairs else 'a'} Windows path, "
                "which no worker has.",
            )
        is_mapped = pairs and (live or any(self._map_paths(text) != text for text in self._find_texts(tree)))
        if not (is_mapped or translated or known):
            return template
        self.context.macros.add("ssis")
        mapped = ", ".join(f"{quote_string(windows)}: {quote_string(worker)}" for windows, worker in pairs.items())
        names = ", ".join(dict.fromkeys(each.qualified_name for each in live))
        arguments = f"paths, {{{mapped}}}" + (f", {quote_string(names)}" if names else "")
        return f"{{% set paths %}}{template}{{% endset %}}{{{{ ssis.worker_paths({arguments}) | safe }}}}"

    def _find_known_paths(self, variable: Variable, *, is_guess: bool) -> list[str]:
        """Return the Windows paths that a variable has in a run, as far as the package tells.

        Args:
            is_guess: whether its design-time value counts if the package tells nothing else.
        """
        live = self.context.symbols.live
        texts = [text for tree in live.find_assigned(variable, self.reader) for text in self._find_texts(tree)]
        texts += [text for text in live.find_items(variable, self.reader) if isinstance(text, str)]
        texts += map(self._find_folder, live.find_loops(variable, self.reader))
        known = [text for text in texts if is_windows_path(text.strip())]
        value = design_value(variable)
        if not known and is_guess and isinstance(value, str) and is_windows_path(value.strip()):
            known = [value]
        return list(dict.fromkeys(known))

    def _find_folder(self, loop: MappedLoop) -> str:
        """Return the folder whose files give a loop their paths, as the package has it; empty if it is not known."""
        if loop.files is None or not loop.yields_paths:
            return ""
        expression = loop.files.expressions.get("Directory")
        if expression is None:
            return loop.files.folder
        table = self.context.symbols
        try:
            return table.evaluate(expression, table.scope_at(loop.loop.path), is_guess=True)
        except (ExpressionError, RecursionError):
            return ""

    def read_file(self, path: str) -> str:
        """Return the template that reads the text of a file.

        Args:
            path: the template for its path.
        """
        self.context.macros.add("read_message_file")
        if path.startswith("{{ ") and path.endswith(" }}") and path.count("{{") == 1:
            return f"{{{{ read_message_file({path[3:-3]}) }}}}"
        return f"{{% set path %}}{path}{{% endset %}}{{{{ read_message_file(path) }}}}"

    def _text_variables(self, tree: Expression) -> list[tuple[Symbol, str]]:
        """Return the variables in an expression that keep their text in each run, with the text."""
        table = self.context.symbols
        symbols = [table.lookup(name, self.scope) for name in find_variables(tree)]
        constant = [symbol for symbol in symbols if symbol is not None and not table.is_live(symbol, self.reader)]
        values = [(symbol, design_value(symbol)) for symbol in constant]
        return [(symbol, text) for symbol, text in values if isinstance(text, str) and text.strip()]

    def _map_paths(self, text: str) -> str:
        """Return a text with each of its Windows paths mapped; `|` separates several."""
        return "|".join(self.map_path(path) if is_windows_path(path.strip()) else path for path in text.split("|"))

    def _find_texts(self, tree: Expression) -> list[str]:
        """Return the literals in an expression, and the texts of its variables that keep them in each run."""
        literals = [str(node.value) for node in _find_literals(tree)]
        return [*literals, *(text for _, text in self._text_variables(tree))]

    def _with_mapped_paths(self, tree: Expression) -> tuple[Expression, bool]:
        """Return the tree with mapped paths, and whether its value must be mapped in each run instead.

        Only literal folders, and an expression without variables, are mapped at once: a variable keeps its value, which
        other fields of the mail may show.
        """
        leading = find_leading_strings(tree)
        for text in leading:
            if not is_windows_path(text.strip()):
                self._report_unmapped(text.partition("|")[0].strip())
        texts = self._find_texts(tree)
        mapped = [self._map_paths(text) for text in texts]  # also reports the paths that no option maps
        variables = [text for _, text in self._text_variables(tree)]
        # Each path begins with a literal, and no function looks for a backslash, which it would no longer find.
        is_simple = len(leading) == 1 and not contains_choice(tree) and all(all(one.split("|")[1:]) for one in texts)
        calls = [call for call in walk(tree) if isinstance(call, Call)]
        is_simple = is_simple and not any("\\" in str(node.value) for call in calls for node in _find_literals(call))
        if find_variables(tree) and (not is_simple or any("\\" in text for text in variables)):
            return tree, True
        is_mapped = mapped != texts

        def map_text(text: str) -> str:
            # The path may continue in other literals: once a folder is mapped, their backslashes are replaced, too.
            return self._map_paths(text).replace("\\", "/") if is_mapped else text

        return replace_strings(tree, map_text), False


def _find_literals(tree: Expression) -> list[Literal]:
    """Return the string literals in an expression."""
    return [node for node in walk(tree) if isinstance(node, Literal) and isinstance(node.value, str)]


def separate_lines(recipients: str) -> str:
    """Return a list of recipients on one line: a line break separates them, as a semicolon does."""
    return _RECIPIENT_LINES.sub("; ", recipients)


def answer_compared(context: WritingContext, tree: Expression, scope: Scope) -> tuple[Expression, dict[str, Question]]:
    """Return a tree in which the answers replace the System variables in comparisons, and the questions by variable.

    A package compares the machine or the user to tell production from development. No worker has such a name.

    Args:
        scope: resolves the names in the tree.
    """
    questions: dict[str, Question] = {}

    def answer(node: Name) -> Expression:
        name = node.name.removeprefix("System::")
        if name not in _COMPARED or "::" in name or context.symbols.lookup(node.name, scope) is not None:
            return node
        question, _ = _COMPARED[name]
        questions[name] = question
        value = context.findings.value(question.key)
        return node if value is None else Literal(type=TypeSpec(DataType.WSTR), value=value)

    return replace_compared(tree, answer), questions


def describe_compared(subject: str, name: str) -> str:
    """Return the sentence about a System variable in a comparison of the subject."""
    return f"{subject} compares System::{name}, {_COMPARED[name][1]}"


def error_summary(error: Exception) -> str:
    """Return the message of an error without the lines that show the position in the expression."""
    return sanitize(str(error)).partition("\n    ")[0]


def mark_passwords(symbols: SymbolTable) -> None:
    """Mark the variables that any expression of the package uses as a password, before their values are written."""
    package = symbols.package
    for text in _find_expressions(package):
        if not _PASSWORD_WORD.search(text):
            continue
        try:
            names = set(find_password_names(parse(text)))
        except (ExpressionError, RecursionError):
            continue
        known: tuple[Symbol, ...] = (*package.parameters, *package.variables)
        for symbol in known:
            if names & {symbol.qualified_name, symbol.name}:
                symbols.params.mark_secret(symbol)


def _find_expressions(package: Package) -> Iterator[str]:
    for smtp in package.connection_managers:
        yield from smtp.expressions.values()
    for database in package.database_connections:
        yield from database.expressions.values()
    for variable in package.variables:
        yield variable.expression or ""
    for executable, _ in package.walk_executables():
        yield from executable.expressions.values()
        if isinstance(executable, ExpressionTask):
            yield executable.expression.partition("=")[2]
