"""The Send Mail operator: one task sends one mail, as SSIS's Send Mail task does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from airflow_provider_smtpcm.arguments import (
    DEFAULT_RETRY_FOR,
    MAIL_FIELDS,
    as_headers,
    as_text,
    check_bool,
    check_choice,
    check_not_negative,
)
from airflow_provider_smtpcm.arguments.validation import check_names, find_mail_faults, is_static, raise_faults
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.operators._rendering import FIELD_RENDERERS, RenderedOperator, seal_message
from airflow_provider_smtpcm.operators._task import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    Attempt,
    Cancelable,
    airflow_error,
    at_most_once,
    retry_budget,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.ledger.journal import PriorDelivery
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.mail.mime_message import AnyMail, MimeMessage
    from airflow_provider_smtpcm.operators._rendering import (
        AddressArgument,
        AddressesArgument,
        AttachmentsArgument,
        BodyArgument,
        HeadersArgument,
        InlineImagesArgument,
        MessageArgument,
        PriorityArgument,
        TextArgument,
    )
    from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
    from airflow_provider_smtpcm.smtp.outcome import Delivery

log = logging.getLogger(__name__)

_RECIPIENT_FIELDS = ("to", "cc", "bcc")
# What a complete message has in its header and body, so that the operator cannot set it, with the defaults.
_FIELDS_OF_A_MESSAGE: Mapping[str, object] = {
    **dict.fromkeys(name for name in MAIL_FIELDS if name not in (*_RECIPIENT_FIELDS, "envelope_from")),
    "message_id": None,
    "priority": "normal",
    "auto_generated": True,
}
_BESIDE_MESSAGE_REMEDY = "Leave them out, or set them in the message. If default_args sets them, set them to None here."


class SendMailOperator(Cancelable, RenderedOperator):
    """Send one mail through an SMTP connection manager, as SSIS's Send Mail task does, and return its delivery.

    All fields are templates. The values that a template fills in and the outputs of other tasks are never rendered as
    templates themselves. Addresses are a list, or one string with `;` or `,` between them; attachments are a list of
    paths, or one string with `|` between them.

    Args:
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address: the sender; empty: the connection's *From address*.
        to: the recipients; at least one in `to`, `cc` and `bcc`.
        cc: the recipients of a copy.
        bcc: the recipients of a copy that the others do not see.
        reply_to: the addresses for replies; empty: the connection's *Reply-To*.
        subject: one line; empty: the connection's *Subject file*, if it has one.
        text: the plain-text body. If `html` is set too, the recipient's mail client chooses which one it shows. A path
            object (`Path`, `ObjectStoragePath`) is a file that is sent as it is.
        html: the HTML body. Values in it are escaped, unless `| safe` follows. A path object as for `text`. Without any
            body: the connection's *HTML file*, if it has one.
        text_file: a template file for the plain-text body, instead of `text`: a path, a URL such as `s3://...`, or a
            name in `template_searchpath`.
        html_file: a template file for the HTML body, instead of `html`.
        attachments: files, as paths on the worker, `ObjectStoragePath`, `Attachment`, `FilePattern`, or a mapping of
            file names to files or contents. In text in the DAG file, a URL is a path in object storage, and `*` and `?`
            are wildcards (`FilePattern`), which must match a file. In a value that a template fills in, neither is.
        inline_images: images that the HTML body refers to by `cid:`, as a mapping of that id to a path.
        priority: `high`, `normal` or `low`.
        headers: further header fields. Some take addresses, message ids or URIs instead of free text; see `Mail`.
        message_id: `<left@right>`; None: one that is the same in every attempt.
        envelope_from: the address in MAIL FROM, to which servers return what they cannot deliver; `<>`: a null return
            path, so they return nothing; empty: the connection's *Envelope sender*, else the From address.
        auto_generated: whether the header says that a program wrote the mail, so that no automatic replies come.
            False for recipients that hold back such mail, as some ticket systems do.
        message: a complete message instead of all other fields of a mail, such as a signed one: the path of an .eml
            file, a message of Python's `email`, its octets, or a `MimeMessage`. Its octets are sent as they are. `to`,
            `cc` and `bcc` are then who receives it; if all are empty, the addresses in its header.
        encoding: the encoding of `text_file` and `html_file`, unless a file has a byte order mark, or the HTML file
            declares its own in `<meta charset>`.
        on_refused: whether the task fails (`fail`) or logs a warning (`warn`) if some recipients were refused and
            others accepted. From Airflow 3.3 on, a retry goes only to recipients who were temporarily refused.
        on_unknown: what happens if no reply came after the whole message was sent: `fail` without a retry, or `retry`
            with the same Message-ID, by which servers can recognize the copy.
        on_clear: what happens if the task is cleared after it failed for good: the mail goes to the recipients who do
            not have it (`resume_unfinished`) or to all (`send_again`). After a success it always goes to all.
        retry_for: seconds for which the mail is retried within this attempt if it was temporarily refused or not sent,
            or the server could not be reached; 0: no retry.

    Returns:
        The delivery as a dict (`Delivery.to_dict`), which is the task's XCom.

    Raises:
        ValueError: an argument without a template is wrong: all faults at once, when the DAG is parsed.
        AirflowException: a retry may help and delivers nothing twice.
        AirflowFailException: a retry would not help, or could deliver the mail twice.
    """

    template_fields: Sequence[str] = ("smtpcm_conn_id", *MAIL_FIELDS, "message_id", "message")
    # Empty: Airflow would read any value with one of these extensions, even a subject, as a template file.
    template_ext: Sequence[str] = ()
    template_fields_renderers = FIELD_RENDERERS
    ui_color = "#e8f0fb"
    # Whether the fields of the mail are those that the constructor got.
    _has_all_fields = True

    def __init__(
        self,
        *,
        smtpcm_conn_id: TextArgument = SmtpConnectionManagerHook.default_conn_name,
        from_address: AddressArgument | None = None,
        to: AddressesArgument | None = None,
        cc: AddressesArgument | None = None,
        bcc: AddressesArgument | None = None,
        reply_to: AddressesArgument | None = None,
        subject: TextArgument = "",
        text: BodyArgument | None = None,
        html: BodyArgument | None = None,
        text_file: BodyArgument | None = None,
        html_file: BodyArgument | None = None,
        attachments: AttachmentsArgument | None = None,
        inline_images: InlineImagesArgument | None = None,
        priority: PriorityArgument = "normal",
        headers: HeadersArgument | None = None,
        message_id: TextArgument | None = None,
        envelope_from: AddressArgument | None = None,
        auto_generated: bool = True,
        message: MessageArgument | None = None,
        encoding: str = "utf-8-sig",
        on_refused: Literal["fail", "warn"] = "fail",
        on_unknown: Literal["fail", "retry"] = "fail",
        on_clear: Literal["resume_unfinished", "send_again"] = "resume_unfinished",
        retry_for: float = DEFAULT_RETRY_FOR,
        **kwargs: Any,
    ) -> None:
        check_names(self.operator_name, kwargs)
        super().__init__(**kwargs)
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
        self.message_id = message_id
        self.envelope_from = envelope_from
        self.auto_generated = auto_generated
        self.message = seal_message(message)
        self._is_message_given = message is not None
        self.encoding = encoding
        self.on_refused = on_refused
        self.on_unknown = on_unknown
        self.on_clear = on_clear
        self.retry_for = retry_for
        faults: list[str] = []
        if self._has_arguments_of_dag_file():
            fields = {name: getattr(self, name) for name in (*MAIL_FIELDS, "message_id")}
            faults = find_mail_faults(fields, is_complete=self._has_all_fields and message is None)
            if message is not None and self._has_all_fields and (beside := self._find_fields_beside_message(is_static)):
                faults.append(f"{beside}: set beside 'message', which is sent as it is. {_BESIDE_MESSAGE_REMEDY}")
        raise_faults(
            f"{self.operator_name} '{self.task_id}'",
            (
                partial(check_choice, "on_refused", on_refused, ("fail", "warn")),
                partial(check_choice, "on_unknown", on_unknown, ("fail", "retry")),
                partial(check_choice, "on_clear", on_clear, ("resume_unfinished", "send_again")),
                partial(check_not_negative, "retry_for", retry_for),
                partial(check_bool, "auto_generated", auto_generated),
            ),
            faults,
        )

    def execute(self, context: Context) -> dict[str, object]:
        """Send the mail."""
        log.info("SendMailTaskBegin: the task began to send a mail through '%s'.", self.smtpcm_conn_id)
        with at_most_once(self, context) as attempt:
            delivery = self._execute(context, attempt, self._new_cancellation_token())
        assert delivery is not None
        return delivery.to_dict()

    def preview(self, context: Mapping[str, Any], *, manager: SmtpConnectionManager | None = None) -> AnyMail:
        """Return the mail that the task would send, without sending it. The operator itself stays as it is.

        The templates are rendered as in a run. `Mail.write_eml` writes the mail to a file, for any mail program.

        Args:
            context: the context of a task; a test may pass a dict with only what the templates need.
            manager: the connection, for its From and Reply-To; None: that of `smtpcm_conn_id`.

        Raises:
            MailError: the mail cannot be built, or there is no such connection.
        """
        return self.render_for_preview(context).preview_rendered(context, manager=manager)

    def preview_rendered(self, context: Mapping[str, Any], *, manager: SmtpConnectionManager | None = None) -> AnyMail:
        """Return the mail, for an operator whose fields are rendered.

        Args:
            context, manager: as in `preview`.
        """
        rendered: Any = self
        manager = manager or SmtpConnectionManagerHook(rendered.smtpcm_conn_id).connection_manager
        return self._make_mail(cast("Context", context), manager, Attempt.of_preview(context), None)

    def _execute(self, context: Context, attempt: Attempt, cancellation: CancellationToken) -> Delivery | None:
        """Send the mail; return its delivery, or None if `attempt.failure` is set."""
        from airflow_provider_smtpcm.smtp.outcome import format_addresses

        rendered: Any = self  # Airflow has rendered the fields
        hook = SmtpConnectionManagerHook(rendered.smtpcm_conn_id)
        try:
            with attempt.open_ledger(on_clear=self.on_clear, single_mail=True) as ledger:
                delivery = self._deliver(context, hook, ledger, attempt, cancellation)
        except MailError as error:
            attempt.failure = airflow_error(error, retry_unknown=self.on_unknown == "retry")
        if attempt.failure is not None:
            return None
        assert delivery is not None
        if delivery.error is not None:
            log.warning("%s", delivery.error)
        accepted = format_addresses(delivery.accepted)
        log.info("SendMailTaskEnd: %s for %s: %s.", delivery.outcome, accepted, delivery.reply)
        if self.outlets:
            from airflow_provider_smtpcm.operators._lineage import annotate_outlet_events

            annotate_outlet_events(
                context,
                self.outlets,
                {
                    "message_id": delivery.message_id,
                    "outcome": str(delivery.outcome),
                    "accepted": len(delivery.accepted),
                    "refused": len(delivery.refused),
                },
            )
        return delivery

    def _deliver(
        self,
        context: Context,
        hook: SmtpConnectionManagerHook,
        ledger: Ledger | None,
        attempt: Attempt,
        cancellation: CancellationToken,
    ) -> Delivery | None:
        """Return the delivery of this attempt or an earlier one, or None if `attempt.failure` is set."""
        from airflow_provider_smtpcm.ledger.journal import PriorDelivery
        from airflow_provider_smtpcm.smtp.outcome import Delivery

        if ledger is not None and ledger.finished_result is not None:
            return Delivery.from_dict(ledger.finished_result)
        prior = PriorDelivery(ledger)
        try:
            delivery = prior.find_accepted()
            if delivery is None:
                mail = self._make_mail(context, hook.connection_manager, attempt, ledger)
                delivery = prior.find_settled(mail, retry_unknown=self.on_unknown == "retry") or self._send(
                    mail, hook, prior, attempt, cancellation
                )
                attempt.failure = self._make_failure(
                    mail, delivery, is_durable=ledger is not None, cancellation=cancellation
                )
        except AirflowSkipException as skip:
            error = prior.find_skip_error(str(skip))
            if error is None:
                raise
            attempt.failure = airflow_error(error)
            return None
        except MailError as error:
            attempt.failure = airflow_error(prior.annotate_error(error), retry_unknown=self.on_unknown == "retry")
            return None
        if ledger is not None:
            attempt.result, attempt.summary = delivery.to_dict(), delivery.without_addresses()
        return delivery

    def _send(
        self,
        mail: AnyMail,
        hook: SmtpConnectionManagerHook,
        prior: PriorDelivery,
        attempt: Attempt,
        cancellation: CancellationToken,
    ) -> Delivery:
        """Send the mail to the recipients who do not have it yet."""
        from airflow_provider_smtpcm.smtp.cancellation import InterruptedDeliveryError, get_single_delivery
        from airflow_provider_smtpcm.smtp.outcome import format_addresses

        log.info(
            "SendMailTaskInfo: %s from %s to %s, subject %r, %d %s.",
            mail.message_id,
            mail.from_address,
            format_addresses([address.address for address in mail.recipients]),
            mail.subject,
            len(mail.attachments),
            "attachment" if len(mail.attachments) == 1 else "attachments",
        )
        request = prior.pending_request(mail)
        assert request is not None  # else `find_settled` returned a delivery
        request.render()
        request.is_last = True
        try:
            delivery = get_single_delivery(
                hook.send_requests(
                    iter((request,)),
                    retry_for=retry_budget(self.retry_for, self.execution_timeout),
                    journal=prior.journal,
                    cancellation=cancellation,
                ),
                attempt.deliveries,
            )
        except InterruptedDeliveryError as error:
            if error.delivery.error is not None:
                return replace(error.delivery, error=error)
            log.warning("%s", error)
            delivery = error.delivery
        finally:
            prior.close()
        if delivery is None:  # canceled before it was started
            return prior.not_begun(mail, cancellation.error())
        prior.store(delivery)
        if mail.attachments or mail.inline_images or self.message:
            from airflow_provider_smtpcm.operators._lineage import Lineage

            Lineage(hook).add_mail(mail, delivery)
        return delivery

    def _make_failure(
        self, mail: AnyMail, delivery: Delivery, *, is_durable: bool, cancellation: CancellationToken
    ) -> AirflowException | None:
        """Return the exception with which the task fails; None if it succeeds, or `on_refused` tolerates the refusals.

        Args:
            mail: the mail that was sent.
            delivery: its delivery.
            is_durable: whether there is a ledger, so that a retry goes only to the recipients who lack the mail.
            cancellation: the task's cancellation token.
        """
        from airflow_provider_smtpcm.smtp.cancellation import InterruptedDeliveryError

        error = delivery.error
        if error is None:
            return None
        if not delivery.accepted or (is_durable and delivery.outcome == "unknown"):
            return airflow_error(error, retry_unknown=self.on_unknown == "retry")
        were_all_asked = not delivery.never_asked(address.address for address in mail.recipients)
        was_interrupted = isinstance(error, InterruptedDeliveryError) or (
            is_durable and cancellation.is_canceled and error.retryable
        )
        if self.on_refused == "warn" and delivery.outcome == "partial" and were_all_asked and not was_interrupted:
            return None
        return airflow_error(error) if is_durable else AirflowFailException(str(error))

    def _make_mail(
        self, context: Context, manager: SmtpConnectionManager, attempt: Attempt, ledger: Ledger | None
    ) -> AnyMail:
        """Return the mail with the rendered fields, and a Message-ID that is the same in every attempt."""
        from airflow_provider_smtpcm.mail import Mail
        from airflow_provider_smtpcm.mail.headers import stable_message_id
        from airflow_provider_smtpcm.smtp.queue import complete_mail

        def make_message_id(domain: str) -> str:
            return stable_message_id(domain, *attempt.message_identity(ledger))

        rendered: Any = self  # Airflow has resolved the outputs of other tasks
        if rendered.message:
            return complete_mail(self._make_message(), manager, make_message_id=make_message_id)
        if self._is_message_given:  # else a mail without a subject and a body would be sent in its place
            raise MessageError(
                "'message' is empty: its template or task gave nothing.",
                remedy="To send no mail, raise AirflowSkipException in the task that gives it.",
            )
        subject, text, html = as_text(rendered.subject), self._body(context, "text"), self._body(context, "html")
        if not subject and manager.subject_file:
            subject = self._render_file(context, "subject_file", manager.subject_file)
            subject = " ".join(line.strip() for line in subject.splitlines())
        if not (text or html or rendered.text_file or rendered.html_file) and manager.html_file:
            html = self._render_file(context, "html_file", manager.html_file)
        mail = Mail(
            from_address=rendered.from_address,
            to=rendered.to,
            cc=rendered.cc,
            bcc=rendered.bcc,
            reply_to=rendered.reply_to,
            subject=subject or "",
            text=text,
            html=html,
            attachments=rendered.attachments or (),
            inline_images=rendered.inline_images or (),
            priority=rendered.priority or "normal",
            headers=as_headers(rendered.headers),
            message_id=as_text(rendered.message_id) or None,
            envelope_from=rendered.envelope_from,
            auto_generated=self.auto_generated,
        )
        return complete_mail(mail, manager, make_message_id=make_message_id)

    def _make_message(self) -> MimeMessage:
        """Return the complete message, with the envelope that the other fields give it.

        Raises:
            MessageError: a field is set that the message has in its header or its body.
        """
        from airflow_provider_smtpcm.mail.address_list import parse_addresses
        from airflow_provider_smtpcm.mail.mime_message import MimeMessage
        from airflow_provider_smtpcm.mail.tainted import check_path

        rendered: Any = self
        message = check_path(rendered.message, "message")
        if not isinstance(message, MimeMessage):
            message = MimeMessage(message)
        if beside := self._find_fields_beside_message():
            raise MessageError(
                f"{beside}: set beside 'message', which is sent as it is.", remedy=_BESIDE_MESSAGE_REMEDY
            )
        recipients = [
            address
            for name in _RECIPIENT_FIELDS
            for address in parse_addresses(getattr(self, name), field=name.capitalize())
        ]
        return message.with_envelope(recipients=recipients or None, envelope_from=rendered.envelope_from)

    def _find_fields_beside_message(self, is_known: Callable[[object], bool] = lambda _: True) -> str:
        """Return the quoted names of the fields that are set and that a complete message has itself; empty: none.

        Args:
            is_known: whether to look at a value; another may be empty when it is rendered.
        """
        values = {name: getattr(self, name) for name in _FIELDS_OF_A_MESSAGE}
        given = [
            name
            for name, default in _FIELDS_OF_A_MESSAGE.items()
            if is_known(values[name]) and (values[name] if default is None else values[name] not in (None, default))
        ]
        return " and ".join(map(repr, given))

    def _body(self, context: Context, name: str) -> str | None:
        """Return the body in the field `name`, or in the file that the field `{name}_file` names; None: no body."""
        value, file = getattr(self, name), getattr(self, f"{name}_file")
        if not file:
            if value is None or isinstance(value, str):
                return as_text(value)
            from airflow_provider_smtpcm.arguments.body_files import read_body

            return as_text(read_body(name, value, self.encoding))
        if value:
            raise MessageError(f"'{name}' and '{name}_file' are both set.", remedy="Set only one of them.")
        return self._render_file(context, f"{name}_file", file)

    def _render_file(self, context: Context, field: str, file: str) -> str:
        """Render a template file.

        Args:
            context: variables for the template.
            field: the argument, or the setting of the connection, that names the file.
            file: a path, or a name in `template_searchpath`.
        """
        from airflow_provider_smtpcm.arguments.body_files import render_body_file

        return render_body_file(field, file, self.encoding, self.get_template_env(), context)
