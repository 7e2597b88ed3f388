"""Rendering of template fields: templates in the DAG file are rendered, outputs of other tasks are data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Self, cast

from airflow.sdk import BaseOperator

from airflow_provider_smtpcm.hooks.object_storage import to_storage_path

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
        MessageLike,
        Priority,
    )
    from airflow_provider_smtpcm.mail.files import RemotePath

    # The types of the operators' arguments: a value, or the output of another task.
    TextArgument = str | XComArg
    BodyArgument = TextArgument | os.PathLike[str] | RemotePath
    AddressArgument = AddressLike | XComArg
    AddressesArgument = AddressesLike | Iterable[AddressLike | XComArg] | XComArg
    AttachmentsArgument = AttachmentsLike | Iterable[AttachmentLike | XComArg] | XComArg
    InlineImagesArgument = InlineImagesLike | Mapping[str, AttachmentLike | XComArg] | XComArg
    PriorityArgument = str | Priority | XComArg
    HeadersArgument = HeaderValues | XComArg
    MessageArgument = MessageLike | str | XComArg

log = logging.getLogger(__name__)

#: How Airflow's page *Rendered Templates* shows the fields of a mail.
FIELD_RENDERERS = {"text": "text", "html": "html", "attachments": "json", "inline_images": "json", "headers": "json"}
# The template field with the arguments of a decorated function.
_FUNCTION_ARGUMENTS = "op_kwargs"
_OWN_PACKAGE = __name__.partition(".")[0]


def seal_message(message: Any) -> Any:
    """Return a complete message in memory as a `MimeMessage`, and anything else, such as a path, unchanged.

    Airflow stores the text of a template field with each version of a DAG. That of a `MimeMessage` is short, and does
    not change with each parse of the DAG file, as the boundaries of Python's `email` do.
    """
    if message is None or isinstance(message, str):
        return message
    from airflow_provider_smtpcm.mail.mime_message import MessageInMemory, MimeMessage

    return MimeMessage(message) if isinstance(message, MessageInMemory) else message


class RenderedOperator(BaseOperator):
    """An operator that renders only the templates that the author of the DAG wrote.

    If a task is mapped over the output of another task by `expand_kwargs`, Airflow renders that output, and so runs any
    template in the data. Here a value that another task computed is never rendered.
    """

    #: Template fields that the operator renders itself, in `execute`. Airflow has then resolved outputs of other
    #: tasks in them, and rendered nothing.
    rendered_later: Sequence[str] = ()

    def render_for_preview(self, context: Mapping[str, Any]) -> Self:
        """Return a copy whose fields are rendered, as Airflow renders those of a task."""
        copy = self.prepare_for_execution()
        copy.render_template_fields(cast("Context", context))
        return copy

    def _has_arguments_of_dag_file(self) -> bool:
        """Whether the constructor got what is written in the DAG file, so that mistakes in it are errors of the DAG.

        Not so in a mapped task's run, whose arguments may be another task's output, nor in a subclass, which may change
        its attributes before they are used, nor where templates have a syntax of their own.
        """
        from airflow_provider_smtpcm.arguments.validation import has_own_syntax

        if type(self).__module__.partition(".")[0] != _OWN_PACKAGE:
            return False
        dag = self.get_dag()
        # For a mapped task, the DAG has a `MappedOperator`.
        return dag is None or (
            dag.task_dict.get(self.task_id) is self and not has_own_syntax(dag.jinja_environment_kwargs)
        )

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        """Render the fields; Airflow calls this for an operator and for each task instance that is mapped from it."""
        if parent is not self:  # an object in a field, with template fields of its own
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
            return
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, mark_as_data, render_field

        environments = FieldEnvironments(jinja_env, to_path=to_storage_path)
        arguments = AuthoredArguments(self, context, environments)
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
                        if arguments.is_authored_function_argument(key, argument)
                        else argument
                        for key, argument in value.items()
                    }
                elif not arguments.is_authored(name):
                    from airflow_provider_smtpcm.merge.templates import undefer_templates

                    rendered = mark_as_data(name, undefer_templates(value))
                elif callable(value):  # Airflow lets a function take the place of a template
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


class AuthoredArguments:
    """Distinguishes the arguments that the author of the DAG wrote from those that other tasks computed.

    If `expand_kwargs` takes its mappings from another task, an argument counts as authored only if it is in `partial()`
    or `default_args`: Airflow does not say which arguments the output of the other task contained.

    Args:
        task: the operator; for a mapped task, the one that Airflow made for this task instance.
        context: the task's context.
        environments: the task's Jinja environments, which distinguish templates from data.
    """

    def __init__(self, task: BaseOperator, context: Context, environments: FieldEnvironments) -> None:
        dag = task.get_dag()
        # For a mapped task, the DAG has a `MappedOperator`, with the arguments of `partial` and `expand`.
        definition: Any = None if dag is None else dag.task_dict.get(task.task_id)
        partial = getattr(definition, "partial_kwargs", None)
        self._task = task
        # The mapped arguments of the operator, each with whether the author wrote it. None: not known; in this case, a
        # value counts as authored only if it is found in `_author_sources`.
        self._mapped_arguments: Mapping[str, bool] | None = {}
        # The same for the arguments of a decorated function.
        self._mapped_function_arguments: Mapping[str, bool] | None = {}
        if partial is None:
            return
        function_expand_input = getattr(definition, "op_kwargs_expand_input", None)
        if function_expand_input is None:
            self._mapped_arguments = _find_mapped_arguments(definition.expand_input, context)
            if self._mapped_arguments and not all(self._mapped_arguments.values()):
                self._check_constructor(definition.expand_input, context, environments)
        else:
            self._mapped_function_arguments = _find_mapped_arguments(function_expand_input, context)
        self._function_arguments = partial.get(_FUNCTION_ARGUMENTS) or {}
        defaults = [owner.default_args for owner in (dag, task.task_group) if owner is not None]
        self._author_sources = [partial, *(given for given in (*defaults, partial.get("default_args")) if given)]

    def _check_constructor(self, expand_input: Any, context: Context, environments: FieldEnvironments) -> None:
        """Trust only `partial` and `default_args` if the constructor may have built an argument from a computed one.

        The constructor of a subclass may do that: `subject=f"Report of {month}"`, where another task computed `month`.
        """
        assert self._mapped_arguments is not None
        has_computed_defaults = not self._mapped_arguments.get("default_args", True)
        constructor_package = type(self._task).__init__.__module__.partition(".")[0]
        if context.get("ti") is not None and (has_computed_defaults or constructor_package != _OWN_PACKAGE):
            values, _ = expand_input.resolve(context)
            computed = (values[name] for name, is_authored in self._mapped_arguments.items() if not is_authored)
            if has_computed_defaults or any(map(environments.is_template, _find_texts(list(computed)))):
                self._mapped_arguments = None

    def is_authored(self, name: str) -> bool:
        """Whether an argument is the author's (written in the DAG file, or left out), not computed by another task."""
        if self._mapped_arguments is not None:
            return self._mapped_arguments.get(name, True)
        from airflow_provider_smtpcm.merge.templates import undefer_templates

        value = undefer_templates(getattr(self._task, name))
        return any(name in given and _is_same(given[name], value) for given in self._author_sources)

    def is_authored_function_argument(self, name: str, value: object) -> bool:
        """Whether the author wrote this value of a decorated function's argument."""
        if self._mapped_function_arguments is not None:
            return self._mapped_function_arguments.get(name, True)
        sources = (self._function_arguments, *self._author_sources)  # default_args apply to them too
        return any(name in given and _is_same(given[name], value) for given in sources)


def _find_mapped_arguments(expand_input: Any, context: Context) -> Mapping[str, bool] | None:
    """Return the arguments that a task is mapped over, each with whether its values are in the DAG file.

    Returns None if another task computed the names of the arguments too.
    """
    expanded_values = expand_input.value
    if isinstance(expanded_values, Mapping):
        return {name: isinstance(values, Mapping | Sequence) for name, values in expanded_values.items()}
    if not isinstance(expanded_values, Sequence):
        return None
    task_instance: Any = context.get("ti")  # None if `render_template_fields` was called outside of a run
    mappings = expanded_values if task_instance is None else [expanded_values[task_instance.map_index or 0]]
    names = [name for mapping in mappings if isinstance(mapping, Mapping) for name in mapping]
    return dict.fromkeys(names, True) if all(isinstance(mapping, Mapping) for mapping in mappings) else None


def _find_texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _find_texts([*value, *value.values()])
    elif isinstance(value, Sequence | AbstractSet) and not isinstance(value, bytes | bytearray):
        for item in value:
            yield from _find_texts(item)


def _is_same(authored: object, value: object) -> bool:
    if isinstance(authored, tuple) and isinstance(value, list):  # `defer_templates` turns tuples into lists
        authored = list(authored)
    return authored is value or (isinstance(authored, str | list | tuple | dict) and authored == value)
