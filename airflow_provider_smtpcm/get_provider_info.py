"""The provider info of this package. Every Airflow process loads this module, so it imports nothing at the top."""


def get_provider_info() -> dict[str, object]:
    """Return what Airflow registers from this package: a new dict each time, since Airflow adds to it."""
    from airflow_provider_smtpcm.connection_manager.fields import build_conn_fields, build_ui_field_behaviour

    integration = "SMTP Connection Manager"
    return {
        "package-name": "airflow-provider-smtpcm",  # has to be the distribution's canonical name
        "name": integration,
        "description": "The SSIS SMTP connection manager: mail through servers that require Windows Authentication.",
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://learn.microsoft.com/sql/integration-services/connection-manager/smtp-connection-manager",
                "tags": ["protocol"],
            }
        ],
        "hooks": [
            {"integration-name": integration, "python-modules": ["airflow_provider_smtpcm.hooks.smtpcm"]},
        ],
        "operators": [
            {
                "integration-name": integration,
                "python-modules": [
                    "airflow_provider_smtpcm.operators.send_mail",
                    "airflow_provider_smtpcm.operators.sql_to_mail",
                    "airflow_provider_smtpcm.operators.mail_merge",
                    "airflow_provider_smtpcm.operators.only_if",
                    "airflow_provider_smtpcm.operators.ssis",
                ],
            },
        ],
        "task-decorators": [
            {"name": "send_mail", "class-name": "airflow_provider_smtpcm.decorators.send_mail.send_mail_task"},
        ],
        "notifications": ["airflow_provider_smtpcm.notifications.send_mail.SendMailNotifier"],
        "email-backends": ["airflow_provider_smtpcm.email_backend.send_email"],
        # Airflow 3.1 ignores this key.
        "cli": ["airflow_provider_smtpcm.cli.get_commands"],
        "connection-types": [
            {
                "connection-type": "smtpcm",
                "hook-class-name": "airflow_provider_smtpcm.hooks.smtpcm.SmtpConnectionManagerHook",
                "hook-name": integration,
                "conn-fields": build_conn_fields(),
                "ui-field-behaviour": build_ui_field_behaviour(),
            }
        ],
    }
