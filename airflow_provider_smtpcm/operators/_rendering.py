"""How the template fields of our operators are rendered: the author's templates, and other tasks' outputs as data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context

    from airflow_provider_smtpcm.arguments.templates import FieldEnvironments


log = logging.getLogger(__name__)

# Arguments of a decorated function: Airflow maps them, and renders each as a template.
_FUNCTION_ARGUMENTS = "op_kwargs"
_OWN_PACKAGE = __name__.partition(".")[0]


class RenderedOperator(BaseOperator):
    """An operator whose templates are what the author of the DAG wrote, and nothing else.

    Airflow renders what `expand_kwargs` of another task's output put into a field, which would run a template that came
    with the data. Here a value that another task computed is never a template, however the task was mapped over it.
    """

    #: Template fields that the operator renders itself, once it has what they are about.
    rendered_later: Sequence[str] = ()

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Airflow's own, by which it renders an operator and each task that it was mapped into."""
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, as_data, as_written, render_field

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
                elif not written.has(name):
                    rendered = as_data(name, as_written(value))
                elif callable(value):  # a function of the author's, which Airflow calls instead of a template
                    rendered = as_data(name, value(context=context, jinja_env=jinja_env))
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

    Where `expand_kwargs` takes its mappings from another task, an argument counts as written only where it stands in
    `partial()` or `default_args`: Airflow does not say which arguments the task's output brought.

    Args:
        task: as Airflow runs it.
        context: of this run.
        environments: tell what may be a template.
    """

    def __init__(self, task: BaseOperator, context: Context, environments: FieldEnvironments) -> None:
        dag = task.get_dag()
        # Of a mapped task the DAG keeps the definition, with what was given to `partial` and to `expand`.
        mapped: Any = None if dag is None else dag.task_dict.get(task.task_id)
        partial = getattr(mapped, "partial_kwargs", None)
        self._task = task
        self._over_arguments: Mapping[str, bool] | None = {}
        self._over_function: Mapping[str, bool] | None = {}
        if partial is None:
            return
        function = getattr(mapped, "op_kwargs_expand_input", None)
        if function is None:
            self._over_arguments = _mapped_arguments(mapped.expand_input, context)
            if self._over_arguments and not all(self._over_arguments.values()):
                self._check_what_is_made_of_them(mapped.expand_input, context, environments)
        else:
            self._over_function = _mapped_arguments(function, context)
        self._function_arguments = partial.get(_FUNCTION_ARGUMENTS) or {}
        defaults = [given.default_args for given in (dag, task.task_group) if given is not None]
        self._given = [partial, *(given for given in (*defaults, partial.get("default_args")) if given)]

    def _check_what_is_made_of_them(self, expanded: Any, context: Context, environments: FieldEnvironments) -> None:
        """Trust only `partial` and `default_args` where computed arguments may have become a part of others.

        The constructor of a subclass may write an argument into a template: `subject=f"Report of {month}"`.
        """
        assert self._over_arguments is not None
        by_defaults = not self._over_arguments.get("default_args", True)
        constructor = type(self._task).__init__.__module__.partition(".")[0]
        if context.get("ti") is not None and (by_defaults or constructor != _OWN_PACKAGE):
            values, _ = expanded.resolve(context)
            computed = (values[name] for name, written in self._over_arguments.items() if not written)
            if by_defaults or any(map(environments.renders, _texts_in(list(computed)))):
                self._over_arguments = None

    def has(self, name: str) -> bool:
        """Whether the author wrote an argument, or left it out."""
        if self._over_arguments is not None:
            return self._over_arguments.get(name, True)
        from airflow_provider_smtpcm.arguments.templates import as_written

        value = as_written(getattr(self._task, name))
        return any(name in given and _is_same(given[name], value) for given in self._given)

    def has_function_argument(self, name: str, value: object) -> bool:
        """Whether the author wrote an argument of a decorated function."""
        if self._over_function is not None:
            return self._over_function.get(name, True)
        written = (self._function_arguments, *self._given)  # a default may be for an argument of the function too
        return any(name in given and _is_same(given[name], value) for given in written)


def _mapped_arguments(expanded: Any, context: Context) -> Mapping[str, bool] | None:
    """The arguments that a task is mapped over, each with whether its values stand in the DAG file.

    None: another task's output brings their names.
    """
    over = expanded.value
    if isinstance(over, Mapping):
        return {name: isinstance(values, Mapping | Sequence) for name, values in over.items()}
    if not isinstance(over, Sequence):
        return None
    task_instance: Any = context.get("ti")  # None: somebody renders the task by hand
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
    if isinstance(written, tuple) and isinstance(value, list):  # `unrendered` makes lists of tuples
        written = list(written)
    return written is value or (isinstance(written, str | list | tuple | dict) and written == value)
