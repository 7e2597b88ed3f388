"""The mails of event handlers as Airflow callbacks.

SSIS raises OnError once for each error, for the task and for every container around it. Airflow calls a callback only
for the task, and once: when it has failed after its last retry. So the OnError handler of a package or a container
becomes a callback of every task in it. OnPreExecute and OnPostExecute are raised for containers too: their mails become
callbacks of exactly those executables for which SSIS sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from airflow_provider_smtpcm.ssis.findings import Findings
from airflow_provider_smtpcm.ssis.model import (
    Container,
    EventHandler,
    Executable,
    ExpressionTask,
    OtherTask,
    Package,
    SendMailTask,
    SqlTask,
    walk_executables,
)
from airflow_provider_smtpcm.ssis.writing.alerts import (
    EVENTS_OF_EXECUTABLES,
    EVENTS_OF_TASKS,
    AlertWriter,
    NotifierDefinition,
)
from airflow_provider_smtpcm.ssis.writing.conditions import describe_tasks
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord, WritingContext
from airflow_provider_smtpcm.ssis.writing.handler_conditions import find_handler_mails
from airflow_provider_smtpcm.ssis.writing.live_variables import find_assigned_names
from airflow_provider_smtpcm.ssis.writing.python_source import KeywordArgument, Raw, UniqueNames, keywords, quoted_list
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, open_scope


@dataclass(slots=True, kw_only=True)
class Callbacks:
    """The names of the notifiers of a package, a container or a task, by callback argument.

    Args:
        inherited: notifiers that every task inside gets too, such as `{"on_failure_callback": ["on_error_alert"]}`.
        own: notifiers for the package, container or task itself.
        blocked: whether System::Propagate = False keeps inherited notifiers from the task itself.
        events: the events, in lower case, for which a handler of the executable, or an outer one, has an alert.
    """

    inherited: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, list[str]] = field(default_factory=dict)
    blocked: bool = False
    events: set[str] = field(default_factory=set)

    def as_default_args(self) -> list[KeywordArgument]:
        """Return `default_args` for a DAG or a task group; an empty list if no callback is inherited."""
        callbacks = {name: _raw(notifiers) for name, notifiers in self.inherited.items()}
        return keywords(default_args=callbacks) if callbacks else []

    def as_arguments(self) -> list[KeywordArgument]:
        """Return the callback arguments of a task.

        They replace those of `default_args`, so the task's own notifiers are followed by the inherited ones.
        """
        inherited = self.inherited if self.own or self.blocked else {}
        merged = {name: list(notifiers) for name, notifiers in inherited.items()}
        for name, notifiers in self.own.items():
            merged[name] = [*notifiers, *merged.get(name, [])]
        kept = {name: _raw(notifiers) for name, notifiers in merged.items() if notifiers or self.blocked}
        return keywords(**kept)

    def for_single_task(self, outer: Callbacks) -> Callbacks:
        """Return the callbacks of the single task that a container became.

        Args:
            outer: the callbacks of the container around it.
        """
        return replace(self, blocked=self.inherited != outer.inherited)


def _raw(names: Sequence[str]) -> list[Raw]:
    return [Raw(name) for name in names]


class EventHandlerWriter:
    """Converts the event handlers of one package.

    Args:
        context: the package's context.
        variable_names: allocates the names of the module's variables.

    Attributes:
        notifiers: the definitions so far.
        mails: a record of each Send Mail task in a handler.
    """

    def __init__(self, context: WritingContext, variable_names: UniqueNames) -> None:
        self._context, self._findings = context, context.findings
        self._package = context.symbols.package
        self._variable_names = variable_names
        self.notifiers: list[NotifierDefinition] = []
        self.mails: list[MailRecord] = []
        # The event of each notifier, in lower case.
        self._events: dict[str, str] = {}
        # The notifiers that an outer handler has for an executable, by its id and the callback argument.
        self._assigned: dict[str, dict[str, list[str]]] = {}

    def convert_callbacks(self, owner: Executable, scope: Scope, outer: Callbacks) -> Callbacks:
        """Convert the handlers of an executable; return its callbacks.

        Args:
            owner: the package, container or task with the handlers.
            scope: the owner's variables, and those around it.
            outer: the callbacks of the container around the owner.
        """
        inherited = {name: list(notifiers) for name, notifiers in outer.inherited.items()}
        callbacks = Callbacks(inherited=inherited, events=set(outer.events))
        is_task = not isinstance(owner, Container)
        for handler in owner.event_handlers:
            event = handler.event_name.lower()
            if event in outer.events:
                self._apply_propagate(handler, event, callbacks, is_task=is_task)
            names = self._convert_handler(handler, owner, scope)
            if names:
                callbacks.events.add(event)
                target = callbacks.own if is_task else callbacks.inherited
                for argument in EVENTS_OF_TASKS.get(event, ()):
                    target[argument] = [*names, *target.get(argument, [])]
        if (
            isinstance(owner, Container)
            and owner is not self._package.root
            and not self._context.symbols.flow.is_group(owner)
        ):
            self._report_propagate_inside(owner, callbacks)
        for argument, names in self._assigned.pop(owner.id, {}).items():
            callbacks.own[argument] = [*callbacks.own.get(argument, []), *names]
        return callbacks

    def _apply_propagate(self, handler: EventHandler, event: str, callbacks: Callbacks, *, is_task: bool) -> None:
        """Remove the inherited notifiers of an event if System::Propagate keeps it from the outer handlers.

        Args:
            event: the event of the handler, in lower case.
            is_task: whether the handler is that of a task.
        """
        setters = [task for task in _find_other_tasks(handler.executables) if _sets_propagate(task)]
        if handler.disabled or not (handler.propagate is False or setters):
            return
        if setters or "Disable" in handler.expressions:
            names = quoted_list(task.name for task in setters)
            what = f"what {names} in it does" if setters else "the expression for its Disable property"
            self._findings.decision(
                "propagate-at-run-time",
                handler.where,
                f"In SSIS, whether the event reaches the outer event handlers depends on {what}. In the DAG, "
                + ("it does not." if handler.propagate is False else "it does."),
                "Check the callbacks of the tasks in the DAG.",
            )
        if handler.propagate is False:
            for argument in EVENTS_OF_TASKS.get(event, ()):
                inherited = callbacks.inherited.get(argument, [])
                callbacks.inherited[argument] = [name for name in inherited if self._events[name] != event]
                callbacks.blocked = is_task

    def _report_propagate_inside(self, container: Container, callbacks: Callbacks) -> None:
        """Report that System::Propagate is False inside a container that becomes a single task."""
        for executable in walk_executables(container.executables):
            for handler in executable.event_handlers:
                if (
                    handler.event_name.lower() in callbacks.events
                    and handler.propagate is False
                    and not handler.disabled
                ):
                    self._findings.decision(
                        "propagate-at-run-time",
                        container.where,
                        f"In SSIS, {handler.event_name} of {executable.name!r} does not reach the event handlers "
                        f"outside of {container.name!r}, since System::Propagate is False. In the DAG, "
                        f"{container.name!r} is a single task, and it has the alerts of those event handlers.",
                        "Remove the alerts from that task if nothing should report its failure.",
                    )

    def _convert_handler(self, handler: EventHandler, owner: Executable, scope: Scope) -> list[str]:
        """Define notifiers for the mails of a handler; return their names.

        If the event is raised for containers too, each notifier is assigned to the executables that need it.
        """
        event = handler.event_name.lower()
        names: list[str] = []
        explained: set[tuple[str, ...]] = set()
        for mail in find_handler_mails(handler, open_scope(handler.variables, scope), self._context.symbols):
            task = mail.task
            where = task.where
            if task.disabled:
                because = task.disabled_because or where
                self.mails.append(MailRecord(where=where, event=handler.event_name, disabled_because=because))
                continue
            if event not in {**EVENTS_OF_TASKS, **EVENTS_OF_EXECUTABLES}:
                self._findings.decision(
                    "event-without-callback",
                    where,
                    f"Airflow has no equivalent of the event {handler.event_name}, so the mail is not in the DAG.",
                    "If it is needed, send it from a task.",
                )
                self.mails.append(MailRecord(where=where, event=handler.event_name))
                continue
            explained |= {*mail.run.assumed, *mail.run.lost}
            alert = AlertWriter(self._context, self._variable_names, mail, handler, owner)
            if (notifier := alert.write()) is not None:
                names.append(notifier.name)
                self._add_notifier(notifier, event)
            self.mails.append(alert.record)
        if names:
            self._report_frequency(handler, owner)
            self._report_other_tasks(handler, explained)
        return names

    def _add_notifier(self, notifier: NotifierDefinition, event: str) -> None:
        self.notifiers.append(notifier)
        self._events[notifier.name] = event
        for argument in EVENTS_OF_EXECUTABLES.get(event, ()):
            for executable in notifier.executables:
                self._assigned.setdefault(executable.id, {}).setdefault(argument, []).append(notifier.name)

    def report_unplaced(self) -> None:
        """Report the notifiers for executables that the DAG does not have."""
        for id_, callbacks in self._assigned.items():
            executable = next(one for one, _ in self._package.walk_executables() if one.id == id_)
            for argument, names in callbacks.items():
                problem = f"{executable.name!r} is not a task of its own in the DAG"
                remedy = f"Set it as {argument} of the task that does its work."
                self.report_without_place(names, executable, problem, remedy)

    def report_without_place(self, names: Iterable[str], executable: Executable, problem: str, remedy: str) -> None:
        """Report notifiers that the DAG does not call for an executable, each at the place of its mail.

        Args:
            names: the names of the notifiers.
            problem: why it does not call them; the beginning of a sentence.
            remedy: what a person can do.
        """
        where = {notifier.name: notifier.where for notifier in self.notifiers}
        for name in names:
            text = f"{problem}, so {name!r} is not called for {executable.where}."
            self._findings.decision("callback-without-place", where[name], text, remedy)

    def _report_other_tasks(self, handler: EventHandler, explained: set[tuple[str, ...]]) -> None:
        """Report the tasks of a handler that the DAG does not run and that no other finding names."""
        others = [task for task in _find_other_tasks(handler.executables) if task.path not in explained]
        if others:
            self._findings.note(
                "handler-task-not-run",
                handler.where,
                f"The DAG does not run {describe_tasks(others)} of the event handler: a callback only sends its mails.",
            )

    def _report_frequency(self, handler: EventHandler, owner: Executable) -> None:
        """Report that SSIS may raise the event more often than Airflow calls the callback."""
        where = owner.where
        event = handler.event_name.lower()
        if event == "onerror":
            self._findings.note(
                "handler-became-callback",
                where,
                "SSIS raises OnError once for each error, so one failure often causes several mails. The callback is "
                "called once for each task that fails after its last retry.",
            )
        elif event == "ontaskfailed":
            self._findings.note(
                "handler-became-callback",
                where,
                "The callback is called once for each task that fails after its last retry.",
            )
        elif isinstance(owner, Container):
            self._findings.note(
                "handler-became-callback",
                where,
                f"SSIS raises {handler.event_name} for {owner.name!r} and for each executable in it. In the DAG, those "
                "for which SSIS sends the mail have the callback.",
            )


def _find_other_tasks(executables: Iterable[Executable]) -> Iterator[Executable]:
    """Yield the enabled tasks among these executables, and inside them, that are not Send Mail tasks."""
    for executable in walk_executables(executables):
        if not executable.disabled and not isinstance(executable, Container | SendMailTask):
            yield executable


def _sets_propagate(executable: Executable) -> bool:
    """Whether a task in an event handler sets System::Propagate, a variable that only event handlers have."""
    names: tuple[str, ...] = ()
    if isinstance(executable, OtherTask):
        names = executable.sets
    elif isinstance(executable, ExpressionTask):
        names = find_assigned_names(executable.expression)
    elif isinstance(executable, SqlTask):
        names = (*(one.variable for one in executable.results), *(one.variable for one in executable.parameters))
    return any(name.removeprefix("System::") == "Propagate" for name in names)


def report_mails_left_out(package: Package, findings: Findings, mails: Iterable[MailRecord]) -> None:
    """Report the mails of event handlers that have no record, since the DAG has no place for them.

    Args:
        findings: where they are reported.
        mails: the records of the mails in event handlers so far.
    """
    known = {(mail.where, mail.event) for mail in mails}
    for task, handler in package.walk_mail_tasks():
        where = task.where
        if handler is None or task.disabled or (where, handler.event_name) in known:
            continue
        if where.count(".EventHandlers[") > 1:
            findings.decision(
                "handler-of-handler",
                where,
                "The mail belongs to an event of an event handler. An Airflow callback has no events, so the mail "
                "is not in the DAG.",
                "Check whether it is needed: SendMailNotifier logs its own errors.",
            )
        else:
            findings.decision(
                "callback-without-place",
                where,
                f"The executable of the event {handler.event_name} is not a task of the DAG, so the mail is not in it.",
                "If it is needed, set a SendMailNotifier as callback of the task that does its work.",
            )
