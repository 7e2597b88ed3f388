"""`@task.send_mail`: a function returns the mail, and the task sends it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

try:
    from airflow.sdk.bases.decorator import determine_kwargs
except ImportError:  # Airflow 3.1 has it elsewhere
    from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.operators._task import Attempt

#: The fields that a function may return. They are those of a mail, without the names of template files, which are for
#: the author of the DAG to choose.
RETURNED_FIELDS = (
    "from_address",
    "to",
    "cc",
    "bcc",
    "reply_to",
    "subject",
    "text",
    "html",
    "attachments",
    "inline_images",
    "priority",
    "headers",
    "message_id",
)
# Rendering may turn text into a number, which is turned back; what a function returns is taken as it is.
_TEXTS = ("subject", "text", "html")
_REMEDY = "Return the text as a str, a dict of the mail's fields such as {'html': ...}, or a Mail."


class _SendMailDecoratedOperator(DecoratedOperator, SendMailOperator):
    """`SendMailOperator`, with what a function returned in its fields.

    Airflow renders the fields of the decorator and the arguments of the function before the function is called. What
    the function returned is data, and never rendered. An attempt that finds the mail accepted does not call the
    function.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *SendMailOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012
        **DecoratedOperator.template_fields_renderers,
        **SendMailOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.send_mail"
    # *Rendered templates* shows the mail as it was sent.
    overwrite_rtif_after_execution = True

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        if inspect.iscoroutinefunction(inspect.unwrap(python_callable)):
            raise TypeError(f"{_name_of(python_callable)} is asynchronous; @task.send_mail takes a plain function.")
        super().__init__(python_callable=python_callable, **kwargs)

    def _make_mail(
        self, context: Context, hook: SmtpConnectionManagerHook, attempt: Attempt, ledger: Ledger | None
    ) -> Mail:
        given = {**context, **self.op_kwargs}
        arguments = determine_kwargs(self.python_callable, self.op_args, given)
        returned = self.python_callable(*self.op_args, **arguments)
        self._fill_in(self._fields_of(returned))
        return super()._make_mail(context, hook, attempt, ledger)

    def _fields_of(self, returned: object) -> Mapping[str, Any]:
        """Return the fields in what the function returned.

        Raises:
            MessageError: it is neither text, nor a dict of a mail's fields, nor a `Mail`.
        """
        from airflow_provider_smtpcm.mail import Mail

        if isinstance(returned, str):
            return {"text": returned}
        if isinstance(returned, Mail):
            return {name: getattr(returned, name) for name in RETURNED_FIELDS}
        if not isinstance(returned, Mapping):
            raise MessageError(f"{self._function} returned {_describe(returned)}.", remedy=_remedy_for(returned))
        unknown = [repr(name) for name in returned if name not in RETURNED_FIELDS]
        if unknown:
            raise MessageError(
                f"{self._function} returned a dict with {', '.join(unknown)}.",
                remedy=f"The fields of a mail are {', '.join(RETURNED_FIELDS)}; anything else goes in "
                "@task.send_mail(...).",
            )
        for name in _TEXTS:
            value = returned.get(name)
            if not isinstance(value, str | None):
                raise MessageError(
                    f"{self._function} returned a dict whose {name!r} is {_describe(value)}.",
                    remedy="Make it a str first.",
                )
        return returned

    def _fill_in(self, fields: Mapping[str, Any]) -> None:
        """Set the fields that the decorator has left empty.

        Raises:
            MessageError: a field is given in both places.
        """
        given = {name: value for name, value in fields.items() if _has_value(name, value)}
        twice = [name for name in given if _has_value(name, getattr(self, name))]
        if twice:
            raise MessageError(
                f"{' and '.join(map(repr, twice))}: given by @task.send_mail (or default_args), and by what "
                f"{self._function} returned.",
                remedy="Give it in one of the two places.",
            )
        for name, value in given.items():
            setattr(self, name, value)

    @property
    def _function(self) -> str:
        return _name_of(self.python_callable)


def _name_of(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def _has_value(name: str, value: object) -> bool:
    """Whether a field was filled in; not by truthiness: DataFrame raises."""
    if value is None or (isinstance(value, Sized) and not len(value)):
        return False
    return name != "priority" or value != "normal"


def _describe(returned: object) -> str:
    return "None" if returned is None else f"an object of type {type(returned).__name__}"


def _remedy_for(returned: object) -> str:
    if returned is None:
        return f"{_REMEDY} To send no mail, raise AirflowSkipException."
    if isinstance(returned, Iterable) and not isinstance(returned, bytes | bytearray):
        return f"{_REMEDY} For many mails, map the task with .expand(), or use one MailMergeOperator."
    return _REMEDY


def send_mail_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a function a task that sends a mail: `@task.send_mail(to=..., subject=...)`.

    The function returns the text (a `str`, whatever is in it), a dict of the mail's fields (`{"html": ...}`), or a
    whole `Mail`. A field is given by the decorator or by the function, not by both.

    Args:
        python_callable: the function.
        multiple_outputs: whether each part of the delivery (`message_id`, `outcome`, ...) is an XCom of its own too.
            The function's return annotation has no influence on it, since the task returns something else.
        kwargs: the arguments of `SendMailOperator`, templated as usual.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=bool(multiple_outputs),
        decorated_operator_class=_SendMailDecoratedOperator,
        **kwargs,
    )
