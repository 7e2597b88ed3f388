"""The SSIS SMTP connection manager for Apache Airflow: `from airflow_provider_smtpcm import SendMailOperator, Mail`.

The names in `__all__` are imported on first use (PEP 562). Importing this package alone imports nothing, not even from
the standard library: every Airflow process does it.
"""

__version__ = "0.1.0"

# Defined here, since importing `typing` takes time. Type checkers treat any variable of this name as true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
    from airflow_provider_smtpcm.errors import MailError
    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
    from airflow_provider_smtpcm.mail import Attachment, Mail, Priority
    from airflow_provider_smtpcm.notifications.send_mail import SendMailNotifier
    from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
    from airflow_provider_smtpcm.operators.send_mail import SendMailOperator
    from airflow_provider_smtpcm.operators.sql_query import SqlQuery
    from airflow_provider_smtpcm.operators.sql_to_mail import SqlToMailOperator
    from airflow_provider_smtpcm.smtp import Delivery

__all__ = [
    "Attachment",
    "Delivery",
    "Mail",
    "MailError",
    "MailMergeOperator",
    "Priority",
    "SendMailNotifier",
    "SendMailOperator",
    "SmtpConnectionManager",
    "SmtpConnectionManagerHook",
    "SqlQuery",
    "SqlToMailOperator",
]

# The submodule that defines each name.
_MODULES = {
    "Attachment": "mail",
    "Delivery": "smtp",
    "Mail": "mail",
    "MailError": "errors",
    "MailMergeOperator": "operators.mail_merge",
    "Priority": "mail",
    "SendMailNotifier": "notifications.send_mail",
    "SendMailOperator": "operators.send_mail",
    "SmtpConnectionManager": "connection_manager",
    "SmtpConnectionManagerHook": "hooks.smtpcm",
    "SqlQuery": "operators.sql_query",
    "SqlToMailOperator": "operators.sql_to_mail",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # later uses find it there and do not call this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
