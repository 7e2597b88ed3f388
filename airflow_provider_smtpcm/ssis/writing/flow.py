"""The control flow of a package as tasks and groups. Knows no source text.

A level (a package, a sequence or a loop) that holds a mail is there with all its executables, each that sends no mail
as an empty task, so that order and trigger rules are those of the package; a container without mail is one empty task.
"""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.expressions import TemplateContext
from airflow_provider_smtpcm.ssis.model import Container, ContainerKind, Executable, SendMailTask
from airflow_provider_smtpcm.ssis.writing.field_writer import Shared
from airflow_provider_smtpcm.ssis.writing.fields import Fields
from airflow_provider_smtpcm.ssis.writing.handlers import Callbacks, Handlers, has_mail
from airflow_provider_smtpcm.ssis.writing.outcome import MailRecord
from airflow_provider_smtpcm.ssis.writing.precedence import (
    ALL_SUCCESS,
    END_RULE,
    Condition,
    Conditions,
    Node,
    Tasks,
    can_skip,
    shown_name,
)
from airflow_provider_smtpcm.ssis.writing.source import Argument, Call, Unique
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, declared

# A For loop counts, or tries again until something works.
_INSTEAD_OF = {
    ContainerKind.FOR_LOOP: "Give its tasks retries, if the loop tries again; or expand them, if more is meant.",
    ContainerKind.FOREACH_LOOP: "Expand its tasks over what the loop goes through (.expand or .expand_kwargs), or send "
    "its mails by one MailMergeOperator, if more is meant.",
}


def sends_mail(executable: Executable) -> bool:
    """Whether a mail that is not disabled stands in it or hangs on it."""
    if executable.disabled:
        return False
    if isinstance(executable, SendMailTask) or has_mail(executable.event_handlers):
        return True
    return isinstance(executable, Container) and any(map(sends_mail, executable.executables))


class Flow(Tasks):
    """Makes the nodes of a package.

    Args:
        shared: of the package.
        unique: the names of the module's variables.
        handlers: makes the callbacks.
    """

    def __init__(self, shared: Shared, unique: Unique, handlers: Handlers) -> None:
        super().__init__(shared, unique)
        self.handlers = handlers
        self.mails: list[MailRecord] = []

    def level(self, container: Container, scope: Scope, callbacks: Callbacks, *, may_not_run: bool) -> list[Node]:
        """The nodes of a level, each behind what comes before it."""
        nodes = _Level(self, container, scope, callbacks, may_not_run=may_not_run).nodes
        if not any(node.name for node in nodes):
            call = self.task("EmptyOperator", "nothing", "nothing")
            comment = f"Nothing of {container.name!r} is left; put what it does in its place."
            nodes.append(Node(name=self.unique.give("nothing"), call=call, comment=comment, is_executable=True))
        return nodes


class _Level(Conditions):
    def __init__(
        self, flow: Flow, container: Container, scope: Scope, callbacks: Callbacks, *, may_not_run: bool
    ) -> None:
        super().__init__(flow, container, scope, may_not_run=may_not_run)
        self._writer, self._callbacks = flow, callbacks
        for key in self._arrows.in_order(self._kept):
            self._executable(self._kept[key])

    def _executable(self, one: Executable) -> None:
        condition = self._combined(one)
        incoming = bool(self._arrows.incoming[one.id])
        is_group = isinstance(one, Container) and sends_mail(one) and bool(one.executables)
        switch = None if one.disabled else one.expressions.get("Disable")
        followed = one.id in self._arrows.followed
        ends_matter = one.id in self._arrows.ends_matter or (isinstance(one, Container) and can_skip(one))
        has_end = is_group and followed and ends_matter
        needs_ready = one.id in self._arrows.watched or (has_end and (incoming or self._may_not_run))
        if needs_ready or (switch and followed):
            condition = self._empty(f"{self._task_ids[one.id]}_ready", condition, f"Whether {one.name!r} may run.")
            self._ready[one.id] = condition.sources[0]
        if switch:
            condition = self._only_if(one, f"!({switch})", f"Disable: {switch}", "enabled", condition)
        if isinstance(one, Container) and is_group:
            if condition.rule != ALL_SUCCESS:
                condition = self._empty(f"{self._task_ids[one.id]}_start", condition, "")
            node = self._group(one, condition)
        else:
            node = self._task(one, condition)
        self.nodes.append(node)
        if has_end or (switch and followed):
            inner = list(node.tasks()) or [node.name]
            ready = [self._ready[one.id]] if one.id in self._ready else []
            end = self._empty(f"{self._task_ids[one.id]}_end", Condition((*ready, *inner), END_RULE), "")
            self._source[one.id] = end.sources[0]

    def _group(self, one: Container, condition: Condition) -> Node:
        flow = self._writer
        scope = declared(one.variables, self._scope)
        callbacks = flow.handlers.of(one, scope, self._callbacks)
        comment = ""
        if one.kind in _INSTEAD_OF:
            comment = f"SSIS: a {one.kind}; here everything in it runs once."
            flow.shared.findings.decision(
                "loop-runs-once",
                "\\".join(one.path),
                f"{one.name!r} is a {one.kind}. In the DAG what is in it runs once, and so each mail is sent once.",
                _INSTEAD_OF[one.kind],
            )
        inside = flow.level(one, scope, callbacks, may_not_run=self._may_not_run or bool(condition.sources))
        if callbacks.own and inside:
            self._call_back_at_the_end(one, callbacks)
        task_id = self._task_ids[one.id]
        shown = [] if one.name == task_id else [Argument(name="group_display_name", value=shown_name(one.name))]
        arguments = [Argument(name="group_id", value=task_id), *shown, *callbacks.arguments(tasks=True)]
        if callbacks.inherited == self._callbacks.inherited:
            arguments = [argument for argument in arguments if argument.name != "default_args"]
        return Node(
            name=self._variables[one.id],
            call=Call(name="TaskGroup", arguments=arguments),
            comment=comment,
            before=list(condition.sources),
            inside=inside,
        )

    def _call_back_at_the_end(self, one: Container, callbacks: Callbacks) -> None:
        for names in callbacks.own.values():
            for name in names:
                self._flow.shared.findings.decision(
                    "callback-without-place",
                    "\\".join(one.path),
                    f"A group of Airflow has no callback of its own, so {name} is defined in the DAG and not called.",
                    "Hang it on the last task of the group.",
                )

    def _task(self, one: Executable, condition: Condition) -> Node:
        flow = self._writer
        scope = declared(one.variables, self._scope)
        arguments: list[Argument] = []
        if condition.rule != ALL_SUCCESS:
            arguments.append(Argument(name="trigger_rule", value=condition.rule))
        comment, operator = "", "EmptyOperator"
        if one.disabled:
            comment = f"{one.name!r} is disabled: it does nothing, and what comes after it goes on, as in SSIS."
        elif isinstance(one, SendMailTask):
            operator = "SendMailOperator"
            fields = Fields(flow.shared, one, scope, TemplateContext.TASK)
            arguments += fields.arguments
            self._record(one, fields)
        else:
            kind = one.kind or "a task"
            comment = f"{one.name!r} ({kind}) sends no mail; put what does its work in its place."
        if not one.disabled:
            callbacks = flow.handlers.of(one, scope, self._callbacks)
            if isinstance(one, Container):
                callbacks = Callbacks(own=callbacks.inherited)
                if callbacks.own == self._callbacks.inherited:
                    callbacks = Callbacks()
            arguments += callbacks.arguments(tasks=False)
        call = flow.task(operator, self._task_ids[one.id], one.name, arguments)
        return Node(
            name=self._variables[one.id],
            call=call,
            comment=comment,
            before=list(condition.sources),
            is_executable=True,
        )

    def _record(self, one: SendMailTask, fields: Fields) -> None:
        self._writer.mails.append(
            MailRecord(
                where="\\".join(one.path),
                became=f"task {self._task_ids[one.id]}",
                connection=fields.connection,
                properties=tuple(fields.records),
            )
        )
