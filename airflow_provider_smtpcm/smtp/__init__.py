"""The SMTP client. Importing this package is cheap: it loads only the types of a delivery report."""

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.smtp.outcome import Delivery, Outcome

__all__ = ["Delivery", "Outcome", "Reply"]
