"""`SendMailNotifier`: alerts by mail about a task or a run, from any Airflow callback."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import DAG, BaseNotifier

from airflow_provider_smtpcm.arguments import MAIL_FIELDS, as_text, check_bool, check_int_in_range, check_not_negative
from airflow_provider_smtpcm.arguments.validation import find_mail_faults, raise_faults, with_checked_names
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.hooks.object_storage import to_storage_path
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.notifications.airflow_config import find_default_timezone
from airflow_provider_smtpcm.notifications.alert_delivery import (
    ALERT_RETRY_FOR,
    get_hook,
    is_refused_for_good,
    resolve_addresses,
    send_alert,
)
from airflow_provider_smtpcm.notifications.event import DEFAULT_LOG_LINES, Event, read_event
from airflow_provider_smtpcm.notifications.html_page import render_page
from airflow_provider_smtpcm.notifications.redaction import (
    MAX_SUBJECT_LENGTH,
    find_masker_error,
    quote_error,
    redact_text,
    to_single_line,
)
from airflow_provider_smtpcm.notifications.rendered_fields import RenderedFields

if TYPE_CHECKING:
    import asyncio

    import jinja2
    from airflow.sdk import Context

    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.mail import (
        AddressesLike,
        AddressLike,
        AttachmentsLike,
        HeaderValues,
        InlineImagesLike,
        Mail,
        Priority,
    )
    from airflow_provider_smtpcm.smtp.outcome import Delivery
    from airflow_provider_smtpcm.smtp.queue import SendRequest

log = logging.getLogger(__name__)

_MAX_LOG_LINES = 100  # Gmail cuts a mail of more than 102 kB
_FILE_FIELDS = ("attachments", "inline_images")
_TEXT_FIELDS = ("subject", "priority", "headers", "auto_generated")
# The fields to leave out, attempt by attempt. The next attempt is made if the mail cannot be built, or if the server
# permanently refuses a mail with files. The default page needs none of these fields.
_OMISSIONS: tuple[tuple[str, ...], ...] = (
    (),
    _FILE_FIELDS,
    (*_FILE_FIELDS, *_TEXT_FIELDS),
)


class SendMailNotifier(BaseNotifier):
    """Send an alert by mail about a task or a run.

    For `on_failure_callback`, `on_success_callback` and `on_retry_callback`, of tasks and of DAGs, and for Deadline
    Alerts. Without `subject`, `text` and `html`, the mail is a default page that says what failed and why, with a link
    to the log, when, on which try and where, the author's part of the traceback, and the last lines of the log.

    An alert never changes the state of a task: every error is logged, and none is raised. If a template is broken, the
    default page is sent and says so. If an attachment is missing or refused, the default page is sent too, without any
    attachment.

    In the default page, and in `alert`, Airflow's secrets masker redacts the exception's text and the reason, as it
    redacts the task's log. It knows the secrets of connections, of variables and of `mask_secret`, as far as the
    process that runs the callback has read them. Credentials of a known form (`user:password@host`, `Bearer ...`,
    `password=...`) are redacted too, in the lines of the log as well. Anything else that a template of your own
    inserts, such as `{{ exception }}`, is sent unchanged.

    Args:
        to: the recipients: a list, or one string separated by `;` or `,`. Templated, as all arguments are except
            `auto_generated`, `encoding`, `retry_for`, `log_lines` and `context`. Templates can use everything in the
            callback's context, which is little in a Deadline Alert, and `alert`
            (`airflow_provider_smtpcm.notifications.event.Event`).
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address: the sender. Default: the connection's *From address*.
        cc: further recipients, as in `to`.
        bcc: hidden recipients, as in `to`.
        reply_to: where replies go, as in `to`. Default: the connection's *Reply-To*.
        subject: the subject. Its line breaks become spaces, and it is cut to 500 characters. Default: the connection's
            *Subject file*, or else what happened to which task, and why.
        text: the plain-text body. Default, if `html` is empty too: the connection's *HTML file*, or else the default
            page.
        html: the HTML body. Values that its template inserts are escaped, unless `| safe` follows.
        text_file: a template file for the plain-text body instead of `text`: a path or a name in `template_searchpath`.
        html_file: a template file for the HTML body instead of `html`.
        attachments: paths on the machine where the callback runs, or `Attachment`s: a list, or a string separated by
            `|`.
        inline_images: images that the HTML shows as `<img src="cid:...">`: a mapping of content id to path.
        priority: `high`, `normal` or `low`.
        headers: further headers. One whose value is None or "" is left out.
        envelope_from: as in `SendMailOperator`. `<>`: no server reports an alert that it cannot deliver.
        auto_generated: as in `SendMailOperator`. False for a ticket system that holds back what a program wrote.
        encoding: the encoding of `text_file` and `html_file`, as in `SendMailOperator`. Default: UTF-8.
        only_if: a template that renders to `True` or `False`, or a bool. False: the alert is not sent, which is logged.
            If it cannot be rendered, or renders to anything else, the alert is sent, and a warning is logged: a broken
            condition must not hide a failure.
        retry_for: seconds (default: 20) during which the mail is retried if the server cannot be reached or refuses it
            temporarily. The last attempt may take 15 seconds more. Meanwhile the task waits. For a callback of a DAG,
            the process of the DAG processor that runs it waits, and Airflow kills that process after 50 seconds.
        log_lines: how many of the last lines of the task's log are in the default page and in `alert.log_tail`, if the
            process that runs the callback has the log's file: from 0 to 100 (default: 10).
        context: Airflow's context, for `await`.

    Raises:
        ValueError: `to` is empty, `retry_for` is negative or not a number, or `log_lines` is not an integer from 0 to
            100. In a DAG file also if another argument without a template is wrong, with all faults at once. In a
            function that Airflow calls, the alert is due: what is wrong is left out of it, and logged.
    """

    template_fields: Sequence[str] = ("smtpcm_conn_id", *MAIL_FIELDS, "only_if")
    template_ext: Sequence[str] = ()

    @with_checked_names
    def __init__(
        self,
        *,
        to: AddressesLike,
        smtpcm_conn_id: str = SmtpConnectionManagerHook.default_conn_name,
        from_address: AddressLike | None = None,
        cc: AddressesLike | None = None,
        bcc: AddressesLike | None = None,
        reply_to: AddressesLike | None = None,
        subject: str | None = None,
        text: str | os.PathLike[str] | None = None,
        html: str | os.PathLike[str] | None = None,
        text_file: str | os.PathLike[str] | None = None,
        html_file: str | os.PathLike[str] | None = None,
        attachments: AttachmentsLike | None = None,
        inline_images: InlineImagesLike | None = None,
        priority: str | Priority = "normal",
        headers: HeaderValues | None = None,
        envelope_from: AddressLike | None = None,
        auto_generated: bool = True,
        encoding: str = "utf-8-sig",
        only_if: str | bool = True,
        retry_for: float = ALERT_RETRY_FOR,
        log_lines: int = DEFAULT_LOG_LINES,
        context: Context | None = None,
    ) -> None:
        super().__init__(context=context)
        if not to:
            raise ValueError(f"to is {to!r}; give the recipients of the alert.")
        self.smtpcm_conn_id = smtpcm_conn_id
        self.from_address = from_address
        self.to = to
        self.cc = cc
        self.bcc = bcc
        self.reply_to = reply_to
        self.subject = subject
        self.text = text
        self.html = html
        self.text_file = text_file
        self.html_file = html_file
        self.attachments = attachments
        self.inline_images = inline_images
        self.priority = priority
        self.headers = headers
        self.envelope_from = envelope_from
        self.auto_generated = auto_generated
        self.encoding = encoding
        self.only_if = only_if
        self.retry_for = retry_for
        self.log_lines = log_lines
        checks = [
            partial(check_not_negative, "retry_for", retry_for),
            partial(check_int_in_range, "log_lines", log_lines, 0, _MAX_LOG_LINES),
        ]
        faults: list[str] = []
        if type(self).__module__ == __name__ and _is_module_being_imported():
            fields = {name: getattr(self, name) for name in MAIL_FIELDS}
            faults = find_mail_faults(fields, is_complete=True, is_alert=True)
            checks.append(partial(check_bool, "auto_generated", auto_generated))
        raise_faults(type(self).__name__, checks, faults)

    # BaseNotifier's `__call__` and `__await__` render the fields in place: a broken template would raise, and a
    # notifier that is called again, or shared by several tasks, would report the first event every time.

    def __call__(self, *args: Any) -> None:
        """Send the alert; Airflow passes the context."""
        self.notify(args[0])

    def __await__(self) -> Generator[Any, None, None]:
        """Send the alert about the context that was passed to the constructor."""
        return self.async_notify(self.context).__await__()

    async def async_notify(self, context: Context) -> None:
        """Send the alert from the triggerer, without blocking its event loop."""
        import asyncio

        await asyncio.to_thread(self._notify, context, asyncio.get_running_loop())

    def notify(self, context: Context) -> None:
        """Send the alert. Errors are logged, not raised."""
        self._notify(context, None)

    def _notify(self, context: Context, loop: asyncio.AbstractEventLoop | None) -> None:
        """Send the alert as `notify` does.

        Args:
            loop: the triggerer's event loop, if this runs in another thread of the triggerer; else None.
        """
        try:
            delivery = self._send(context or {}, loop)
        except MailError as error:
            log.error("The alert was not sent: %s", error)  # noqa: TRY400 - the error needs no traceback
        except Exception:
            log.exception("The alert was not sent, because of an error in the notifier itself.")
        else:
            if delivery is None:
                log.info("The alert was not sent: its condition (only_if) is false.")
                return
            if delivery.error is not None:
                log.error("The alert did not reach every recipient (%s): %s", delivery.outcome, delivery.error)
            if delivery.accepted:
                from airflow_provider_smtpcm.smtp.outcome import format_addresses

                log.info("The alert %s was accepted for %s.", delivery.message_id, format_addresses(delivery.accepted))

    def _send(self, context: Context, loop: asyncio.AbstractEventLoop | None) -> Delivery | None:
        """Send the mail. If it cannot be sent, try again with fewer of the author's fields (see `_OMISSIONS`).

        Returns:
            None if `only_if` is false.
        """
        started_at = time.monotonic()
        event = read_event(context, log_lines=self.log_lines)
        if error := find_masker_error():
            log.warning(
                "Airflow's secrets masker cannot be used (%s): this alert withholds the texts of exceptions and "
                "reasons. Look for a newer release of airflow-provider-smtpcm that supports this version of Airflow.",
                error,
            )
        environment, render = self._make_renderer(context, event)
        if not self._is_wanted(render):
            return None
        fields = self._render_fields(render)
        hook = get_hook(fields.conn_id, loop)
        requests = self._build_requests(hook.connection_manager, fields, event, environment, context)
        for request, omitted in requests:
            delivery = send_alert(hook, request, self.retry_for, started_at=started_at)
            has_files = bool(request.mail.attachments or request.mail.inline_images)
            if delivery.error is None or omitted or not has_files or not is_refused_for_good(delivery):
                return delivery
            fields.add_omission("The files were", delivery.error)
        raise AssertionError  # the last attempt returns or raises

    def preview(self, context: Mapping[str, Any], *, manager: SmtpConnectionManager | None = None) -> Mail:
        """Return the mail that `notify` would send, without sending it, whatever `only_if` says.

        Broken templates and missing files are replaced as in an alert: by the default page, which says so.

        Args:
            context: the context of a callback; a test may pass a dict with only what the templates need.
            manager: the connection, for its From and Reply-To; None: that of `smtpcm_conn_id`.

        Raises:
            MailError: there is no such connection, or its settings are invalid; or the sender or the recipients are
                missing or invalid.
        """
        event = read_event(context, log_lines=self.log_lines)
        known = cast("Context", context)
        environment, render = self._make_renderer(known, event)
        fields = self._render_fields(render)
        manager = manager or get_hook(fields.conn_id).connection_manager
        request, _ = next(self._build_requests(manager, fields, event, environment, known))
        return cast("Mail", request.mail)  # not a complete message

    def _make_renderer(self, context: Context, event: Event) -> tuple[jinja2.Environment, Callable[[str, Any], Any]]:
        """Return the environment of the templates, and a function that renders a field, given its name and value."""
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, render_field

        alert_context: Any = {**context, "alert": event}
        try:
            environment = self.get_template_env(dag=_find_authored_dag(context.get("dag")))
        except Exception:
            log.exception(
                "The DAG's Jinja environment cannot be created: the alert is rendered without the DAG's macros and "
                "filters. Check jinja_environment_kwargs of the DAG."
            )
            environment = self.get_template_env()
        environments = FieldEnvironments(environment, to_path=to_storage_path)
        variables = {**environment.globals, **alert_context}
        return environment, lambda name, value: render_field(
            name,
            value,
            environments,
            variables,
            lambda other: self.render_template(other, alert_context, environment, set()),
        )

    def _is_wanted(self, render: Callable[[str, Any], Any]) -> bool:
        """Whether `only_if` holds; it counts as true if its value is unknown."""
        try:
            value = render("only_if", self.only_if)
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            problem = f"could not be rendered ({type(error).__name__}: {quote_error(error)})"
        else:
            text = str(value).strip().lower()
            if text in ("true", "false"):
                return text == "true"
            problem = f"is neither True nor False, but {to_single_line(redact_text(repr(value)), 80)}"
        log.warning("SendMailNotifier: 'only_if' %s, so the alert is sent. Fix the template in the DAG.", problem)
        return True

    def _render_fields(self, render: Callable[[str, Any], Any]) -> RenderedFields:
        """Return the rendered fields.

        Raises:
            MessageError: the connection's id could not be rendered.
        """
        names = [name for name in self.template_fields if name != "only_if"]
        fields = RenderedFields({name: getattr(self, name) for name in names}, render)
        if "smtpcm_conn_id" not in fields.values:
            raise MessageError(
                f"'smtpcm_conn_id' could not be rendered: {' '.join(fields.notices)}", remedy="Fix the template."
            )
        return fields

    def _build_requests(
        self,
        manager: SmtpConnectionManager,
        fields: RenderedFields,
        event: Event,
        environment: jinja2.Environment,
        context: Context,
    ) -> Iterator[tuple[SendRequest, tuple[str, ...]]]:
        """Yield the alert, and then with fewer of the author's fields (see `_OMISSIONS`), for a caller who needs that.

        Yields:
            The request, and the names of the fields that are left out of it.

        Raises:
            MessageError: no mail can be built.
        """
        addresses, notices = resolve_addresses(manager, fields.values)
        for notice in notices:
            fields.add_notice(notice)
        variables: Any = {**context, "alert": event}
        text, html = (fields.render_body(name, self.encoding, environment, variables) for name in ("text", "html"))
        if manager.subject_file and not self.subject:
            fields.values["subject"] = fields.render_file(
                "subject_file", manager.subject_file, self.encoding, environment, variables, of="connection"
            )
        if manager.html_file and not (self.text or self.html or self.text_file or self.html_file):
            html = fields.render_file(
                "html_file", manager.html_file, self.encoding, environment, variables, of="connection"
            )
        for omitted in _OMISSIONS:
            uses_own_bodies = not (fields.is_broken or omitted)
            try:
                page = render_page(event, fields.notices, timezone=find_default_timezone())
                bodies = (text, html) if uses_own_bodies and (text or html) else (page.text, page.html)
                request = self._build_request(
                    addresses, fields, event, default_subject=page.subject, bodies=bodies, omitted=omitted
                )
            except Exception as fault:  # a value of a type that nothing expects may raise anything
                if omitted == _OMISSIONS[-1]:
                    raise
                fields.add_omission("The parts that cannot be sent were", fault)
                continue
            yield request, omitted

    def _build_request(
        self,
        addresses: Mapping[str, Any],
        fields: RenderedFields,
        event: Event,
        *,
        default_subject: str,
        bodies: tuple[str | None, str | None],
        omitted: tuple[str, ...],
    ) -> SendRequest:
        """Build the mail, with Message-ID, and render it.

        Args:
            addresses: the addresses, as arguments of `Mail`.
            bodies: text and HTML.
            omitted: names of the fields that are left out.
        """
        from airflow_provider_smtpcm.mail import Mail
        from airflow_provider_smtpcm.mail.headers import stable_message_id
        from airflow_provider_smtpcm.smtp.queue import SendRequest

        values = {name: value for name, value in fields.values.items() if name not in omitted}
        text, html = bodies
        mail = Mail(
            **addresses,
            subject=to_single_line(as_text(values.get("subject")) or "", MAX_SUBJECT_LENGTH) or default_subject,
            text=text,
            html=html,
            attachments=values.get("attachments") or (),
            inline_images=values.get("inline_images") or (),
            priority=values.get("priority") or "normal",
            headers=_drop_empty_headers(values.get("headers")),
            auto_generated="auto_generated" in omitted or self.auto_generated,
        )
        assert mail.from_address is not None
        # Airflow may report an event twice; Exchange drops a duplicate with the same Message-ID. The Message-ID depends
        # on the recipients and on what the author wrote, so that two notifiers of one event do not suppress each other.
        recipients = sorted(address.address for address in mail.recipients)
        fields_digest = "".join(_digest(getattr(self, name)) for name in MAIL_FIELDS)
        message_id = stable_message_id(mail.from_address.domain, "notification", *event.key, fields_digest, *recipients)
        request = SendRequest(0, mail.with_identity(message_id=message_id))
        request.render()
        return request


def _digest(value: object) -> str:
    """Return a digest of what the author wrote for a field; the name of its type if it has none."""
    from airflow_provider_smtpcm.arguments.digest import digest

    try:
        return digest(value)
    except TypeError:
        return type(value).__qualname__


def _is_module_being_imported() -> bool:
    """Whether this is called while a module such as a DAG file is imported, not in a callback, whose alert is due."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _find_authored_dag(dag: Any) -> Any:
    """Return the DAG with its macros and filters; None if there is none.

    The callbacks of a DAG that `dag.test()` runs get the scheduler's serialized DAG, which has neither: the DAG itself
    is the one whose `test` called them. The DAG processor passes the DAG of the file.
    """
    if dag is None or hasattr(dag, "get_template_env"):
        return dag
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, DAG) and caller.dag_id == dag.dag_id:
            return caller
        frame = frame.f_back
    return None


def _drop_empty_headers(headers: Mapping[str, object] | None) -> dict[str, str]:
    """Return the headers with a value, and those without one whose default is left out (`AUTO_GENERATED_FIELDS`)."""
    from airflow_provider_smtpcm.mail.render import AUTO_GENERATED_FIELDS

    if not isinstance(headers, Mapping | None):
        raise MessageError(
            f"'headers' has to be a mapping, not {type(headers).__name__}.",
            remedy="Pass a dict: {'X-Report': 'daily'}.",
        )
    texts = {name: as_text(value) or "" for name, value in (headers or {}).items()}
    return {name: text for name, text in texts.items() if text or name.lower() in AUTO_GENERATED_FIELDS}
