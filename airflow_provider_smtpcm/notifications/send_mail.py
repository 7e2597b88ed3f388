"""The notifier: a mail about what became of a task or a run. Knows Airflow and the words of a mail, and no SMTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from airflow_provider_smtpcm.arguments.values import as_text, check_not_negative, shorten_list
from airflow_provider_smtpcm.errors import MailError, MessageError, Phase
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.notifications.event import Event, event_of
from airflow_provider_smtpcm.notifications.page import page_of
from airflow_provider_smtpcm.notifications.redaction import LONGEST_SUBJECT, masked, masking_fault, one_line
from airflow_provider_smtpcm.notifications.sending import RETRY_FOR, connected, send_within

if TYPE_CHECKING:
    import asyncio

    import jinja2
    from airflow.sdk import Context

    from airflow_provider_smtpcm.mail import Address, Attachment, Mail, Priority
    from airflow_provider_smtpcm.mail.render import Rendering
    from airflow_provider_smtpcm.smtp.delivery import Delivery


# folded: The fields of a notifier, rendered one by one: a broken one is told, and spoils nothing else. Knows no mail.

log = logging.getLogger(__name__)

_SAID = 500


class Rendered:
    """The rendered fields, and what is to be said of those that could not be.

    Args:
        fields: as the DAG's author wrote them, by name.
        render: gives a field, by its name and what stands in it.
    """

    def __init__(self, fields: Mapping[str, Any], render: Callable[[str, Any], Any]) -> None:
        self.values: dict[str, Any] = {}
        #: For the reader of the mail, one line for each fault.
        self.notices: list[str] = []
        for name, value in fields.items():
            try:
                self.values[name] = render(name, value) if value else value
            except Exception as error:  # noqa: BLE001 - a template can fail in every way that Python can
                if isinstance(value, str) and "{" not in value:
                    self.values[name] = value  # it is none: something else failed, and where an alert goes is known
                self._tell(name, error)

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)

    def body(self, name: str, encoding: str, environment: jinja2.Environment, context: Any) -> str | None:
        """A body, from its field or from its file; None where it is empty or broken."""
        value, file = self[name], self[f"{name}_file"]
        try:
            if value and file:
                raise MessageError(
                    f"'{name}' and '{name}_file' are both set.",
                    remedy="Give the body in one way; leave the other empty.",
                )
            if not file:
                return as_text(value) or None
            from airflow_provider_smtpcm.arguments.templates import render_body_file

            return render_body_file(f"{name}_file", file, encoding, environment, context)
        except Exception as error:  # noqa: BLE001 - as above
            self._tell(f"{name}_file" if file else name, error)
            return None

    def give_up(self, what: str, error: MailError) -> None:
        """Say why something was left out of the mail.

        Args:
            what: what was left out.
            error: why.
        """
        notice = f"{what} left out of this mail: {one_line(masked(str(error)), _SAID)}"
        if notice not in self.notices:
            self.notices.append(notice)
            log.warning("SendMailNotifier: %s", notice)

    def missing(self, names: Sequence[str]) -> str:
        """Those of these fields that could not be had, for an error; empty where none is."""
        return ", ".join(f"'{name}'" for name in names if name not in self.values)

    def _tell(self, name: str, error: Exception) -> None:
        said = one_line(masked(str(error)), _SAID)
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        self.notices.append(f"The notifier's '{name}' could not be rendered ({type(error).__name__}{where}: {said}).")
        log.warning(
            "SendMailNotifier: '%s' could not be rendered (%s%s: %s); the default mail is sent without it. Mend the "
            "template in the DAG; `| default('')` keeps it from failing where an attribute may be missing.",
            name,
            type(error).__name__,
            where,
            said,
        )


# folded: here began the module itself


#: What a notification says to robots, unless `headers` says otherwise: Exchange's, and those that know RFC 3834
#: (`Auto-Submitted: auto-generated`, which the package writes into every mail).
DEFAULT_HEADERS: Mapping[str, str] = {"X-Auto-Response-Suppress": "All"}

# What is left out of the mail, try by try, where it cannot be made or is refused for good. The page goes always.
_FILES = ("attachments", "inline_images")
_WORDS = ("subject", "priority", "headers")
_LEFT_OUT: tuple[tuple[str, ...], ...] = (
    (),
    _FILES,
    (*_FILES, *_WORDS),
    (*_FILES, *_WORDS, "from_address", "cc", "bcc", "reply_to"),
)


class SendMailNotifier(BaseNotifier):
    """Mail what became of a task or a run: for `on_failure_callback`, `on_success_callback`, `on_retry_callback`, of
    tasks and of DAGs, and for Deadline Alerts.

    Without `subject`, `text` and `html` the mail is a page that says what failed, when, on which try, where, why, and
    where the log is. Every field is templated, with all that the callback's context has, which is little in a Deadline
    Alert, and with `alert`: what this package found out (`airflow_provider_smtpcm.notifications.event.Event`).

    An alert never changes what became of a task: whatever goes wrong is logged. Where a template is broken, the default
    page is sent and says so; where an attachment is missing or is refused, the page is sent without.

    In the default page, and in `alert`, the exception's text and the reason are masked by Airflow's secrets masker, as
    the task's log is: it knows what connections, variables and `mask_secret` told it in the process that runs the
    callback. What is written like a credential (`user:password@host`, `Bearer ...`, `password=...`) is withheld too.
    What else a template of your own fills in, such as `{{ exception }}`, goes out as it is.

    Args:
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address: the sender; empty: the connection's *From address*.
        to: the recipients.
        cc, bcc, reply_to: as `to`.
        subject: line breaks in what it fills in become blanks; empty: what happened to which task, and why.
        text, html: the body; empty, both of them: the default page. What the template of `html` or `html_file` fills in
            is escaped, unless `| safe` follows.
        text_file, html_file: a template file for the body, instead of `text` or `html`: a path, or a name in
            `template_searchpath`.
        attachments: files, as paths where the callback runs or `Attachment`.
        inline_images: images that the HTML shows by `cid:`, as a mapping of that id to a path.
        priority: `high`, `normal` or `low`.
        headers: further headers; None or "" takes away one of `DEFAULT_HEADERS`.
        encoding: of `text_file` and `html_file`.
        retry_for: seconds for which the mail is tried again where the server cannot be reached or refuses it for now.
            A quarter of a minute after that it is given up in any case, since a task waits for it, or the DAG
            processor, which Airflow kills after 50 seconds.
        context: Airflow's, for `await`.
    """

    template_fields: Sequence[str] = (
        "smtpcm_conn_id",
        "from_address",
        "to",
        "cc",
        "bcc",
        "reply_to",
        "subject",
        "text",
        "html",
        "text_file",
        "html_file",
        "attachments",
        "inline_images",
        "priority",
        "headers",
    )
    template_ext: Sequence[str] = ()

    def __init__(
        self,
        *,
        to: str | Sequence[str | Address],
        smtpcm_conn_id: str = SmtpConnectionManagerHook.default_conn_name,
        from_address: str | Address | None = None,
        cc: str | Sequence[str | Address] | None = None,
        bcc: str | Sequence[str | Address] | None = None,
        reply_to: str | Sequence[str | Address] | None = None,
        subject: str | None = None,
        text: str | None = None,
        html: str | None = None,
        text_file: str | None = None,
        html_file: str | None = None,
        attachments: str | Sequence[str | Attachment] | None = None,
        inline_images: Mapping[str, str | Attachment] | None = None,
        priority: str | Priority = "normal",
        headers: Mapping[str, str | None] | None = None,
        encoding: str = "utf-8-sig",
        retry_for: float = RETRY_FOR,
        context: Context | None = None,
    ) -> None:
        super().__init__(context=context)
        if not to:
            raise ValueError(f"to is {to!r}; name whom the alert goes to.")
        check_not_negative("retry_for", retry_for)
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
        self.encoding = encoding
        self.retry_for = retry_for

    # Airflow's own would render the fields in place: a broken template would raise, and a notifier that several tasks
    # share, or that is called twice, would tell of the first of them for ever.

    def __call__(self, *args: Any) -> None:
        """Mail the alert; Airflow passes the context."""
        self.notify(args[0])

    def __await__(self) -> Generator[Any, None, None]:
        """Mail the alert; the context came with the other arguments."""
        return self.async_notify(self.context).__await__()

    async def async_notify(self, context: Context) -> None:
        """Mail the alert from the triggerer, whose loop goes on meanwhile."""
        import asyncio

        await asyncio.to_thread(self._tell, context, asyncio.get_running_loop())

    def notify(self, context: Context) -> None:
        """Mail the alert, and log whatever keeps it from being sent: a task's state has been decided."""
        self._tell(context, None)

    def _tell(self, context: Context, loop: asyncio.AbstractEventLoop | None) -> None:
        """As `notify`; with the loop of the triggerer, where there is one."""
        try:
            delivery = self._alert(context or {}, loop)
        except MailError as error:
            log.error("The alert was not sent: %s", error)  # noqa: TRY400 - the error says it all
        except Exception:
            log.exception("The alert was not sent, by a fault of the notifier itself.")
        else:
            if delivery.error is not None:
                log.error("The alert did not reach everybody (%s): %s", delivery.outcome, delivery.error)
            if delivery.accepted:
                log.info("The alert %s was accepted for %s.", delivery.message_id, shorten_list(delivery.accepted))

    def _alert(self, context: Context, loop: asyncio.AbstractEventLoop | None) -> Delivery:
        began = time.monotonic()
        event = event_of(context)
        if fault := masking_fault():
            log.warning(
                "Airflow's secrets masker cannot be used (%s): this alert withholds what exceptions and reasons say, "
                "and nothing else. Look for a newer release of airflow-provider-smtpcm, which knows this Airflow.",
                fault,
            )
        rendered, text, html = self._rendered(context, event)
        if nowhere := rendered.missing(("to", "smtpcm_conn_id")):
            raise MessageError(f"{nowhere} could not be rendered: {' '.join(rendered.notices)}", remedy="Mend it.")
        hook = connected(str(rendered["smtpcm_conn_id"]), loop)
        for left_out in _LEFT_OUT:
            own = not (rendered.notices or left_out)
            try:
                page = page_of(event, rendered.notices)
                bodies = (text, html) if own and (text or html) else (page.text, page.html)
                mail, rendering = self._mail(
                    hook, rendered, event, subject=page.subject, bodies=bodies, left_out=left_out
                )
            except MessageError as fault:
                if left_out == _LEFT_OUT[-1]:
                    raise
                rendered.give_up("What cannot be sent was", fault)
                continue
            delivery = send_within(hook, mail, self.retry_for, began=began, rendering=rendering)
            too_much = _of_its_files(delivery)
            if too_much is None or left_out or not (mail.attachments or mail.inline_images):
                return delivery
            rendered.give_up("The files were", too_much)
        raise AssertionError  # the last of them returns or raises

    def _rendered(self, context: Context, event: Event) -> tuple[Rendered, str | None, str | None]:
        """The fields, and the two bodies; a body is None where it is empty or broken."""
        from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, render_field

        known: Any = {**context, "alert": event}
        try:
            environment = self.get_template_env(dag=context.get("dag"))
        except Exception:
            log.exception("The DAG's templates cannot be used (jinja_environment_kwargs?); its macros are missing.")
            environment = self.get_template_env()
        environments, variables = FieldEnvironments(environment), {**environment.globals, **known}
        rendered = Rendered(
            {name: getattr(self, name) for name in self.template_fields},
            lambda name, value: render_field(
                name,
                value,
                environments,
                variables,
                lambda other: self.render_template(other, known, environment, set()),
            ),
        )
        text, html = (rendered.body(name, self.encoding, environment, known) for name in ("text", "html"))
        return rendered, text, html

    def _mail(
        self,
        hook: SmtpConnectionManagerHook,
        rendered: Rendered,
        event: Event,
        *,
        subject: str,
        bodies: tuple[str | None, str | None],
        left_out: tuple[str, ...],
    ) -> tuple[Mail, Rendering]:
        """The mail without what is left out, and its rendering.

        Args:
            subject: unless there is one of one's own.
            bodies: text and HTML.
        """
        from airflow_provider_smtpcm.mail import Mail
        from airflow_provider_smtpcm.mail.headers import stable_message_id

        field = {name: value for name, value in rendered.values.items() if name not in left_out}
        text, html = bodies
        mail = hook.apply_defaults(
            Mail(
                from_address=field.get("from_address"),
                to=field["to"],
                cc=field.get("cc") or (),
                bcc=field.get("bcc") or (),
                reply_to=field.get("reply_to") or (),
                subject=one_line(as_text(field.get("subject")) or "", LONGEST_SUBJECT) or subject,
                text=text,
                html=html,
                attachments=field.get("attachments") or (),
                inline_images=field.get("inline_images") or (),
                priority=field.get("priority") or "normal",
                headers=_headers(field.get("headers")),
            )
        )
        assert mail.from_address is not None
        # Airflow now and then tells twice of one event. Two notifiers of one event write to different people.
        people = sorted(address.address for address in mail.recipients)
        identity = stable_message_id(mail.from_address.domain, "notification", *event.key, *people)
        mail = mail.with_identity(message_id=identity)
        return mail, hook.render(mail)


def _of_its_files(delivery: Delivery) -> MailError | None:
    """Why nobody got the mail, where that may be its files: too large, or of a kind that is not let through."""
    error = delivery.error
    if error is None or error.retryable or delivery.outcome not in ("refused", "not_sent"):
        return None
    return None if error.phase in (Phase.SETTINGS, Phase.CONNECT, Phase.TLS, Phase.AUTH) else error


def _headers(own: Mapping[str, object] | None) -> dict[str, str]:
    """The defaults, and above them one's own; an empty one takes a default away."""
    own = own or {}
    names = {name.lower() for name in own}
    headers = {name: value for name, value in DEFAULT_HEADERS.items() if name.lower() not in names}
    return headers | {name: text for name, value in own.items() if (text := as_text(value))}
