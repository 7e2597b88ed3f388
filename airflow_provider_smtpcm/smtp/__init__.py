"""The conversation with a mail server. Cheap to import: it holds only what a conversation results in."""

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.smtp.delivery import Delivery, Outcome

__all__ = ["Delivery", "Outcome", "Reply"]
