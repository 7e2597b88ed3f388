"""A mail gets what it lacks from its connection: sender, Reply-To, Message-ID. Knows no socket."""

from __future__ import annotations

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.address import Address, parse_address
from airflow_provider_smtpcm.mail.identity import new_message_id


def addressed(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """The mail with the connection's From and Reply-To where it has none.

    Raises:
        MessageError: neither has a From, or the connection's is no address.
    """
    sender, reply_to = _sender(mail, manager), _reply_to(mail, manager)
    if sender is mail.from_address and reply_to is None:
        return mail
    return mail.with_identity(from_address=sender, reply_to=reply_to)


def complete(mail: Mail, manager: SmtpConnectionManager) -> Mail:
    """The mail as it is sent: `addressed`, and with a Message-ID in the sender's domain if it has none."""
    if mail.message_id is not None:
        return addressed(mail, manager)
    sender = _sender(mail, manager)
    return mail.with_identity(
        from_address=sender, reply_to=_reply_to(mail, manager), message_id=new_message_id(sender.domain)
    )


def _sender(mail: Mail, manager: SmtpConnectionManager) -> Address:
    if mail.from_address is not None:
        return mail.from_address
    if not manager.from_address:
        raise MessageError(
            "The mail has no From address.",
            remedy="Set 'from_address' on the task, or 'From address' on the connection.",
        )
    return parse_address(manager.from_address, field="From")


def _reply_to(mail: Mail, manager: SmtpConnectionManager) -> str | None:
    """What is missing."""
    return None if mail.reply_to else manager.reply_to
