"""The control flow of a package as Airflow tasks and task groups.

A Sequence container becomes a task group with all its executables, and so does a loop that sends mail. If the
iterations of the loop are known before they begin, the group may be mapped over them, or the loop becomes a mail merge
(see `loops`); otherwise, everything in the group runs once. What the import cannot translate becomes a placeholder,
which fails until a task with the same work takes its place. If it succeeded, the DAG would send mail about work that it
has not done.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_smtpcm.ssis.expressions import (
    ExpressionError,
    NotTranslatable,
    TemplateContext,
    escape_template,
)
from airflow_provider_smtpcm.ssis.model import Container, ContainerKind, Executable, ForeachLoop, SendMailTask
from airflow_provider_smtpcm.ssis.windows_paths import is_windows_path
from airflow_provider_smtpcm.ssis.writing.conversion import MailRecord, WritingContext
from airflow_provider_smtpcm.ssis.writing.event_handlers import Callbacks, EventHandlerWriter
from airflow_provider_smtpcm.ssis.writing.flow import MappedLoop, can_skip_inside, succeeds_despite_failures
from airflow_provider_smtpcm.ssis.writing.precedence import (
    ALL_SUCCESS,
    END_RULE,
    ContainerConditions,
    DagNode,
    MappedGroup,
    TaskFactory,
    TriggerCondition,
)
from airflow_provider_smtpcm.ssis.writing.python_source import (
    FunctionCall,
    KeywordArgument,
    Raw,
    UniqueNames,
    keywords,
    variable_name,
)
from airflow_provider_smtpcm.ssis.writing.secrets import display_expression, sanitize
from airflow_provider_smtpcm.ssis.writing.send_mail_task import MailConverter
from airflow_provider_smtpcm.ssis.writing.symbols import Scope, open_scope
from airflow_provider_smtpcm.ssis.writing.tasks import convert_task
from airflow_provider_smtpcm.ssis.writing.templates import COMPLETE_ME, TemplateTranslator, error_summary

# Most For loops count, or retry until something succeeds.
_LOOP_REMEDIES = {
    ContainerKind.FOR_LOOP: "If the loop tries again after a failure, give its tasks retries. If it repeats its work, "
    "expand its tasks (.expand or .expand_kwargs).",
    ContainerKind.FOREACH_LOOP: "If it must run for each item, expand its tasks over the items (.expand or "
    ".expand_kwargs), or send its mails with one MailMergeOperator.",
    ContainerKind.TASK_HOST: "If it repeats its work, expand its tasks (.expand or .expand_kwargs).",
}

_ALWAYS = TriggerCondition((), ALL_SUCCESS)


class ControlFlowWriter(TaskFactory):
    """Converts the executables of one package.

    Args:
        context: the package's context.
        variable_names: allocates the names of the module's variables.
        handlers: converts the event handlers.

    Attributes:
        mails: a record of each Send Mail task that became an Airflow task.
    """

    def __init__(self, context: WritingContext, variable_names: UniqueNames, handlers: EventHandlerWriter) -> None:
        super().__init__(context, variable_names)
        self.handlers = handlers
        self.mails: list[MailRecord] = []
        # The variable of each executable that is in the DAG, by its id.
        self.variables: dict[str, str] = {}

    def convert(
        self, container: Container, scope: Scope, callbacks: Callbacks, *, may_be_skipped: bool
    ) -> list[DagNode]:
        """Return the nodes of a container, each after its upstream nodes.

        Args:
            scope: the container's variables, and those around it.
            callbacks: the callbacks of the container, and the inherited ones.
            may_be_skipped: whether the container as a whole may be skipped while the DAG run continues.
        """
        nodes = _ContainerWriter(self, container, scope, callbacks, may_be_skipped=may_be_skipped).nodes
        if not any(node.variable for node in nodes):
            call = self.create_task("EmptyOperator", "nothing", "nothing")
            comment = f"No executable of {container.name!r} is in the DAG: it has none, or all are disabled."
            nodes.append(
                DagNode(
                    variable=self.variable_names.allocate("nothing"), call=call, comment=comment, is_executable=True
                )
            )
        return nodes


class _ContainerWriter(ContainerConditions):
    """Converts the executables of one container; the constructor does all of it."""

    def __init__(
        self,
        writer: ControlFlowWriter,
        container: Container,
        scope: Scope,
        callbacks: Callbacks,
        *,
        may_be_skipped: bool,
    ) -> None:
        # Any other container has a condition before its group.
        is_conditional = container.kind is ContainerKind.PACKAGE and not container.disabled
        disable = container.expressions.get("Disable") if is_conditional else None
        super().__init__(writer, container, scope, may_be_skipped=may_be_skipped or bool(disable))
        self._writer, self._callbacks = writer, callbacks
        writer.variables |= self._variables
        # The variable of the task that lists the files of a loop, by the loop's id.
        self._listings: dict[str, str] = {}
        if disable:
            self._task_ids[container.id] = "package"
            self._add_only_if(container, f"!({disable})", f"Disable: {disable}", "enabled", _ALWAYS)
        before = len(self.nodes)
        for key in self._graph.topological_order(self._included):
            self._convert_executable(self._included[key])
        if disable:
            for node in self.nodes[before:]:
                node.upstream = node.upstream or [self.nodes[before - 1].variable]

    def _convert_executable(self, executable: Executable) -> None:
        task_id = self._task_ids[executable.id]
        condition = self._make_condition(executable)
        has_upstream = bool(self._graph.incoming[executable.id])
        has_downstream = executable.id in self._graph.with_downstream
        becomes_group = self._writer.context.symbols.flow.is_group(executable)
        mapped = self._writer.context.symbols.live.loops.get(executable.id)
        is_mapped_group = mapped is not None and mapped.mail is None
        disable = None if executable.disabled else executable.expressions.get("Disable")
        # Without iterations, Airflow skips a mapped group and what follows it.
        outcome_matters = (
            is_mapped_group
            or executable.id in self._graph.followed_on_failure
            or (
                isinstance(executable, Container)
                and (can_skip_inside(executable) or succeeds_despite_failures(executable))
            )
        )
        has_end_task = becomes_group and has_downstream and outcome_matters
        has_ready_task = executable.id in self._graph.needs_ready_task or (
            has_end_task and (has_upstream or self._may_be_skipped or is_mapped_group)
        )
        if has_ready_task or (disable and has_downstream):
            condition = self._add_empty(f"{task_id}_ready", condition, f"Succeeds if {executable.name!r} may run.")
            self._ready_tasks[executable.id] = condition.upstream[0]
        if disable:
            condition = self._add_only_if(executable, f"!({disable})", f"Disable: {disable}", "enabled", condition)
        if condition.rule != ALL_SUCCESS and (becomes_group or mapped is not None):
            # The task with the rows of a loop becomes upstream of the loop; the rule must not count that task.
            condition = self._add_empty(f"{task_id}_start", condition, "")
        if mapped is not None and mapped.files is not None:
            condition = self._add_listing(mapped, mapped.files, condition)
        if isinstance(executable, Container) and becomes_group:
            node = self._create_group(executable, condition)
        elif mapped is not None:
            node = self._create_merge(mapped, condition)
        else:
            node = self._create_task(executable, condition)
        self.nodes.append(node)
        if has_end_task or (disable and has_downstream):
            inner = list(node.executable_variables()) or [node.variable]
            ready_task = [self._ready_tasks[executable.id]] if executable.id in self._ready_tasks else []
            end = TriggerCondition((*ready_task, *inner), END_RULE)
            self._end_tasks[executable.id] = self._add_empty(f"{task_id}_end", end, "").upstream[0]

    def _create_group(self, container: Container, condition: TriggerCondition) -> DagNode:
        writer = self._writer
        scope = open_scope(container.variables, self._scope)
        callbacks = writer.handlers.convert_callbacks(container, scope, self._callbacks)
        comment = ""
        loop = writer.context.symbols.live.loops.get(container.id)
        if loop is not None:
            comment = f"SSIS: a {container.kind}. The tasks run for each iteration."
            self._report_mapped_loop(loop)
        elif container.kind in _LOOP_REMEDIES:
            comment = f"SSIS: a {container.kind}. In the DAG, everything in it runs once."
            writer.context.findings.decision(
                "loop-runs-once",
                container.where,
                f"{container.name!r} is a {container.kind}. In the DAG, everything in it runs once, so each mail is "
                "sent once.",
                _LOOP_REMEDIES[container.kind],
            )
        for _, name in () if loop is None else (*loop.fields, *loop.next_fields):
            writer.variable_names.allocate(name)  # a task in the function must not replace its argument
        may_be_skipped = self._may_be_skipped or bool(condition.upstream)
        children = writer.convert(container, scope, callbacks, may_be_skipped=may_be_skipped)
        if callbacks.own and children:
            self._report_group_callbacks(container, callbacks)
        task_id = self._task_ids[container.id]
        arguments = keywords(group_id=task_id)
        if container.name != task_id:
            arguments += keywords(group_display_name=sanitize(container.name))
        inherited = callbacks.as_default_args() if callbacks.inherited != self._callbacks.inherited else []
        node = DagNode(
            variable=self._variables[container.id],
            call=FunctionCall("TaskGroup", arguments + inherited),
            comment=comment,
            upstream=list(condition.upstream),
            children=children,
        )
        if loop is not None:
            self._map_group(node, loop, arguments, callbacks)
        return node

    def _map_group(
        self, node: DagNode, loop: MappedLoop, arguments: list[KeywordArgument], callbacks: Callbacks
    ) -> None:
        """Turn the node of a task group into a mapped one, with a task that sets the loop's variables."""
        writer, children = self._writer, node.children or []
        flow = writer.context.symbols.flow
        # One iteration after the other; callbacks are those of the group, or else of the groups around it.
        defaults: dict[str, object] = {"max_active_tis_per_dagrun": 1}
        defaults |= {name: [Raw(one) for one in names] for name, names in callbacks.inherited.items()}
        node.call = FunctionCall("task_group", [*arguments, *keywords(default_args=defaults)])
        parameters = {variable.qualified_name: Raw(name) for variable, name in loop.fields}
        task_id = flow.row_task(loop.loop)
        row = DagNode(
            variable=writer.variable_names.allocate(task_id),
            call=writer.create_task("ExpressionOperator", task_id, task_id, keywords(variables=parameters)),
            comment="The variables of the iteration.",
        )
        for child in children:
            if child.variable and not child.upstream:
                child.upstream.append(row.variable)
        executables = [variable for child in children for variable in child.executable_variables()]
        end_id, end_operator, end_arguments = flow.end_task(loop.loop), "EmptyOperator", keywords(trigger_rule=END_RULE)
        comment = "Fails the iteration if a task in it failed, even if later tasks succeeded."
        if loop.next_fields:
            end_operator = "ExpressionOperator"
            end_arguments += keywords(variables={known.qualified_name: Raw(name) for known, name in loop.next_fields})
            comment += " What reads a counter after the loop gets the value that ended it."
        end = DagNode(
            variable=writer.variable_names.allocate(variable_name(end_id)),
            call=writer.create_task(end_operator, end_id, end_id, end_arguments),
            upstream=[row.variable, *executables],
            comment=comment,
        )
        node.children = [row, *children, end]
        rows, node.uses = self._find_rows(loop)
        node.mapped = MappedGroup(
            function=writer.variable_names.allocate("iteration"),
            parameters=tuple(name for _, name in (*loop.fields, *loop.next_fields)),
            rows=rows,
        )

    def _add_listing(self, loop: MappedLoop, files: ForeachLoop, condition: TriggerCondition) -> TriggerCondition:
        """Add the task that lists the files of a loop; return the condition that it succeeded."""
        container, context = loop.loop, self._writer.context
        where = container.where
        translator = TemplateTranslator.inside(container, context, open_scope(container.variables, self._scope))

        def convert(name: str, argument: str, value: str, *, is_path: bool) -> KeywordArgument:
            expression = files.expressions.get(name)
            if expression is None:
                text = escape_template(translator.map_path(value) if is_path else value)
                return KeywordArgument(argument, text)
            comments: tuple[str, ...] = (f"SSIS: {display_expression(expression)}",)
            try:
                text = translator.translate(expression, is_path=is_path).text
            except (ExpressionError, NotTranslatable) as error:
                text, reason = f"{{{{ {COMPLETE_ME}.{argument} }}}}", error_summary(error)
                context.findings.decision(
                    "expression-to-complete",
                    where,
                    f"{name} comes from an expression that cannot be translated to a template: {reason}",
                    f"Write {argument!r} in the DAG; until then, the task fails.",
                )
            return KeywordArgument(argument, text, comments=comments)

        arguments = [
            convert("Directory", "folder", files.folder, is_path=True),
            convert("FileSpec", "file_spec", files.file_spec or "*", is_path=False),
        ]
        if loop.yields_paths:
            arguments += self._find_windows_folder(files, str(arguments[0].value), translator)
        if files.recurse:
            arguments += keywords(recurse=True)
        arguments += keywords(field=loop.fields[0][1])
        if files.file_name_retrieval:
            retrieve = ("path", "name", "stem")[files.file_name_retrieval]
            arguments += keywords(retrieve=retrieve)
        task_id = self._free_task_ids.allocate(f"{self._task_ids[container.id]}_files")
        call = self._writer.create_task("ListFilesOperator", task_id, task_id, arguments)
        condition = self._add_task(task_id, call, condition, f"The files of {container.name!r}.")
        self._listings[container.id] = condition.upstream[0]
        return condition

    @staticmethod
    def _find_windows_folder(
        files: ForeachLoop, folder: str, translator: TemplateTranslator
    ) -> Iterator[KeywordArgument]:
        """Yield the argument with the folder as expressions see it, if it may be a Windows path.

        Args:
            folder: the template for the folder on the worker.
        """
        expression = files.expressions.get("Directory")
        try:
            text = escape_template(files.folder) if expression is None else translator.translate(expression).text
        except (ExpressionError, NotTranslatable):  # reported for the folder
            return
        if text != folder or is_windows_path(text.strip()):
            yield KeywordArgument("windows_folder", text)

    def _find_rows(self, loop: MappedLoop) -> tuple[object, list[str]]:
        """Return the source of a loop's rows, and the variable of the task that it needs."""
        if loop.query is None and loop.files is None:
            return list(loop.rows), []
        variable = self._listings[loop.loop.id] if loop.query is None else self._writer.variables[loop.query.id]
        return Raw(f"{variable}.output"), [variable]

    def _create_merge(self, loop: MappedLoop, condition: TriggerCondition) -> DagNode:
        """Return the mail merge for a loop that only sends a mail."""
        writer, container, mail = self._writer, loop.loop, loop.mail
        if mail is None:
            raise TypeError("a loop without a mail")
        self._report_mapped_loop(loop)
        scope = open_scope(mail.variables, open_scope(container.variables, self._scope))
        task_id = self._task_ids[container.id]
        converted = MailConverter(writer.context, mail, scope, TemplateContext.TASK)
        writer.mails.append(converted.to_record(f"task {writer.context.symbols.flow.task_ids[container.id]}"))
        rows, uses = self._find_rows(loop)
        callbacks = writer.handlers.convert_callbacks(container, scope, self._callbacks)
        arguments = [*keywords(rows=rows), *converted.arguments]
        arguments += callbacks.for_single_task(self._callbacks).as_arguments()
        return DagNode(
            variable=self._variables[container.id],
            call=writer.create_task("MailMergeOperator", task_id, container.name, arguments),
            comment=f"SSIS: {mail.name!r} in a {container.kind}.",
            upstream=list(condition.upstream),
            uses=uses,
            is_executable=True,
        )

    def _report_mapped_loop(self, loop: MappedLoop) -> None:
        container, query = loop.loop, loop.query
        over = f"the rows of {query.name!r}" if query is not None else f"{len(loop.rows)} rows of values"
        over = over if loop.files is None else "the files that are in its folder"
        if loop.mail is not None:
            text = (
                f"{container.name!r} is a {container.kind} with a mail. It became a mail merge over {over}: one mail "
                "for each row, one after the other. SSIS stops at the first mail that fails; the merge sends the "
                "others, and then fails. A NULL is an empty text in a mail; SSIS fails there."
            )
        else:
            text = (
                f"{container.name!r} is a {container.kind}. It became a mapped task group over {over}: its tasks run "
                "for each of them. SSIS completes one iteration before the next, and stops at the first that fails. In "
                "the DAG, only the instances of the same task run one after the other; if an iteration fails, the "
                "others still run."
            )
            if query is not None or loop.files is not None:
                text += " By default, Airflow maps at most 1,024 rows (max_map_length)."
        if loop.yields_paths:
            name = loop.fields[0][0].qualified_name
            text += f" As in SSIS, {name} has a Windows path if the folder is one. The DAG maps it to a path on the "
            text += "worker where it opens the file; in a task of your own, use ssis.worker_paths."
        self._writer.context.findings.note(
            "loop-became-group" if loop.mail is None else "loop-became-merge", container.where, text
        )

    def _report_group_callbacks(self, container: Container, callbacks: Callbacks) -> None:
        for argument, names in callbacks.own.items():
            problem = "An Airflow task group has no callbacks of its own"
            remedy = f"Set it as {argument} of a task in the group."
            self._writer.handlers.report_without_place(names, container, problem, remedy)

    def _create_task(self, executable: Executable, condition: TriggerCondition) -> DagNode:
        writer, task_id = self._writer, self._task_ids[executable.id]
        scope = open_scope(executable.variables, self._scope)
        arguments = condition.as_arguments()
        comment, operator = "", "EmptyOperator"
        if executable.disabled:
            comment = f"{executable.name!r} is disabled: as in SSIS, it does nothing, and what follows it runs."
        elif isinstance(executable, SendMailTask):
            operator = "SendMailOperator"
            mail = MailConverter(writer.context, executable, scope, TemplateContext.TASK)
            arguments += mail.arguments
            full_id = writer.context.symbols.flow.task_ids[executable.id]
            writer.mails.append(mail.to_record(f"task {full_id}"))
        elif isinstance(executable, Container) and not executable.executables:
            comment = f"{executable.name!r} is empty."
        else:
            converted = convert_task(writer.context, executable, scope)
            operator, comment = converted.operator, converted.comment
            arguments += converted.arguments
        if not executable.disabled:
            callbacks = writer.handlers.convert_callbacks(executable, scope, self._callbacks)
            if isinstance(executable, Container):
                # The container becomes a single task, with the callbacks that the tasks in it would inherit.
                callbacks = callbacks.for_single_task(self._callbacks)
            arguments += callbacks.as_arguments()
        return DagNode(
            variable=self._variables[executable.id],
            call=writer.create_task(operator, task_id, executable.name, arguments),
            comment=comment,
            upstream=list(condition.upstream),
            is_executable=True,
        )
