"""The task decorator `@task.send_mail`: a function returns a mail, and the task sends it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_provider_smtpcm.arguments import MAIL_FIELDS
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.operators.send_mail import SendMailOperator

try:
    from airflow.sdk.bases.decorator import determine_kwargs
except ImportError:  # Airflow 3.1
    from airflow.utils.operator_helpers import determine_kwargs  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.mail.mime_message import AnyMail
    from airflow_provider_smtpcm.operators._task import Attempt

#: The fields that a function may return: those of a mail, without `text_file` and `html_file`, since only the author of
#: the DAG may choose template files.
RETURNED_FIELDS = (
    *(name for name in MAIL_FIELDS if name not in ("text_file", "html_file")),
    "message_id",
    "auto_generated",
    "message",
)
# A field that has one of these values counts as not set.
_DEFAULTS = {"priority": "normal", "auto_generated": True}
# These have to be text. Numbers from a template are converted (`as_text`); numbers that are returned are an error.
_TEXT_FIELDS = ("subject", "text", "html")
_REMEDY = "Return the text as a str, a dict of the mail's fields such as {'html': ...}, a Mail, or an EmailMessage."


class _SendMailDecoratedOperator(DecoratedOperator, SendMailOperator):
    """A `SendMailOperator` whose remaining fields are filled in by a function.

    Airflow renders the fields of the decorator and the arguments of the function before the function is called. What
    the function returns is data, and never rendered. If an earlier attempt delivered the mail to every recipient, the
    function is not called.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *SendMailOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012
        **DecoratedOperator.template_fields_renderers,
        **SendMailOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.send_mail"
    # The page *Rendered templates* shows the mail as it was sent.
    overwrite_rtif_after_execution = True
    _has_all_fields = False

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        if inspect.iscoroutinefunction(inspect.unwrap(python_callable)):
            raise TypeError(f"{_format_name(python_callable)} is asynchronous; @task.send_mail takes a plain function.")
        super().__init__(python_callable=python_callable, **kwargs)

    def _make_mail(
        self, context: Context, manager: SmtpConnectionManager, attempt: Attempt, ledger: Ledger | None
    ) -> AnyMail:
        given = {**context, **self.op_kwargs}
        arguments = determine_kwargs(self.python_callable, self.op_args, given)
        returned = self.python_callable(*self.op_args, **arguments)
        self._fill_in(self._extract_fields(returned))
        return super()._make_mail(context, manager, attempt, ledger)

    def _extract_fields(self, returned: object) -> Mapping[str, Any]:
        """Return the fields of the mail that the function returned.

        Raises:
            MessageError: it returned neither text, nor a dict of a mail's fields, nor a `Mail`, nor a complete message.
        """
        from airflow_provider_smtpcm.mail import Mail

        if isinstance(returned, str):
            return {"text": returned}
        if isinstance(returned, Mail):
            return {name: getattr(returned, name) for name in RETURNED_FIELDS if name != "message"}
        if not isinstance(returned, Mapping):
            from airflow_provider_smtpcm.mail.mime_message import MessageInMemory, MimeMessage

            if isinstance(returned, MessageInMemory | MimeMessage):
                return {"message": returned}
            raise MessageError(f"{self._function_name} returned {_describe(returned)}.", remedy=_remedy_for(returned))
        unknown = [repr(name) for name in returned if name not in RETURNED_FIELDS]
        if unknown:
            raise MessageError(
                f"{self._function_name} returned a dict with fields that it cannot set: {', '.join(unknown)}.",
                remedy=f"The fields of a mail are {', '.join(RETURNED_FIELDS)}; anything else goes in "
                "@task.send_mail(...).",
            )
        for name in _TEXT_FIELDS:
            value = returned.get(name)
            if not isinstance(value, str | None):
                raise MessageError(
                    f"{self._function_name} returned a dict whose {name!r} is {_describe(value)}.",
                    remedy="Convert it to a str.",
                )
        return returned

    def _fill_in(self, fields: Mapping[str, Any]) -> None:
        """Set the fields that were not set by the decorator.

        Raises:
            MessageError: a field is set in both places.
        """
        if "message" in fields:  # even if it is empty, which is then an error
            self._is_message_given = True
        given = {name: value for name, value in fields.items() if _has_value(name, value)}
        duplicates = [name for name in given if _has_value(name, getattr(self, name))]
        if duplicates:
            raise MessageError(
                f"{' and '.join(map(repr, duplicates))}: set by @task.send_mail (or default_args), and returned by "
                f"{self._function_name}.",
                remedy="Set each field in one place only.",
            )
        for name, value in given.items():
            setattr(self, name, value)

    @property
    def _function_name(self) -> str:
        return _format_name(self.python_callable)


def _format_name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', type(function).__name__)}()"


def _has_value(name: str, value: object) -> bool:
    """Whether a field is set, to another value than its default.

    Not decided by truthiness: a DataFrame raises.
    """
    if value is None or (isinstance(value, Sized) and not len(value)):
        return False
    return name not in _DEFAULTS or value != _DEFAULTS[name]


def _describe(returned: object) -> str:
    return "None" if returned is None else f"an object of type {type(returned).__name__}"


def _remedy_for(returned: object) -> str:
    if returned is None:
        return f"{_REMEDY} To send no mail, raise AirflowSkipException."
    if isinstance(returned, Iterable) and not isinstance(returned, bytes | bytearray):
        return f"{_REMEDY} To send several mails, map the task with .expand(), or use a MailMergeOperator."
    return _REMEDY


def send_mail_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Turn a function into a task that sends a mail: `@task.send_mail(to=..., subject=...)`.

    The function returns the text body (a `str`), a dict of the mail's fields (`{"html": ...}`), a `Mail`, or a complete
    message (an `EmailMessage`, its octets, or a `MimeMessage`). A field is set by the decorator or by the function, not
    by both.

    Args:
        python_callable: the function, which cannot be asynchronous; None: the decorator is called with arguments only.
        multiple_outputs: whether each part of the delivery (`message_id`, `outcome`, ...) also becomes a separate
            XCom; None means no. The function's return annotation is ignored, since the task returns the delivery.
        kwargs: the arguments of `SendMailOperator`.

    Raises:
        TypeError: the function is asynchronous.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=bool(multiple_outputs),
        decorated_operator_class=_SendMailDecoratedOperator,
        **kwargs,
    )
