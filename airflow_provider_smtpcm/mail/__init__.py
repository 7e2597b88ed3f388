"""What is said: a mail, its addresses and its attachments. Knows no network and no Airflow."""

from __future__ import annotations

from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.message import Attachment, Mail, Priority

__all__ = ["Address", "Attachment", "Mail", "Priority"]
