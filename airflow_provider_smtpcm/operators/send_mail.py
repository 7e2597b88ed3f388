"""The Send Mail task as an Airflow operator. Knows Airflow and the words of a mail, and no SMTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_smtpcm.arguments.values import RETRY_FOR, as_headers, as_text, first_of, one_of, zero_or_more
from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.operators._rendering import RenderedOperator
from airflow_provider_smtpcm.operators._task import (
    AirflowException,
    AirflowFailException,
    Attempt,
    Stoppable,
    Tries,
    airflow_error,
    budget,
    identity_of,
    ledger_of,
    sent_once,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.ledger.journal import PastDelivery
    from airflow_provider_smtpcm.ledger.ledger import Ledger
    from airflow_provider_smtpcm.mail import Address, Attachment, Mail, Priority
    from airflow_provider_smtpcm.smtp.cancellation import Stop
    from airflow_provider_smtpcm.smtp.delivery import Delivery

log = logging.getLogger(__name__)


class SendMailOperator(Stoppable, RenderedOperator):
    """Send one mail through an SMTP connection manager, as SSIS's Send Mail task does, and return its delivery.

    Every field that a person writes is templated; what a template fills in, and what another task computed, is data.
    Addresses are a list, or one string with `;` or `,` between; attachments are a list of paths, or one string with `|`
    between.

    Args:
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address: the sender; empty: the connection's *From address*.
        to: the recipients; at least one among `to`, `cc` and `bcc`.
        cc: who gets a copy.
        bcc: who gets a copy that the others do not see.
        reply_to: where answers go.
        subject: one line.
        text: the plain body. With `html` too, the reader's program chooses.
        html: the HTML body; what its template fills in is escaped, unless `| safe` follows.
        text_file: a template file for the plain body, instead of `text`: a path, or a name in `template_searchpath`.
        html_file: a template file for the HTML body, instead of `html`.
        attachments: files, as paths on the worker or `Attachment`.
        inline_images: images that the HTML shows by `cid:`, as a mapping of that id to a path.
        priority: `high`, `normal` or `low`.
        headers: further headers.
        message_id: `<left@right>`; None: one that every try bears.
        encoding: of `text_file` and `html_file`.
        on_refused: what some refused recipients mean while others were accepted: `fail` the task, or `warn`. From
            Airflow 3.3 on, another try is for those alone who were refused for now.
        on_unknown: what it means that nobody answered after the whole message was handed over: `fail` the task without
            a retry, or `retry` with the same Message-ID, by which servers can recognise the copy.
        on_clear: what clearing the task means after it failed for good: send it to whoever lacks it
            (`resume_unfinished`), or to everybody (`send_again`). After a success it always means everybody.
        retry_for: seconds for which, within this try, the mail is tried again where it was refused for now or not sent,
            and a server that cannot be reached; 0: not at all.

    Returns:
        The delivery as a dict (`Delivery.to_dict`), which is the task's XCom.

    Raises:
        AirflowException: trying again may help, and can deliver nothing twice.
        AirflowFailException: trying again would not help, or could deliver the mail twice.
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
        "message_id",
    )
    # Empty on purpose: Airflow would take any value that ends so, a subject or an attachment, for a template file.
    template_ext: Sequence[str] = ()
    template_fields_renderers = {  # noqa: RUF012
        "text": "text",
        "html": "html",
        "attachments": "json",
        "inline_images": "json",
        "headers": "json",
    }
    ui_color = "#e8f0fb"

    def __init__(
        self,
        *,
        smtpcm_conn_id: str = SmtpConnectionManagerHook.default_conn_name,
        from_address: str | Address | None = None,
        to: str | Sequence[str | Address] | None = None,
        cc: str | Sequence[str | Address] | None = None,
        bcc: str | Sequence[str | Address] | None = None,
        reply_to: str | Sequence[str | Address] | None = None,
        subject: str = "",
        text: str | None = None,
        html: str | None = None,
        text_file: str | None = None,
        html_file: str | None = None,
        attachments: str | Sequence[str | Attachment] | None = None,
        inline_images: Mapping[str, str | Attachment] | None = None,
        priority: str | Priority = "normal",
        headers: Mapping[str, str] | None = None,
        message_id: str | None = None,
        encoding: str = "utf-8-sig",
        on_refused: Literal["fail", "warn"] = "fail",
        on_unknown: Literal["fail", "retry"] = "fail",
        on_clear: Literal["resume_unfinished", "send_again"] = "resume_unfinished",
        retry_for: float = RETRY_FOR,
        **kwargs: Any,
    ) -> None:
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
        self.encoding = encoding
        self.on_refused = on_refused
        self.on_unknown = on_unknown
        self.on_clear = on_clear
        self.retry_for = retry_for
        one_of("on_refused", on_refused, ("fail", "warn"))
        one_of("on_unknown", on_unknown, ("fail", "retry"))
        one_of("on_clear", on_clear, ("resume_unfinished", "send_again"))
        zero_or_more("retry_for", retry_for)

    def execute(self, context: Context) -> dict[str, object]:
        """Send the mail."""
        log.info("SendMailTaskBegin: the task began to send a mail through '%s'.", self.smtpcm_conn_id)
        with sent_once(context) as attempt:
            delivery = self._execute(context, attempt, self._begin_to_run())
        assert delivery is not None
        return delivery.to_dict()

    def _execute(self, context: Context, attempt: Attempt, stop: Stop) -> Delivery | None:
        hook = SmtpConnectionManagerHook(self.smtpcm_conn_id)
        try:
            with ledger_of(context, on_clear=self.on_clear) as tries:
                attempt.may_have_arrived = tries.may_have_arrived
                delivery = self._deliver(context, hook, tries, stop)
        except MailError as error:
            attempt.failure = self._airflow_error(error)
            return None
        attempt.failure = tries.failure
        if attempt.failure is not None:
            return None
        assert delivery is not None
        if delivery.error is not None:
            log.warning("%s", delivery.error)
        log.info("SendMailTaskEnd: %s for %s: %s.", delivery.outcome, first_of(delivery.accepted), delivery.reply)
        from airflow_provider_smtpcm.operators._lineage import tell_outlets

        tell_outlets(
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

    def _deliver(self, context: Context, hook: SmtpConnectionManagerHook, tries: Tries, stop: Stop) -> Delivery | None:
        """The delivery, of this try or an earlier one; what the task fails with goes to `tries`."""
        from airflow_provider_smtpcm.ledger.journal import PastDelivery
        from airflow_provider_smtpcm.smtp.delivery import Delivery

        if tries.ledger is not None and tries.ledger.done is not None:
            return Delivery.from_dict(tries.ledger.done)
        past = PastDelivery(tries.ledger)
        try:
            accepted = past.accepted()
            if accepted is not None:
                tries.result, tries.summary = accepted.to_dict(), accepted.without_addresses()
                return accepted
            mail = self._mail(context, hook, tries.ledger)
            settled = past.settled(mail, retry_unknown=self.on_unknown == "retry")
            delivery = settled or self._send(mail, hook, past, tries, stop)
        except MailError as error:
            tries.failure = self._airflow_error(past.with_doubt(error))
            return None
        tries.failure = self._failure(mail, delivery, durable=tries.ledger is not None, stop=stop)
        tries.result, tries.summary = delivery.to_dict(), delivery.without_addresses()
        return delivery

    def _airflow_error(self, error: MailError) -> AirflowException:
        failure = airflow_error(error, retry_unknown=self.on_unknown == "retry")
        failure.__suppress_context__ = True  # what a library below said is in the message already
        return failure

    def _send(
        self, mail: Mail, hook: SmtpConnectionManagerHook, past: PastDelivery, tries: Tries, stop: Stop
    ) -> Delivery:
        """Send it to whoever lacks it."""
        from airflow_provider_smtpcm.operators._lineage import Lineage
        from airflow_provider_smtpcm.smtp.cancellation import InterruptedDeliveryError, only_delivery

        log.info(
            "SendMailTaskInfo: %s from %s to %s, subject %r, %d attachments.",
            mail.message_id,
            mail.from_address,
            first_of([address.address for address in mail.recipients]),
            mail.subject,
            len(mail.attachments),
        )
        hook.check(mail)
        errand = past.errand(mail)
        assert errand is not None  # else the mail was settled
        try:
            delivery = only_delivery(
                hook.send_errands(
                    iter((errand,)),
                    retry_for=budget(self.retry_for, self.execution_timeout),
                    journal=past.journal,
                    stop=stop,
                ),
                tries.told,
            )
        except InterruptedDeliveryError as error:
            if error.delivery.error is not None:
                return replace(error.delivery, error=error)
            log.warning("%s", error)
            delivery = error.delivery
        finally:
            past.close()
        if delivery is None:  # it was stopped before it was begun
            return past.as_before(mail, stop.error())
        past.keep(delivery)
        Lineage(hook).sent(mail, delivery)
        return delivery

    def _failure(self, mail: Mail, delivery: Delivery, *, durable: bool, stop: Stop) -> AirflowException | None:
        """With what the task ends: nobody has the mail, nobody knows, or some were refused; None: it is done."""
        from airflow_provider_smtpcm.smtp.cancellation import InterruptedDeliveryError

        error = delivery.error
        if error is None:
            return None
        if not delivery.accepted or (durable and delivery.outcome == "unknown"):
            return self._airflow_error(error)
        everybody_asked = not delivery.never_asked(address.address for address in mail.recipients)
        cut_short = isinstance(error, InterruptedDeliveryError) or (durable and stop.asked and error.retryable)
        if self.on_refused == "warn" and delivery.outcome == "partial" and everybody_asked and not cut_short:
            return None
        return airflow_error(error, retry_unknown=False) if durable else AirflowFailException(str(error))

    def _mail(self, context: Context, hook: SmtpConnectionManagerHook, ledger: Ledger | None) -> Mail:
        """The mail that the rendered fields describe, bearing the same Message-ID on every try."""
        from airflow_provider_smtpcm.mail import Mail
        from airflow_provider_smtpcm.mail.headers import stable_message_id

        mail = Mail(
            from_address=self.from_address,
            to=self.to or (),
            cc=self.cc or (),
            bcc=self.bcc or (),
            reply_to=self.reply_to or (),
            subject=as_text(self.subject) or "",
            text=self._body(context, "text", self.text, self.text_file),
            html=self._body(context, "html", self.html, self.html_file),
            attachments=self.attachments or (),
            inline_images=self.inline_images or (),
            priority=self.priority or "normal",
            headers=as_headers(self.headers),
            message_id=as_text(self.message_id) or None,
        )
        mail = hook.addressed(mail)
        if mail.message_id is not None:
            return mail
        assert mail.from_address is not None
        identity = stable_message_id(mail.from_address.domain, *identity_of(context, ledger))
        return mail.with_identity(message_id=identity)

    def _body(self, context: Context, field: str, value: str | None, file: str | None) -> str | None:
        if not file:
            return as_text(value)
        if value:
            raise MessageError(
                f"'{field}' and '{field}_file' are both set.", remedy="Give the body in one way; leave the other empty."
            )
        from airflow_provider_smtpcm.arguments.values import render_body_file

        return render_body_file(f"{field}_file", file, self.encoding, self.get_template_env(), context)
