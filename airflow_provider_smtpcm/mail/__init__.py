"""Messages: `Mail`, its addresses and attachments, and their rendering as MIME. No network, no Airflow."""

from __future__ import annotations

from airflow_provider_smtpcm.mail.address import Address, AddressesLike, AddressLike
from airflow_provider_smtpcm.mail.attachment import Attachment, AttachmentLike, AttachmentsLike, InlineImagesLike
from airflow_provider_smtpcm.mail.message import HeadersLike, HeaderValues, Mail, Priority

__all__ = [
    "Address",
    "AddressLike",
    "AddressesLike",
    "Attachment",
    "AttachmentLike",
    "AttachmentsLike",
    "HeaderValues",
    "HeadersLike",
    "InlineImagesLike",
    "Mail",
    "Priority",
]
