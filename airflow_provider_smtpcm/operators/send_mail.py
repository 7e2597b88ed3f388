"""The Send Mail task as an Airflow operator. Knows Airflow and the words of a mail, and no SMTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator

from airflow_provider_smtpcm.errors import MailError, MessageError
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.operators.airflow_errors import AirflowFailException, airflow_error
from airflow_provider_smtpcm.operators.body_file import render_body_file
from airflow_provider_smtpcm.operators.fields import as_text, first_of, one_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.mail import Address, Attachment, Mail, Priority

log = logging.getLogger(__name__)


class SendMailOperator(BaseOperator):
    """Send one mail through an SMTP connection manager, as SSIS's Send Mail task does, and return its delivery.

    Every field that a person writes is templated. Addresses are a list, or one string with `;` or `,` between;
    attachments are a list of paths, or one string with `|` between.

    Args:
        smtpcm_conn_id: the Airflow connection of type `smtpcm`.
        from_address: the sender; empty: the connection's *From address*.
        to: the recipients; at least one among `to`, `cc` and `bcc`.
        cc: who gets a copy.
        bcc: who gets a copy that the others do not see.
        reply_to: where answers go.
        subject: one line.
        text: the plain body. With `html` too, the reader's program chooses.
        html: the HTML body.
        text_file: a template file for the plain body, instead of `text`: a path, or a name in `template_searchpath`.
        html_file: a template file for the HTML body, instead of `html`.
        attachments: files, as paths on the worker or `Attachment`.
        inline_images: images that the HTML shows by `cid:`, as a mapping of that id to a path.
        priority: `high`, `normal` or `low`.
        headers: further headers.
        encoding: of `text_file` and `html_file`.
        on_refused: what some refused recipients mean while others were accepted: `fail` the task (it is not retried,
            since the others would get the mail again), or `warn`.
        on_unknown: what it means that nobody answered after the whole message was handed over: `fail` the task without
            a retry, or `retry` with the same Message-ID, by which servers can recognise the copy.

    Returns:
        The delivery as a dict (`Delivery.to_dict`), which is the task's XCom.

    Raises:
        AirflowException: nothing was sent, and trying again may help.
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
    )
    # Empty on purpose: Airflow would take any value that ends so, a subject or an attachment, for a template file.
    template_ext: Sequence[str] = ()
    template_fields_renderers = {"text": "text", "html": "html", "headers": "json", "inline_images": "json"}  # noqa: RUF012
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
        encoding: str = "utf-8-sig",
        on_refused: Literal["fail", "warn"] = "fail",
        on_unknown: Literal["fail", "retry"] = "fail",
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
        self.encoding = encoding
        self.on_refused = on_refused
        self.on_unknown = on_unknown
        one_of("on_refused", on_refused, ("fail", "warn"))
        one_of("on_unknown", on_unknown, ("fail", "retry"))

    def execute(self, context: Context) -> dict[str, object]:
        """Send the mail."""
        log.info("SendMailTaskBegin: the task began to send a mail through '%s'.", self.smtpcm_conn_id)
        hook = SmtpConnectionManagerHook(self.smtpcm_conn_id)
        try:
            mail = self._mail(context, hook)
            log.info(
                "SendMailTaskInfo: %s from %s to %s, subject %r, %d attachments.",
                mail.message_id,
                mail.from_address,
                first_of([address.address for address in mail.recipients]),
                mail.subject,
                len(mail.attachments),
            )
            delivery = hook.send(mail)
        except MailError as error:
            # Without its cause: what a library below said is in the message already.
            raise airflow_error(error, retry_unknown=self.on_unknown == "retry") from None
        if delivery.error is not None:
            if self.on_refused == "fail":
                raise AirflowFailException(str(delivery.error))
            log.warning("%s", delivery.error)
        log.info("SendMailTaskEnd: %s for %s: %s.", delivery.outcome, first_of(delivery.accepted), delivery.reply)
        return delivery.to_dict()

    def _mail(self, context: Context, hook: SmtpConnectionManagerHook) -> Mail:
        """The mail that the rendered fields describe, bearing the same Message-ID on every try."""
        from airflow_provider_smtpcm.mail import Mail
        from airflow_provider_smtpcm.mail.identity import stable_message_id

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
            headers={name: as_text(value) or "" for name, value in (self.headers or {}).items()},
        )
        mail = hook.addressed(mail)
        assert mail.from_address is not None
        ti = context["ti"]
        identity = stable_message_id(mail.from_address.domain, ti.dag_id, ti.run_id, ti.task_id, str(ti.map_index))
        return mail.with_identity(message_id=identity)

    def _body(self, context: Context, field: str, value: str | None, file: str | None) -> str | None:
        if not file:
            return as_text(value)
        if value:
            raise MessageError(
                f"'{field}' and '{field}_file' are both set.", remedy="Give the body in one way; leave the other empty."
            )
        return render_body_file(f"{field}_file", file, self.encoding, self.get_template_env(), context)
