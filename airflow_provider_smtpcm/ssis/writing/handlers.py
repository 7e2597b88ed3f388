"""The mails of event handlers as callbacks. Knows no flow.

SSIS raises OnError once for each error, for the task and for everything around it; Airflow calls back once for a task
that failed for good. So a handler of a package or a container becomes a callback of every task in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import TemplateContext
from airflow_provider_smtpcm.ssis.model import Container, EventHandler, Executable, SendMailTask
from airflow_provider_smtpcm.ssis.writing.field_writer import Shared
from airflow_provider_smtpcm.ssis.writing.fields import Fields
from airflow_provider_smtpcm.ssis.writing.outcome import MailRecord
from airflow_provider_smtpcm.ssis.writing.source import Argument, Call, Raw, Unique, slug, variable
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, declared

FAILURE, SUCCESS, EXECUTE = "on_failure_callback", "on_success_callback", "on_execute_callback"
_OF_TASKS = {"onerror": (FAILURE,), "ontaskfailed": (FAILURE,)}
_OF_ONE = {"onpostexecute": (SUCCESS, FAILURE), "onpreexecute": (EXECUTE,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifier:
    """A callback, as it is defined above the DAG."""

    name: str
    call: Call
    comment: str


@dataclass(slots=True, kw_only=True)
class Callbacks:
    """The callbacks in force at a place, by the argument that takes them; `own` are those of the place alone."""

    inherited: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, list[str]] = field(default_factory=dict)

    def arguments(self, *, tasks: bool) -> list[Argument]:
        """For what holds tasks (as their defaults), or for a task."""
        if tasks:
            found = {name: _names(ones) for name, ones in self.inherited.items() if ones}
            return [Argument(name="default_args", value=found)] if found else []
        merged = {name: list(ones) for name, ones in self.inherited.items()} if self.own else {}
        for name, ones in self.own.items():
            merged[name] = [*ones, *merged.get(name, [])]
        return [Argument(name=name, value=_names(ones)) for name, ones in merged.items() if ones]


def _names(ones: Sequence[str]) -> list[Raw]:
    return [Raw(one) for one in ones]


class Handlers:
    """Writes handlers.

    Args:
        shared: of the package.
        unique: the names of the module's variables.
    """

    def __init__(self, shared: Shared, unique: Unique) -> None:
        self._shared, self._unique = shared, unique
        self.notifiers: list[Notifier] = []
        self.mails: list[MailRecord] = []

    def of(self, owner: Executable, scope: Scope, outer: Callbacks) -> Callbacks:
        """The callbacks at an executable.

        Args:
            owner: the package, container or task that the handlers hang on.
            scope: the variables that it sees.
            outer: the callbacks of what is around it.
        """
        found = Callbacks(inherited={name: list(ones) for name, ones in outer.inherited.items()})
        for handler in owner.event_handlers:
            names = self._handler(handler, owner, scope)
            if not names:
                continue
            event = handler.event_name.lower()
            is_task = not isinstance(owner, Container)
            if event in _OF_TASKS:
                target = found.own if is_task else found.inherited
                for argument in _OF_TASKS[event]:
                    before = [] if handler.propagate is False else target.get(argument, [])
                    target[argument] = [*names, *before]
                    if handler.propagate is False and is_task:
                        found.inherited.pop(argument, None)
            else:
                for argument in _OF_ONE[event]:
                    found.own[argument] = [*found.own.get(argument, []), *names]
        return found

    def _handler(self, handler: EventHandler, owner: Executable, scope: Scope) -> list[str]:
        """The names of its notifiers."""
        inner = declared(handler.variables, scope)
        names: list[str] = []
        supported = handler.event_name.lower() in {**_OF_TASKS, **_OF_ONE}
        for task, seen in _mails(handler.executables, inner):
            where = "\\".join(task.path)
            if task.disabled:
                self.mails.append(
                    MailRecord(where=where, event=handler.event_name, disabled_because=task.disabled_because or where)
                )
                continue
            if not supported:
                self._shared.findings.decision(
                    "event-without-callback",
                    where,
                    f"Airflow has nothing like the event {handler.event_name}, so the mail is not in the DAG.",
                    "Send it from a task, if it is needed.",
                )
                self.mails.append(MailRecord(where=where, event=handler.event_name))
                continue
            names.append(self._notifier(task, handler, owner, seen))
        self._tell(handler, owner, names)
        for nested in handler.event_handlers:
            for task, _ in _mails(nested.executables, inner):
                self._shared.findings.decision(
                    "handler-of-handler",
                    "\\".join(task.path),
                    "The mail hangs on an event of an event handler; a callback of Airflow has none.",
                    "Look at whether it is needed: a SendMailNotifier logs what goes wrong with it.",
                )
                self.mails.append(MailRecord(where="\\".join(task.path), event=nested.event_name))
        return names

    def _notifier(self, task: SendMailTask, handler: EventHandler, owner: Executable, scope: Scope) -> str:
        where = "\\".join(task.path)
        fields = Fields(self._shared, task, scope, TemplateContext.CALLBACK)
        event = slug(handler.event_name, "event").replace("on", "on_", 1)
        name = self._unique.give(variable(slug(f"{event}_{task.name}", event)))
        arguments = list(fields.arguments)
        if not any(one.name == "to" for one in arguments):
            other = next((one for one in arguments if one.name in {"cc", "bcc"}), None)
            self._shared.findings.decision(
                "alert-without-to",
                where,
                "The mail has no To, which an alert needs"
                + ("; it has the copies' recipients there." if other else "."),
                "Name in the DAG whom it goes to.",
            )
            value = other.value if other is not None else "{{ complete_me.to }}"
            arguments.insert(1, Argument(name="to", value=value))
        if "Disable" in task.expressions:
            self._shared.findings.decision(
                "disable-expression",
                where,
                f"Whether the mail is sent depends on the expression {task.expressions['Disable']}; the alert is "
                "always sent.",
                "Take the callback out of the DAG, or leave it.",
            )
        if any("expression" in str(one.eval_op) for one in handler.constraints if one.after == task.id):
            self._shared.findings.decision(
                "condition-in-handler",
                where,
                "A precedence constraint with an expression decides on the mail; the alert is always sent.",
                "Look at whether that is meant.",
            )
        call = Call(name="SendMailNotifier", arguments=arguments)
        comment = f"{handler.event_name} of {'the package' if len(owner.path) == 1 else owner.name}: {task.name}"
        self.notifiers.append(Notifier(name=name, call=call, comment=comment))
        self.mails.append(
            MailRecord(
                where=where,
                event=handler.event_name,
                became=f"callback {name}",
                connection=fields.connection,
                properties=tuple(fields.records),
            )
        )
        return name

    def _tell(self, handler: EventHandler, owner: Executable, names: list[str]) -> None:
        if not names:
            return
        where = "\\".join(owner.path)
        event = handler.event_name.lower()
        if event == "onerror":
            self._shared.findings.note(
                "handler-became-callback",
                where,
                "SSIS raises OnError once for each error, so that one failure often brings several mails. The callback "
                "is called once for each task that fails for good, after its last try.",
            )
        elif event == "ontaskfailed":
            self._shared.findings.note(
                "handler-became-callback", where, "The callback is called once for each task that fails for good."
            )
        elif isinstance(owner, Container):
            self._shared.findings.decision(
                "handler-became-callback",
                where,
                f"SSIS raises {handler.event_name} for {owner.name!r} and for each executable in it; in the DAG it is "
                "called once.",
                "Look at whether once is enough.",
            )


def _mails(executables: Iterable[Executable], scope: Scope) -> Iterable[tuple[SendMailTask, Scope]]:
    for one in executables:
        seen = declared(one.variables, scope)
        if isinstance(one, SendMailTask):
            yield one, seen
        elif isinstance(one, Container):
            yield from _mails(one.executables, seen)


def has_mail(handlers: Iterable[EventHandler]) -> bool:
    """Whether any of these handlers sends a mail that is not disabled."""
    return any(not task.disabled for handler in handlers for task, _ in _mails(handler.executables, {}))
