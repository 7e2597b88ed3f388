"""Messages: `Mail`, its addresses and attachments, and their rendering as MIME. No network, no Airflow.

The names of `attachment`, `files` and `mime_message` are imported on first use (PEP 562): most mails have no files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_smtpcm.mail.address import Address
from airflow_provider_smtpcm.mail.address_list import AddressesLike, AddressLike
from airflow_provider_smtpcm.mail.message import HeadersLike, HeaderValues, Mail, Priority

if TYPE_CHECKING:
    from airflow_provider_smtpcm.mail.attachment import Attachment, AttachmentLike, AttachmentsLike, InlineImagesLike
    from airflow_provider_smtpcm.mail.files import FilePattern
    from airflow_provider_smtpcm.mail.mime_message import MessageLike, MimeMessage

__all__ = [
    "Address",
    "AddressLike",
    "AddressesLike",
    "Attachment",
    "AttachmentLike",
    "AttachmentsLike",
    "FilePattern",
    "HeaderValues",
    "HeadersLike",
    "InlineImagesLike",
    "Mail",
    "MessageLike",
    "MimeMessage",
    "Priority",
]


def __getattr__(name: str) -> object:
    """Import a name of `attachment`, `files` or `mime_message` on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = {"FilePattern": "files", "MessageLike": "mime_message", "MimeMessage": "mime_message"}.get(
        name, "attachment"
    )
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value  # later uses find it there and do not call this function
    return value
