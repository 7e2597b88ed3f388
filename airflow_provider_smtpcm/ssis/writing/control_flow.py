"""The control flow of a package as tasks and task groups.

A container that contains a mail becomes a task group with all its executables; each that sends no mail is an empty
task, so that order and trigger rules are those of the package. A container without mail is one empty task.
"""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.expressions import (
    TemplateContext,
)
from airflow_provider_smtpcm.ssis.model import Container, ContainerKind, Executable, SendMailTask
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord
from airflow_provider_smtpcm.ssis.writing.event_handlers import Callbacks, EventHandlerWriter, has_mail
from airflow_provider_smtpcm.ssis.writing.precedence import (
    ALL_SUCCESS,
    END_RULE,
    ContainerConditions,
    DagNode,
    TaskFactory,
    TriggerCondition,
    can_skip_inside,
)
from airflow_provider_smtpcm.ssis.writing.python_source import FunctionCall, KeywordArgument, UniqueNames
from airflow_provider_smtpcm.ssis.writing.secrets import sanitize
from airflow_provider_smtpcm.ssis.writing.send_mail_task import MailConverter
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, open_scope
from airflow_provider_smtpcm.ssis.writing.templates import WritingContext

# A For loop counts, or tries again until something succeeds.
_LOOP_REMEDIES = {
    ContainerKind.FOR_LOOP: "Give its tasks retries, if the loop tries again; or expand them, if more is meant.",
    ContainerKind.FOREACH_LOOP: "Expand its tasks over what the loop goes through (.expand or .expand_kwargs), or send "
    "its mails by one MailMergeOperator, if more is meant.",
}


def sends_mail(executable: Executable) -> bool:
    """Whether an executable contains a mail that is not disabled, in itself or in an event handler."""
    if executable.disabled:
        return False
    if isinstance(executable, SendMailTask) or has_mail(executable.event_handlers):
        return True
    return isinstance(executable, Container) and any(map(sends_mail, executable.executables))


class ControlFlowWriter(TaskFactory):
    """Converts the executables of one package.

    Args:
        context: of the package.
        unique: gives the names of the module's variables.
        handlers: converts event handlers.

    Attributes:
        mails: a record of every mail that became a task.
    """

    def __init__(self, context: WritingContext, unique: UniqueNames, handlers: EventHandlerWriter) -> None:
        super().__init__(context, unique)
        self.handlers = handlers
        self.mails: list[MailRecord] = []

    def convert(
        self, container: Container, scope: Scope, callbacks: Callbacks, *, may_be_skipped: bool
    ) -> list[DagNode]:
        """Return the nodes of a container, each after those upstream of it.

        Args:
            scope: of the container.
            callbacks: in force in the container.
            may_be_skipped: whether the container as a whole may not run although the DAG run goes on.
        """
        nodes = _ContainerWriter(self, container, scope, callbacks, may_be_skipped=may_be_skipped).nodes
        if not any(node.variable for node in nodes):
            call = self.create_task("EmptyOperator", "nothing", "nothing")
            comment = f"Nothing of {container.name!r} is left; put what it does in its place."
            nodes.append(DagNode(variable=self.unique.give("nothing"), call=call, comment=comment, is_executable=True))
        return nodes


class _ContainerWriter(ContainerConditions):
    """Converts the executables of one container when it is created."""

    def __init__(
        self,
        writer: ControlFlowWriter,
        container: Container,
        scope: Scope,
        callbacks: Callbacks,
        *,
        may_be_skipped: bool,
    ) -> None:
        super().__init__(writer, container, scope, may_be_skipped=may_be_skipped)
        self._writer, self._callbacks = writer, callbacks
        for key in self._graph.topological_order(self._kept):
            self._convert_executable(self._kept[key])

    def _convert_executable(self, one: Executable) -> None:
        condition = self._condition_of(one)
        has_upstream = bool(self._graph.incoming[one.id])
        has_downstream = one.id in self._graph.with_downstream
        is_group = isinstance(one, Container) and sends_mail(one) and bool(one.executables)
        disable = None if one.disabled else one.expressions.get("Disable")
        outcome_matters = one.id in self._graph.outcome_matters or (isinstance(one, Container) and can_skip_inside(one))
        has_end = is_group and has_downstream and outcome_matters
        reach_matters = one.id in self._graph.reach_matters or (has_end and (has_upstream or self._may_be_skipped))
        if reach_matters or (disable and has_downstream):
            condition = self._add_empty(f"{self._task_ids[one.id]}_ready", condition, f"Whether {one.name!r} may run.")
            self._reached[one.id] = condition.upstream[0]
        if disable:
            condition = self._only_if(one, f"!({disable})", f"Disable: {disable}", "enabled", condition)
        if isinstance(one, Container) and is_group:
            if condition.rule != ALL_SUCCESS:
                condition = self._add_empty(f"{self._task_ids[one.id]}_start", condition, "")
            node = self._group(one, condition)
        else:
            node = self._task(one, condition)
        self.nodes.append(node)
        if has_end or (disable and has_downstream):
            inner = list(node.executable_variables()) or [node.variable]
            reached = [self._reached[one.id]] if one.id in self._reached else []
            end = TriggerCondition((*reached, *inner), END_RULE)
            self._end[one.id] = self._add_empty(f"{self._task_ids[one.id]}_end", end, "").upstream[0]

    def _group(self, one: Container, condition: TriggerCondition) -> DagNode:
        writer = self._writer
        scope = open_scope(one.variables, self._scope)
        callbacks = writer.handlers.callbacks_of(one, scope, self._callbacks)
        comment = ""
        if one.kind in _LOOP_REMEDIES:
            comment = f"SSIS: a {one.kind}; here everything in it runs once."
            writer.context.findings.decision(
                "loop-runs-once",
                "\\".join(one.path),
                f"{one.name!r} is a {one.kind}. In the DAG what is in it runs once, and so each mail is sent once.",
                _LOOP_REMEDIES[one.kind],
            )
        may_be_skipped = self._may_be_skipped or bool(condition.upstream)
        children = writer.convert(one, scope, callbacks, may_be_skipped=may_be_skipped)
        if callbacks.own and children:
            self._report_group_callbacks(one, callbacks)
        task_id = self._task_ids[one.id]
        arguments = [KeywordArgument(name="group_id", value=task_id)]
        if one.name != task_id:
            arguments.append(KeywordArgument(name="group_display_name", value=sanitize(one.name)))
        if callbacks.inherited != self._callbacks.inherited:
            arguments += callbacks.as_default_args()
        return DagNode(
            variable=self._variables[one.id],
            call=FunctionCall(name="TaskGroup", arguments=arguments),
            comment=comment,
            upstream=list(condition.upstream),
            children=children,
        )

    def _report_group_callbacks(self, one: Container, callbacks: Callbacks) -> None:
        for names in callbacks.own.values():
            for name in names:
                self._writer.context.findings.decision(
                    "callback-without-place",
                    "\\".join(one.path),
                    f"A group of Airflow has no callback of its own, so {name} is defined in the DAG and not called.",
                    "Hang it on the last task of the group.",
                )

    def _task(self, one: Executable, condition: TriggerCondition) -> DagNode:
        writer = self._writer
        scope = open_scope(one.variables, self._scope)
        arguments: list[KeywordArgument] = []
        if condition.rule != ALL_SUCCESS:
            arguments.append(KeywordArgument(name="trigger_rule", value=condition.rule))
        comment, operator = "", "EmptyOperator"
        if one.disabled:
            comment = f"{one.name!r} is disabled: it does nothing, and what comes after it goes on, as in SSIS."
        elif isinstance(one, SendMailTask):
            operator = "SendMailOperator"
            mail = MailConverter(writer.context, one, scope, TemplateContext.TASK)
            arguments += mail.arguments
            writer.mails.append(mail.record(f"task {self._task_ids[one.id]}"))
        else:
            kind = one.kind or "a task"
            comment = f"{one.name!r} ({kind}) sends no mail; put what does its work in its place."
        if not one.disabled:
            callbacks = writer.handlers.callbacks_of(one, scope, self._callbacks)
            if isinstance(one, Container):
                callbacks = Callbacks(own=callbacks.inherited)
                if callbacks.own == self._callbacks.inherited:
                    callbacks = Callbacks()
            arguments += callbacks.as_arguments()
        return DagNode(
            variable=self._variables[one.id],
            call=writer.create_task(operator, self._task_ids[one.id], one.name, arguments),
            comment=comment,
            upstream=list(condition.upstream),
            is_executable=True,
        )
