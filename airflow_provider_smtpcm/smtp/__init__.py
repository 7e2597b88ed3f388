"""The conversation with a mail server. This face is cheap to import: it holds what a conversation results in."""

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome

__all__ = ["Delivery", "Outcome", "Reply"]
