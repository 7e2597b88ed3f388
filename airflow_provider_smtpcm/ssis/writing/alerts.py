"""Alerts: each mail of an event handler as a `SendMailNotifier`, with the condition under which SSIS sends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    NotTranslatable,
    TemplateContext,
    find_variables,
    parse,
)
from airflow_provider_smtpcm.ssis.findings import Question
from airflow_provider_smtpcm.ssis.model import (
    Container,
    EventHandler,
    Executable,
    MessageSourceType,
    SendMailTask,
    Variable,
)
from airflow_provider_smtpcm.ssis.writing.conditions import ConditionTranslator, describe_tasks
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord, PropertyRecord, PropertyStatus, WritingContext
from airflow_provider_smtpcm.ssis.writing.handler_conditions import (
    Condition,
    HandlerMail,
    Run,
    SourceKnowledge,
    Specialized,
    Test,
    combine,
    condition_to_code,
    display_condition,
    find_tests,
)
from airflow_provider_smtpcm.ssis.writing.handler_values import HandlerValue, ask_for_value
from airflow_provider_smtpcm.ssis.writing.live_variables import ReadPoint
from airflow_provider_smtpcm.ssis.writing.python_source import (
    FunctionCall,
    KeywordArgument,
    UniqueNames,
    slug,
    variable_name,
)
from airflow_provider_smtpcm.ssis.writing.secrets import display_expression, name_for_id, sanitize
from airflow_provider_smtpcm.ssis.writing.send_mail_task import MailConverter
from airflow_provider_smtpcm.ssis.writing.templates import COMPLETE_ME, error_summary

ON_FAILURE, ON_SUCCESS, ON_EXECUTE = "on_failure_callback", "on_success_callback", "on_execute_callback"
# The callback arguments for each event, in lower case. OnError and OnTaskFailed reach the handlers of a container from
# the tasks inside; OnPreExecute and OnPostExecute are raised for the container itself, too.
EVENTS_OF_TASKS = {"onerror": (ON_FAILURE,), "ontaskfailed": (ON_FAILURE,)}
EVENTS_OF_EXECUTABLES = {"onpostexecute": (ON_SUCCESS, ON_FAILURE), "onpreexecute": (ON_EXECUTE,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierDefinition:
    """A `SendMailNotifier`, which the module defines above the DAG.

    Args:
        where: the SSIS path of the mail.
        executables: those for which SSIS sends the mail.
    """

    name: str
    where: str
    call: FunctionCall
    comment: str
    executables: tuple[Executable, ...]


class AlertWriter:
    """Converts a Send Mail task in an event handler to a notifier.

    Args:
        context: the package's context.
        variable_names: allocates the names of the module's variables.
        mail: the task, with its condition.
        handler: the event handler.
        owner: the executable with the event handler.

    Attributes:
        record: what became of the mail.
    """

    def __init__(
        self,
        context: WritingContext,
        variable_names: UniqueNames,
        mail: HandlerMail,
        handler: EventHandler,
        owner: Executable,
    ) -> None:
        self._context, self._findings, self._variable_names = context, context.findings, variable_names
        self._mail, self._handler, self._owner = mail, handler, owner
        self._knowledge = SourceKnowledge(context.symbols)
        self._event = handler.event_name.lower()
        self._sources = _find_sources(owner, self._event)
        self._where = mail.task.where
        self.record = MailRecord(where=self._where, event=handler.event_name)

    def write(self) -> NotifierDefinition | None:
        """Return the notifier of the mail; None if the mail is left out."""
        task, run = self._mail.task, self._mail.run
        self._report_lost(run)
        for executable in run.forced.values():
            text = (
                f"ForceExecutionResult of {executable.name!r} is {executable.force_result}. This influences the result "
                "of the container around it, and so whether SSIS sends the mail."
                if executable.force_result
                else f"SSIS counts {executable.name!r} as a success until it has {executable.maximum_errors} errors "
                "(MaximumErrorCount); a task that fails may raise several. The alert takes it as a success."
            )
            self._findings.decision(
                "forced-result",
                self._where,
                text,
                "Check whether the alert is meant to be sent.",
            )
        if run.condition is False:
            if not run.lost and not run.forced:
                self._report_never(run.condition)
            return None
        chosen = self._choose_sources(run.condition)
        if chosen is None:
            return None
        condition, executables = chosen
        converter = MailConverter(self._context, task, self._mail.scope, TemplateContext.CALLBACK)
        self._complete_recipients(converter)
        self._add_condition(converter, condition)
        notifier = self._define(converter, executables)
        self._report_assumed(run)
        self._report_set_in_handler(run.condition)
        for loop in self._mail.loops:
            self._findings.decision(
                "loop-runs-once",
                loop.where,
                f"{loop.name!r} is a {loop.kind} in an event handler. A callback sends each mail in it once.",
                "If the mail must be sent for each item, give the alert all recipients, or send the mails with a "
                "MailMergeOperator in the DAG.",
            )
        self.record = converter.to_record(f"callback {notifier.name}", self._handler.event_name)
        return notifier

    def _define(self, converter: MailConverter, executables: tuple[Executable, ...]) -> NotifierDefinition:
        task, owner, event_name = self._mail.task, self._owner, self._handler.event_name
        event = slug(event_name, "event").replace("on", "on_", 1)
        return NotifierDefinition(
            name=self._variable_names.allocate(variable_name(slug(f"{event}_{name_for_id(task.name)}", event))),
            where=self._where,
            call=FunctionCall("SendMailNotifier", converter.arguments),
            comment=f"{event_name} of {'the package' if len(owner.path) == 1 else owner.name}: {task.name}",
            executables=executables,
        )

    def _choose_sources(self, condition: Condition) -> tuple[Condition, tuple[Executable, ...]] | None:
        """Return the condition of the alert, with the executables for which it is called; None: it is never sent."""
        if self._mail.error is not None:
            return condition, tuple(self._sources)
        found = self._knowledge.specialize(condition, self._sources)
        possible = [one for one in found if one.condition is not False]
        if found and not possible:
            self._report_never(condition)
            return None
        if not possible:
            return condition, ()
        if len(possible) == 1 and (len(found) == 1 or self._event in EVENTS_OF_EXECUTABLES):
            return possible[0].condition, possible[0].sources
        return self._tell_sources_apart(condition, found), tuple(one for each in possible for one in each.sources)

    def _tell_sources_apart(self, condition: Condition, found: Sequence[Specialized]) -> Condition:
        """Return a condition that tests the name of the event's source, and not its id or its description.

        If two executables with different conditions share a name, the condition is returned with its tests as they are.

        Args:
            found: the condition for each group of sources.
        """
        used = self._knowledge.find_source_names(condition)
        names = [{source.name for source in one.sources} for one in found]
        is_ambiguous = sum(map(len, names)) > len(set().union(*names))
        if used == {"SourceName"} or is_ambiguous:
            return self._knowledge.fold(condition, None)
        return combine(
            "or",
            [
                combine("and", [self._knowledge.name_test(one.sources), one.condition])
                for one in found
                if one.condition is not False
            ],
        )

    def _report_never(self, condition: Condition) -> None:
        """Report a mail whose condition is not true for any executable that raises the event in the DAG."""
        text = display_condition(condition)
        if self._event in EVENTS_OF_TASKS and self._knowledge.find_source_names(condition):
            self._findings.decision(
                "condition-in-handler",
                self._where,
                f"SSIS sends the mail only if {text}. No task of the DAG meets that condition; only an error of the "
                "package itself or of a container does, such as one in the expression of a precedence constraint. The "
                "mail is not in the DAG.",
                "If it is meant to be sent once when the package fails, set a SendMailNotifier as on_failure_callback "
                "of the DAG.",
            )
        else:
            self._findings.note(
                "condition-in-handler", self._where, f"SSIS never sends the mail ({text}), so it is not in the DAG."
            )

    def _add_condition(self, converter: MailConverter, condition: Condition) -> None:
        """Add the argument `only_if`, and report where it may differ from SSIS's condition."""
        error: Exception | None = self._mail.error
        if error is None and condition is True:
            return
        text = display_condition(condition)
        reader = ReadPoint.inside(self._mail.task, is_callback=True)
        translator = ConditionTranslator(self._context, reader, TemplateContext.CALLBACK, self._sources)

        def translate(test: Test) -> str:
            if test.tree is None:
                raise test.error or ExpressionError("It cannot be parsed.")
            return translator.translate(test.tree, test.scope, is_disable=test.is_disable)

        try:
            if error is not None:
                raise error
            code = condition_to_code(condition, translate)
        except (ExpressionError, NotTranslatable) as reason:
            self._findings.decision(
                "condition-to-complete",
                self._where,
                f"The condition {text} cannot be translated to a template: {error_summary(reason)}",
                "Write it as only_if in the DAG; until then, the alert is always sent.",
            )
            comments = [f"SSIS: {text}", sanitize(str(reason))]
            value, status = f"{{{{ {COMPLETE_ME}.only_if }}}}", PropertyStatus.DECISION
        else:
            comments, value, status = [f"SSIS: {text}"], f"{{{{ {code} }}}}", PropertyStatus.TRANSLATED
            translator.add_findings(
                "condition-in-handler",
                self._where,
                f"As in SSIS, the mail is sent only if {text} (only_if).",
                f"Whether the mail is sent depends on {text}.",
                "Correct only_if in the DAG, or remove it, so that the alert is always sent.",
            )
        converter.arguments.append(KeywordArgument("only_if", value, comments=tuple(comments)))
        if "Disable" in self._mail.task.expressions:
            converter.records.append(
                PropertyRecord(
                    where=self._where,
                    property="Disable",
                    ssis=sanitize(self._mail.task.expressions["Disable"]),
                    is_expression=True,
                    became=f"only_if={value}",
                    status=status,
                )
            )

    def _complete_recipients(self, converter: MailConverter) -> None:
        """Give the alert recipients in `to`, which it needs: those of `cc`, or else of `bcc`."""
        arguments = converter.arguments
        if any(argument.name == "to" for argument in arguments):
            return
        other = next(argument for argument in arguments if argument.name in {"cc", "bcc"})
        text = f"The mail has no To recipients, which an alert needs; so 'to' has those of {other.name!r}."
        arguments[arguments.index(other)] = replace(other, name="to")
        if other.name == "cc":
            self._findings.note("alert-without-to", self._where, text)
        else:
            self._findings.decision(
                "alert-without-to",
                self._where,
                f"{text} These recipients see each other's addresses.",
                "Set 'to' in the DAG to an address that all of them may see, and 'bcc' to these.",
            )

    def _report_lost(self, run: Run) -> None:
        if not run.lost:
            return
        tasks = describe_tasks(run.lost.values())
        if run.condition is False:
            text = f"SSIS sends the mail only if {tasks} of the event handler fails. The DAG "
            text += f"{_lack(run.lost.values())}, so the mail is not in the DAG."
        else:
            text = f"SSIS sends the mail also if {tasks} of the event handler fails. The DAG "
            text += f"{_lack(run.lost.values())}, so the alert is sent only in the other cases."
        self._findings.decision(
            "handler-task-failure",
            self._where,
            text,
            "If it is needed, do that work in a task of the DAG, with the mail as its on_failure_callback.",
        )

    def _report_assumed(self, run: Run) -> None:
        mails = [task for task in run.assumed.values() if isinstance(task, SendMailTask)]
        others = [task for task in run.assumed.values() if not isinstance(task, SendMailTask)]
        if others:
            text = (
                f"In SSIS, the mail follows {describe_tasks(others)} of the event handler, which the DAG does not run. "
            )
            task = self._mail.task
            if task.file_attachments or "FileAttachments" in task.expressions or task.message_file is not None:
                self._findings.decision(
                    "handler-task-not-run",
                    self._where,
                    f"{text}If that writes a file of the mail, the file is missing.",
                    "If it does, let a task of the DAG write the file, or remove it from the alert.",
                )
            else:
                text += "After a failure there, SSIS would not send the mail; the DAG does."
                self._findings.note("handler-task-not-run", self._where, text)
        if mails:
            self._findings.note(
                "handler-task-not-run",
                self._where,
                f"In SSIS, the mail follows {describe_tasks(mails)}. If sending fails there, SSIS does not send "
                "this one; the DAG does.",
            )

    def _report_set_in_handler(self, condition: Condition) -> None:
        """Report the variables of the mail, and of its condition, that tasks in event handlers set."""
        task = self._mail.task
        texts = [(test.text, test.scope) for test in find_tests(condition)]
        texts += [(text, self._mail.scope) for name, text in task.expressions.items() if name != "Disable"]
        if task.message_source_type is MessageSourceType.VARIABLE and "MessageSource" not in task.expressions:
            texts.append((f"@[{task.message_source.strip()}]", self._mail.scope))
        if task.message_file is not None:
            texts += [(text, self._mail.scope) for text in task.message_file.expressions.values()]
        symbols = self._context.symbols
        computed: set[str] = set()
        for text, scope in texts:
            try:
                names, inlined = find_variables(parse(text)), find_variables(symbols.inline(parse(text), scope))
            except (ExpressionError, RecursionError):
                continue
            for name in names:
                value = self._mail.values.find(symbols.lookup(name, scope))
                if value is not None:
                    computed |= {setter.id for setter in value.setters}
                    self._report_value(value)
            for name in inlined:
                symbol = symbols.lookup(name, scope)
                if isinstance(symbol, Variable) and self._mail.values.find(symbol) is None:
                    self._report_unknown_value(symbol, computed)

    def _report_value(self, value: HandlerValue) -> None:
        name, expression = value.variable.qualified_name, display_expression(value.definition.expression or "")
        if value.question is not None:
            self._ask_for_value(value.variable, value.question, f"The alert uses {expression} instead.")
            return
        text = f"In SSIS, {describe_tasks(value.setters)} in the event handler sets {name}, which the mail reads. "
        text += f"The alert computes the value itself: {expression}."
        if value.adds:
            text += " In SSIS, the value also contains what earlier events have added; in the alert, it is that of its "
            text += "own event only."
        self._findings.note("set-in-event-handler", self._where, text)

    def _report_unknown_value(self, variable: Variable, computed: set[str]) -> None:
        """Report a variable that tasks of event handlers set, if the alert does not compute its value.

        Args:
            computed: the ids of the tasks whose values the alert computes.
        """
        setters = self._context.symbols.live.setters.in_event_handlers(variable)
        if any(setter.executable.id not in computed for setter in setters):
            question = ask_for_value(self._context.symbols, variable)
            self._ask_for_value(
                variable, question, "The alert uses the value that the variable has outside event handlers."
            )

    def _ask_for_value(self, variable: Variable, question: Question, consequence: str) -> None:
        inside = [one.executable for one in self._context.symbols.live.setters.in_event_handlers(variable)]
        self._findings.decision(
            "set-in-event-handler",
            self._where,
            f"In SSIS, {describe_tasks(inside)} in an event handler sets {variable.qualified_name}, which the mail "
            f"depends on. The DAG does not run that task. {consequence}",
            f"Answer with an SSIS expression or a text in questions.csv, or write the value in place of "
            f"{variable.name} in the DAG.",
            question,
        )


def _find_sources(owner: Executable, event: str) -> list[Executable]:
    """Return the executables in an owner, and itself, whose event reaches the owner's handler.

    Args:
        event: the event, in lower case.
    """
    found: list[Executable] = []
    pending: list[Executable] = [owner]
    while pending:
        executable = pending.pop()
        if executable is not owner and (executable.disabled or _stops(executable, event)):
            continue
        if event in EVENTS_OF_EXECUTABLES or not isinstance(executable, Container):
            found.append(executable)
        if isinstance(executable, Container):
            pending += reversed(executable.executables)
    return found


def _stops(executable: Executable, event: str) -> bool:
    """Whether a handler of an executable keeps an event from the outer handlers."""
    return any(
        handler.event_name.lower() == event and handler.propagate is False and not handler.disabled
        for handler in executable.event_handlers
    )


def _lack(tasks: Iterable[Executable]) -> str:
    is_mail = all(isinstance(task, SendMailTask) for task in tasks)
    return "does not know whether an alert was sent" if is_mail else "does not run that task"
