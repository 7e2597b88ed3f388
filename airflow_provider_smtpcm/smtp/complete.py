"""A mail gets what it lacks from its connection: sender, Reply-To, Message-ID. Knows no socket."""

from __future__ import annotations

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.address import parse_address, parse_addresses
from airflow_provider_smtpcm.mail.identity import new_message_id


def addressed(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """The mail with the connection's From and Reply-To where it has none.

    Raises:
        MessageError: neither has a From, or the connection's is no address.
    """
    if mail.from_address is None and manager.from_address:
        mail = mail.with_identity(from_address=parse_address(manager.from_address, field="From"))
    if not mail.reply_to and manager.reply_to:
        mail = mail.with_identity(reply_to=parse_addresses(manager.reply_to, field="Reply-To"))
    if mail.from_address is None:
        raise MessageError(
            "The mail has no From address.",
            remedy="Set 'from_address' on the task, or 'From address' on the connection.",
        )
    return mail


def complete(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """The mail as it is sent: `addressed`, and with a Message-ID in the sender's domain if it has none."""
    mail = addressed(mail, manager)
    if mail.message_id is None and mail.from_address is not None:
        mail = mail.with_identity(message_id=new_message_id(mail.from_address.domain))
    return mail
