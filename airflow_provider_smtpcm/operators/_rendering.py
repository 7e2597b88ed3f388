"""The rendering of our operators' template fields: the author's templates, with other tasks' outputs as data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context, XComArg

    from airflow_provider_smtpcm.arguments.templates import FieldEnvironments
    from airflow_provider_smtpcm.mail import (
        AddressesLike,
        AddressLike,
        AttachmentLike,
        AttachmentsLike,
        HeaderValues,
        InlineImagesLike,
        Priority,
    )

    # The types of the operators' arguments: a value, or the output of another task in the place of one.
    TextArgument = str | XComArg
    AddressArgument = AddressLike | XComArg
    AddressesArgument = AddressesLike | Iterable[AddressLike | XComArg] | XComArg
    AttachmentsArgument = AttachmentsLike | Iterable[AttachmentLike | XComArg] | XComArg
    InlineImagesArgument = InlineImagesLike | Mapping[str, AttachmentLike | XComArg] | XComArg
    PriorityArgument = str | Priority | XComArg
    HeadersArgument = HeaderValues | XComArg

log = logging.getLogger(__name__)

# The arguments of a decorated function: Airflow maps them, and renders each as a template.
_FUNCTION_ARGUMENTS = "op_kwargs"
_OWN_PACKAGE = __name__.partition(".")[0]


class RenderedOperator(BaseOperator):
    """An operator that renders as templates what the author of the DAG wrote, and nothing else.

    Airflow renders what `expand_kwargs` of another task's output put into a field, which would run a template that came
    with the data. Here a value that another task computed is never a template, however the task was mapped over it.
    """

    #: Template fields that the operator renders itself, once it has the values for them.
    rendered_later: Sequence[str] = ()

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Override the method by which Airflow renders an operator, and each task that it was mapped into."""
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, mark_as_data, render_field
        from airflow_provider_smtpcm.merge.templates import undeferred

        environments = FieldEnvironments(jinja_env)
        written = WrittenArguments(self, context, environments)
        variables = {**jinja_env.globals, **context}
        for name in template_fields:
            value = getattr(self, name)
            if value is None or (isinstance(value, str) and not value):
                continue
            try:
                rendered: Any
                if name == _FUNCTION_ARGUMENTS:
                    rendered = {
                        key: self.render_template(argument, context, jinja_env, set())
                        if written.has_function_argument(key, argument)
                        else argument
                        for key, argument in value.items()
                    }
                elif not written.has_argument(name):
                    rendered = mark_as_data(name, undeferred(value))
                elif callable(value):  # a function of the author's, which Airflow calls instead of a template
                    rendered = mark_as_data(name, value(context=context, jinja_env=jinja_env))
                elif name in self.rendered_later:
                    rendered = self.render_template(value, context, jinja_env, set())
                else:
                    rendered = render_field(
                        name,
                        value,
                        environments,
                        variables,
                        lambda other: self.render_template(other, context, jinja_env, set()),
                    )
            except Exception as error:
                log.error("The field '%s' could not be rendered (%s).", name, type(error).__name__)  # noqa: TRY400
                raise
            setattr(self, name, rendered)


class WrittenArguments:
    """Tells the arguments that the author of the DAG wrote from those that other tasks computed.

    Where `expand_kwargs` takes its mappings from another task, an argument counts as written only if it is in
    `partial()` or `default_args`: Airflow does not tell which arguments the other task's output contained.

    Args:
        task: as Airflow runs it.
        context: of the task.
        environments: tell what may be a template.
    """

    def __init__(self, task: BaseOperator, context: Context, environments: FieldEnvironments) -> None:
        dag = task.get_dag()
        # Of a mapped task the DAG keeps the definition, with what was given to `partial` and to `expand`.
        mapped: Any = None if dag is None else dag.task_dict.get(task.task_id)
        partial = getattr(mapped, "partial_kwargs", None)
        self._task = task
        # The mapped arguments, see `_find_mapped_arguments`: of the operator, and of a decorated function.
        self._mapped_arguments: Mapping[str, bool] | None = {}
        self._mapped_function_arguments: Mapping[str, bool] | None = {}
        if partial is None:
            return
        function = getattr(mapped, "op_kwargs_expand_input", None)
        if function is None:
            self._mapped_arguments = _find_mapped_arguments(mapped.expand_input, context)
            if self._mapped_arguments and not all(self._mapped_arguments.values()):
                self._check_constructor(mapped.expand_input, context, environments)
        else:
            self._mapped_function_arguments = _find_mapped_arguments(function, context)
        self._function_arguments = partial.get(_FUNCTION_ARGUMENTS) or {}
        defaults = [owner.default_args for owner in (dag, task.task_group) if owner is not None]
        self._given = [partial, *(given for given in (*defaults, partial.get("default_args")) if given)]

    def _check_constructor(self, expanded: Any, context: Context, environments: FieldEnvironments) -> None:
        """Trust only `partial` and `default_args` where the constructor may have used computed arguments in others.

        The constructor of a subclass may write an argument into a template: `subject=f"Report of {month}"`.
        """
        assert self._mapped_arguments is not None
        has_computed_defaults = not self._mapped_arguments.get("default_args", True)
        constructor_package = type(self._task).__init__.__module__.partition(".")[0]
        if context.get("ti") is not None and (has_computed_defaults or constructor_package != _OWN_PACKAGE):
            values, _ = expanded.resolve(context)
            computed = (values[name] for name, is_written in self._mapped_arguments.items() if not is_written)
            if has_computed_defaults or any(map(environments.is_template, _texts_in(list(computed)))):
                self._mapped_arguments = None

    def has_argument(self, name: str) -> bool:
        """Whether the author wrote an argument, or left it out."""
        if self._mapped_arguments is not None:
            return self._mapped_arguments.get(name, True)
        from airflow_provider_smtpcm.merge.templates import undeferred

        value = undeferred(getattr(self._task, name))
        return any(name in given and _is_same(given[name], value) for given in self._given)

    def has_function_argument(self, name: str, value: object) -> bool:
        """Whether the author wrote this value of a decorated function's argument."""
        if self._mapped_function_arguments is not None:
            return self._mapped_function_arguments.get(name, True)
        written = (self._function_arguments, *self._given)  # a default may be for an argument of the function too
        return any(name in given and _is_same(given[name], value) for given in written)


def _find_mapped_arguments(expanded: Any, context: Context) -> Mapping[str, bool] | None:
    """Return the arguments that a task is mapped over, each with whether the DAG file holds its values.

    None: another task's output brings their names.
    """
    over = expanded.value
    if isinstance(over, Mapping):
        return {name: isinstance(values, Mapping | Sequence) for name, values in over.items()}
    if not isinstance(over, Sequence):
        return None
    task_instance: Any = context.get("ti")  # None where a task is rendered by hand
    mappings = over if task_instance is None else [over[task_instance.map_index or 0]]
    names = [name for mapping in mappings if isinstance(mapping, Mapping) for name in mapping]
    return dict.fromkeys(names, True) if all(isinstance(mapping, Mapping) for mapping in mappings) else None


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts_in([*value, *value.values()])
    elif isinstance(value, Sequence | AbstractSet) and not isinstance(value, bytes | bytearray):
        for item in value:
            yield from _texts_in(item)


def _is_same(written: object, value: object) -> bool:
    if isinstance(written, tuple) and isinstance(value, list):  # `deferred` makes lists of tuples
        written = list(written)
    return written is value or (isinstance(written, str | list | tuple | dict) and written == value)
