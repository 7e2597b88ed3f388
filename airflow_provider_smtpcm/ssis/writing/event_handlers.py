"""The mails of event handlers as Airflow callbacks.

SSIS raises OnError once for each error, for the task and for every container around it. Airflow calls a callback once,
for the task that failed after its last retry. So the handler of a package or a container becomes a callback of every
task in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import TemplateContext
from airflow_provider_smtpcm.ssis.model import Container, EventHandler, Executable, SendMailTask
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord
from airflow_provider_smtpcm.ssis.writing.python_source import (
    FunctionCall,
    KeywordArgument,
    Raw,
    UniqueNames,
    slug,
    variable_name,
)
from airflow_provider_smtpcm.ssis.writing.send_mail_task import MailConverter
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, open_scope
from airflow_provider_smtpcm.ssis.writing.templates import COMPLETE_ME, WritingContext

ON_FAILURE, ON_SUCCESS, ON_EXECUTE = "on_failure_callback", "on_success_callback", "on_execute_callback"
# The callback arguments for each event: set on every task in the handler's owner, or only on the owner itself.
_CALLBACKS_OF_TASKS = {"onerror": (ON_FAILURE,), "ontaskfailed": (ON_FAILURE,)}
_CALLBACKS_OF_OWNER = {"onpostexecute": (ON_SUCCESS, ON_FAILURE), "onpreexecute": (ON_EXECUTE,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierDefinition:
    """A `SendMailNotifier`, which the module defines above the DAG."""

    name: str
    call: FunctionCall
    comment: str


@dataclass(slots=True, kw_only=True)
class Callbacks:
    """The names of the notifiers of a package, a container or a task, by callback argument.

    Args:
        inherited: notifiers that every task inside gets too, such as `{"on_failure_callback": ["on_error_alert"]}`.
        own: notifiers for the package, container or task itself.
    """

    inherited: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, list[str]] = field(default_factory=dict)

    def as_default_args(self) -> list[KeywordArgument]:
        """Return `default_args` for a DAG or a task group; an empty list if no callback is inherited."""
        callbacks = {name: _raw(notifiers) for name, notifiers in self.inherited.items() if notifiers}
        return [KeywordArgument(name="default_args", value=callbacks)] if callbacks else []

    def as_arguments(self) -> list[KeywordArgument]:
        """Return the callback arguments of a task.

        They replace those of `default_args`, so the task's own notifiers are followed by the inherited ones.
        """
        merged = {name: list(notifiers) for name, notifiers in self.inherited.items()} if self.own else {}
        for name, notifiers in self.own.items():
            merged[name] = [*notifiers, *merged.get(name, [])]
        return [KeywordArgument(name=name, value=_raw(notifiers)) for name, notifiers in merged.items() if notifiers]


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
        self._context, self._findings, self._variable_names = context, context.findings, variable_names
        self.notifiers: list[NotifierDefinition] = []
        self.mails: list[MailRecord] = []

    def convert_callbacks(self, owner: Executable, scope: Scope, outer: Callbacks) -> Callbacks:
        """Convert the handlers of an executable; return its callbacks.

        Args:
            owner: the package, container or task with the handlers.
            scope: the owner's variables, and those around it.
            outer: the callbacks of the container around the owner.
        """
        callbacks = Callbacks(inherited={name: list(notifiers) for name, notifiers in outer.inherited.items()})
        for handler in owner.event_handlers:
            names = self._convert_handler(handler, owner, scope)
            if not names:
                continue
            event = handler.event_name.lower()
            is_task = not isinstance(owner, Container)
            if event in _CALLBACKS_OF_TASKS:
                target = callbacks.own if is_task else callbacks.inherited
                for argument in _CALLBACKS_OF_TASKS[event]:
                    # With System::Propagate = False, the handlers of the containers around the owner do not run.
                    outer_names = [] if handler.propagate is False else target.get(argument, [])
                    target[argument] = [*names, *outer_names]
                    if handler.propagate is False and is_task:
                        callbacks.inherited.pop(argument, None)
            else:
                for argument in _CALLBACKS_OF_OWNER[event]:
                    callbacks.own[argument] = [*callbacks.own.get(argument, []), *names]
        return callbacks

    def _convert_handler(self, handler: EventHandler, owner: Executable, scope: Scope) -> list[str]:
        """Define a notifier for each mail of a handler; return their names."""
        inner = open_scope(handler.variables, scope)
        names: list[str] = []
        is_supported = handler.event_name.lower() in {**_CALLBACKS_OF_TASKS, **_CALLBACKS_OF_OWNER}
        for task, task_scope in _find_mails(handler.executables, inner):
            where = "\\".join(task.path)
            if task.disabled:
                self.mails.append(
                    MailRecord(where=where, event=handler.event_name, disabled_because=task.disabled_because or where)
                )
                continue
            if not is_supported:
                self._findings.decision(
                    "event-without-callback",
                    where,
                    f"Airflow has no equivalent of the event {handler.event_name}, so the mail is not in the DAG.",
                    "If it is needed, send it from a task.",
                )
                self.mails.append(MailRecord(where=where, event=handler.event_name))
                continue
            names.append(self._define_notifier(task, handler, owner, task_scope))
        if names:
            self._report_frequency(handler, owner)
        for nested in handler.event_handlers:
            for task, _ in _find_mails(nested.executables, inner):
                where = "\\".join(task.path)
                self._findings.decision(
                    "handler-of-handler",
                    where,
                    "The mail belongs to an event of an event handler. An Airflow callback has no events, so the mail "
                    "is not in the DAG.",
                    "Check whether it is needed: SendMailNotifier logs its own errors.",
                )
                self.mails.append(MailRecord(where=where, event=nested.event_name))
        return names

    def _define_notifier(self, task: SendMailTask, handler: EventHandler, owner: Executable, scope: Scope) -> str:
        where = "\\".join(task.path)
        mail = MailConverter(self._context, task, scope, TemplateContext.CALLBACK)
        event = slug(handler.event_name, "event").replace("on", "on_", 1)
        name = self._variable_names.allocate(variable_name(slug(f"{event}_{task.name}", event)))
        arguments = list(mail.arguments)
        if not any(argument.name == "to" for argument in arguments):
            copy_argument = next((argument for argument in arguments if argument.name in {"cc", "bcc"}), None)
            self._findings.decision(
                "alert-without-to",
                where,
                "The mail has no To recipients, which an alert needs"
                + (f"; it has those of {copy_argument.name!r} instead." if copy_argument else "."),
                "Set 'to' in the DAG.",
            )
            value = copy_argument.value if copy_argument is not None else f"{{{{ {COMPLETE_ME}.to }}}}"
            arguments.insert(1, KeywordArgument(name="to", value=value))
        if "Disable" in task.expressions:
            self._findings.decision(
                "disable-expression",
                where,
                f"In SSIS, the expression {task.expressions['Disable']} for Disable decides whether the mail is sent; "
                "the alert is always sent.",
                "Keep the callback in the DAG, or remove it.",
            )
        if any("expression" in constraint.eval_op for constraint in handler.constraints if constraint.after == task.id):
            self._findings.decision(
                "condition-in-handler",
                where,
                "In SSIS, a precedence constraint with an expression decides whether the mail is sent; the alert is "
                "always sent.",
                "Keep the callback in the DAG, or remove it.",
            )
        call = FunctionCall(name="SendMailNotifier", arguments=arguments)
        comment = f"{handler.event_name} of {'the package' if len(owner.path) == 1 else owner.name}: {task.name}"
        self.notifiers.append(NotifierDefinition(name=name, call=call, comment=comment))
        self.mails.append(mail.to_record(f"callback {name}", handler.event_name))
        return name

    def _report_frequency(self, handler: EventHandler, owner: Executable) -> None:
        """Report that SSIS may raise the event more often than Airflow calls the callback."""
        where = "\\".join(owner.path)
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
            self._findings.decision(
                "handler-became-callback",
                where,
                f"SSIS raises {handler.event_name} for {owner.name!r} and for each executable in it; in the DAG, the "
                "callback is called once.",
                "Check whether once is enough.",
            )


def _find_mails(executables: Iterable[Executable], scope: Scope) -> Iterable[tuple[SendMailTask, Scope]]:
    """Yield each Send Mail task among these executables and inside them, with its scope."""
    for executable in executables:
        inner = open_scope(executable.variables, scope)
        if isinstance(executable, SendMailTask):
            yield executable, inner
        elif isinstance(executable, Container):
            yield from _find_mails(executable.executables, inner)
