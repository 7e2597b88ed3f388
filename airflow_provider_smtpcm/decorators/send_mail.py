"""`@task.send_mail`: a function says what is in the mail, and the task sends it. Knows Airflow, and no SMTP."""

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

#: The fields that a function may return: those of a mail. A template file is named by the author of the DAG.
RETURNED = (
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
# A number may stand for text in a field that was rendered; what a function returns was meant as it is.
_TEXTS = ("subject", "text", "html")
_REMEDY = "Return the text as a str, a dict of the mail's fields such as {'html': ...}, or a Mail."


class _SendMailDecoratedOperator(DecoratedOperator, SendMailOperator):
    """`SendMailOperator`, with what the function returned in its fields.

    Airflow renders the fields of the decorator and the arguments of the function before the function is called; what
    the function returned is data, and never rendered. A try that finds the mail accepted does not call it.
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
            raise TypeError(f"{_named(python_callable)} is asynchronous; @task.send_mail takes a plain function.")
        super().__init__(python_callable=python_callable, **kwargs)

    def _mail(self, context: Context, hook: SmtpConnectionManagerHook, ledger: Ledger | None) -> Mail:
        given = {**context, **self.op_kwargs}
        arguments = determine_kwargs(self.python_callable, self.op_args, given)
        returned = self.python_callable(*self.op_args, **arguments)
        self._fill_in(self._fields_of(returned))
        return super()._mail(context, hook, ledger)

    def _fields_of(self, returned: object) -> Mapping[str, Any]:
        """What the function returned, as fields."""
        from airflow_provider_smtpcm.mail import Mail

        if isinstance(returned, str):
            return {"text": returned}
        if isinstance(returned, Mail):
            return {name: getattr(returned, name) for name in RETURNED}
        if not isinstance(returned, Mapping):
            raise MessageError(f"{self._function} returned {_kind(returned)}.", remedy=_remedy(returned))
        unknown = [repr(name) for name in returned if name not in RETURNED]
        if unknown:
            raise MessageError(
                f"{self._function} returned a dict with {', '.join(unknown)}.",
                remedy=f"The fields of a mail are {', '.join(RETURNED)}; all else is said in @task.send_mail(...).",
            )
        for name in _TEXTS:
            value = returned.get(name)
            if not isinstance(value, str | None):
                raise MessageError(
                    f"{self._function} returned a dict whose {name!r} is {_kind(value)}.", remedy="Make it a str first."
                )
        return returned

    def _fill_in(self, fields: Mapping[str, Any]) -> None:
        """Put them in the places that the decorator has left empty."""
        said = {name: value for name, value in fields.items() if _says(name, value)}
        twice = [name for name in said if _says(name, getattr(self, name))]
        if twice:
            raise MessageError(
                f"{' and '.join(map(repr, twice))}: said by @task.send_mail (or default_args), and by what "
                f"{self._function} returned.",
                remedy="Say it in one of the two places.",
            )
        for name, value in said.items():
            setattr(self, name, value)

    @property
    def _function(self) -> str:
        return _named(self.python_callable)


def _named(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def _says(name: str, value: object) -> bool:
    """Whether a field was filled in; not by its truth, which a data frame has none of."""
    if value is None or (isinstance(value, Sized) and not len(value)):
        return False
    return name != "priority" or value != "normal"


def _kind(returned: object) -> str:
    return "None" if returned is None else f"an object of type {type(returned).__name__}"


def _remedy(returned: object) -> str:
    if returned is None:
        return f"{_REMEDY} To send no mail, raise AirflowSkipException."
    if isinstance(returned, Iterable) and not isinstance(returned, bytes | bytearray):
        return f"{_REMEDY} Many mails are many tasks, by .expand(), or one MailMergeOperator."
    return _REMEDY


def send_mail_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a function a task that sends a mail: `@task.send_mail(to=..., subject=...)`.

    The function returns the text (a `str`, whatever is in it), a dict of the mail's fields (`{"html": ...}`), or a
    whole `Mail`. A field is said by the decorator or by the function, not by both.

    Args:
        python_callable: the function.
        multiple_outputs: whether each part of the delivery (`message_id`, `outcome`, ...) is an XCom of its own too.
            What the function is annotated to return has no say in it, since the task returns something else.
        kwargs: the arguments of `SendMailOperator`, templated as ever.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=bool(multiple_outputs),
        decorated_operator_class=_SendMailDecoratedOperator,
        **kwargs,
    )
