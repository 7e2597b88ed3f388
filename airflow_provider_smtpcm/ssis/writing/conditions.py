"""Translates the conditions of tasks and alerts, and finds where their results may differ from those in SSIS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from airflow_provider_smtpcm.ssis.expressions import (
    Cast,
    DataType,
    Expression,
    JinjaName,
    TemplateContext,
    TypeSpec,
    Unary,
    condition_to_jinja,
    find_non_boolean_type,
    find_variables,
    is_system_variable,
    parse,
    reads_clock,
)
from airflow_provider_smtpcm.ssis.findings import Question
from airflow_provider_smtpcm.ssis.model import Executable, SendMailTask, Variable, describe_kind
from airflow_provider_smtpcm.ssis.writing.conversion import WritingContext
from airflow_provider_smtpcm.ssis.writing.handler_conditions import SOURCE_NAMES
from airflow_provider_smtpcm.ssis.writing.live_variables import ReadPoint
from airflow_provider_smtpcm.ssis.writing.secrets import reject_credentials, sanitize
from airflow_provider_smtpcm.ssis.writing.symbols import Scope
from airflow_provider_smtpcm.ssis.writing.templates import answer_compared, describe_compared

# The System variables that have the same value in a DAG as in SSIS, so that a condition on them is exact. In a
# callback, SourceName is the display name of the Airflow task.
_EXACT_NAMES = {"SourceName", "PackageName", "PackageID"}
_EXACT_NAMES |= {"InteractiveMode", "OfflineMode", "IgnoreConfigurationsOnLoad"}
_START_TIMES = {"StartTime", "ContainerStartTime"}
_CLOCK = "the clock of the Airflow worker, often in UTC; SSIS uses that of its server."


class ConditionTranslator:
    """Translates a condition, and collects how its result may differ from the one in SSIS.

    Args:
        context: the package's context.
        reader: what depends on the condition.
        template_context: what renders the condition: a task or a callback.
        sources: the executables that may raise the event, for a callback.
    """

    def __init__(
        self,
        context: WritingContext,
        reader: ReadPoint,
        template_context: TemplateContext = TemplateContext.TASK,
        sources: Sequence[Executable] = (),
    ) -> None:
        self._context, self._reader, self._sources_of_event = context, reader, sources
        self._template_context = template_context
        self._reasons: list[str] = []
        self._notes: list[str] = []
        self._questions: dict[str, Question] = {}

    def translate(
        self, expression: str | Expression, scope: Scope, task_name: str | None = None, *, is_disable: bool = False
    ) -> str:
        """Return the Jinja expression, without braces, for a condition or a part of one.

        Args:
            expression: text or syntax tree.
            task_name: the value of `System::TaskName`; None: there is none.
            is_disable: whether it is the negated expression of a Disable property.

        Raises:
            ExpressionError: it cannot be parsed.
            NotTranslatable: Jinja has no equivalent, or it contains credentials.
        """
        symbols = self._context.symbols
        with symbols.params.rollback_on_failure():
            original = parse(expression) if isinstance(expression, str) else expression
            tree = reject_credentials(symbols.inline(original, scope, task_name))
            tree, questions = answer_compared(self._context, tree, scope)
            resolve = symbols.jinja_resolver(scope, self._template_context, self._reader)
            if is_disable and isinstance(tree, Unary):
                tree = replace(tree, operand=self._convert_disable(tree.operand, resolve))
            code = condition_to_jinja(tree, resolve)
        if "ssis." in code:
            self._context.macros.add("ssis")
        self._questions |= questions
        for name in find_variables(tree):
            if name.removeprefix("System::") not in questions:
                self._check_name(name, scope)
        if reads_clock(tree):
            self._check_clock()
        return code

    def add_findings(self, code: str, where: str, exact: str, inexact: str, remedy: str) -> None:
        """Add the findings about the condition.

        Args:
            code, where, remedy: those of the findings.
            exact: the text of the note if the result is the one in SSIS.
            inexact: the text of a decision before its reasons.
        """
        findings = self._context.findings
        for name, question in self._questions.items():
            text = f"{inexact} {describe_compared('It', name)}"
            findings.decision(code, where, text, f"Answer the question, or {remedy[:1].lower()}{remedy[1:]}", question)
        if self._reasons:
            findings.decision(code, where, " ".join([inexact, *self._reasons]), remedy)
        elif not self._questions or self._notes:
            findings.note(code, where, " ".join([exact, *self._notes]))

    def _convert_disable(self, tree: Expression, resolve: Callable[[str], JinjaName]) -> Expression:
        """Return the value of Disable as a Boolean; a constant such as 1 or "True" leaves no doubt."""
        if type_ := find_non_boolean_type(tree, resolve):
            if find_variables(tree):
                self._add(f"The value of Disable is {type_} and not a Boolean. The DAG casts it to DT_BOOL.")
            return Cast(type=TypeSpec(DataType.BOOL), operand=tree)
        return tree

    def _check_clock(self) -> None:
        if self._template_context is TemplateContext.CALLBACK:
            self._add(f"The alert uses {_CLOCK}")
        elif not self._notes:
            self._notes.append(f"The DAG uses {_CLOCK}")

    def _check_name(self, name: str, scope: Scope) -> None:
        symbols, is_callback = self._context.symbols, self._template_context is TemplateContext.CALLBACK
        symbol = symbols.lookup(name, scope)
        if isinstance(symbol, Variable) and is_callback:
            setters = [one.executable for one in symbols.live.setters.of(symbol) if one.event_handler is None]
            if setters and not symbols.is_live(symbol, self._reader):
                self._add(
                    f"In SSIS, {describe_tasks(setters)} sets {symbol.qualified_name}; the alert has its design-time "
                    "value."
                )
        elif symbol is None and is_system_variable(name):
            unqualified = name.removeprefix("System::")
            if unqualified in _START_TIMES and not is_callback:
                self._check_clock()
            elif unqualified not in _EXACT_NAMES:
                place = "a callback" if is_callback else "a task"
                self._add(f"The value of System::{unqualified} in {place} differs from the one in SSIS.")
            elif unqualified in SOURCE_NAMES and not all(map(self._has_same_name, self._sources_of_event)):
                self._add("Not all tasks of the package have a task of the same name in the DAG.")

    def _has_same_name(self, executable: Executable) -> bool:
        """Whether an executable has a task of its own in the DAG, whose name in an alert is the one in SSIS."""
        symbols = self._context.symbols
        is_own = executable is symbols.package.root or executable.id in symbols.flow.local_ids
        return is_own and executable.name == " ".join(executable.name.split()) == sanitize(executable.name)

    def _add(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.append(reason)


def describe_tasks(tasks: Iterable[Executable]) -> str:
    """Return the names of tasks with their kinds: `'Log' (Execute SQL task)`."""
    kinds = ((task.name, "" if isinstance(task, SendMailTask) else describe_kind(task.kind)) for task in tasks)
    return ", ".join(f"{name!r} ({kind})" if kind else repr(name) for name, kind in dict.fromkeys(kinds))
