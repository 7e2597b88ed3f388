"""The connection form in a browser shows every setting, keeps what is filled in, and the hook reads it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS, AuthMode, SmtpConnectionManager
from airflow_provider_smtpcm.connection_manager.fields import Field, FieldType, get_plain_help
from tests.integration.connection_form.faults import PASSWORD, Servers

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from demo.airflow_stack import AirflowStack

pytestmark = [pytest.mark.slow, pytest.mark.every_airflow]

SECTIONS = ("Standard Fields", "Extra Fields", "Advanced")
WIDGETS = {
    FieldType.CHOICE: "drop-down",
    FieldType.BOOLEAN: "switch",
    FieldType.NUMBER: "number",
    FieldType.TEXT: "text",
    FieldType.MULTILINE: "textarea",
    FieldType.SECRET: "password",
}
#: What the form is filled with, by label; and what is changed then, where None is the cross of a drop-down.
FILLED = {
    "SMTP server": "localhost",
    "Port": "2525",
    "User name": "alice",
    "Password": PASSWORD,
    "Authentication": "Windows Authentication",
    "SSL": "Implicit TLS (port 465)",
    "CA certificate": "/etc/ssl/corp-ca.pem",
    "From address": "ETL <etl@corp.example>",
    "Reply-To address": "operations@corp.example; audit@corp.example",
    "SSIS connection string": "SmtpServer=localhost;UseWindowsAuthentication=True;EnableSsl=True;",
    "Windows protocol": "Kerberos",
    "Windows domain": "CORP",
    "Keytab": "/etc/etl.keytab",
    "Credential cache": "KEYRING:persistent:1000",
    "SPN": "smtp/mail.corp.example",
    "Channel binding": "None",
    "Client certificate": "/etc/etl/client.pem",
    "Client key": "/etc/etl/client.key",
    "Verify certificate": "off",
    "Timeout (seconds)": "12.5",
    "Final reply timeout (seconds)": "900",
    "Binary attachments (BINARYMIME)": "on",
    "Envelope sender": "<>",
    "Subject file": "/srv/templates/subject.txt",
    "HTML file": "/srv/templates/body.html",
    "Fallback hosts": "mail2.corp.example:2525; [2001:db8::2]",
    "Local host name": "worker1.corp.example",
}
CLEARED: dict[str, str | None] = {
    "SSL": None,
    "From address": "",
    "Windows protocol": None,
    "Keytab": "",
    "Credential cache": "",
    "SPN": "",
    "Channel binding": None,
    "Client certificate": "",
    "Client key": "",
    "Envelope sender": "",
    "Subject file": "",
    "HTML file": "",
    "Fallback hosts": "",
    "Timeout (seconds)": "",
}


# --- What the form shows.


def shown_before_anything_is_filled_in(field: Field, *, standard: bool) -> Any:
    """Return what the form should show of this empty field, by the table of settings."""
    from tests.integration.browser import Shown

    default = field.form_default
    words = {True: "on", False: "off", None: ""}
    if field.type is FieldType.CHOICE:
        value = field.choices[str(default)] if default is not None else field.unset_label
    else:
        value = f"{default:g}" if isinstance(default, float) else words[default]  # type: ignore[index]
    # Airflow's own box for the port has no bounds, and its own fields have no help.
    bounded = field.type is FieldType.NUMBER and not standard
    return Shown(
        widget=WIDGETS[field.type],
        help="" if standard else get_plain_help(field),
        value=value,
        placeholder=field.placeholder,
        maximum=f"{field.maximum:g}" if bounded else None,
    )


def test_every_setting_is_in_the_form_as_the_table_has_it(page: Page) -> None:
    """Label, help, widget, choices by their labels, default, placeholder and maximum, in its section."""
    from tests.integration.browser import ConnectionForm

    fields = {
        "Standard Fields": STANDARD_FIELDS,
        "Extra Fields": tuple(field for field in FIELDS if not field.advanced),
        "Advanced": tuple(field for field in FIELDS if field.advanced),
    }
    form = ConnectionForm.add(page, "every_field")
    for section in SECTIONS:
        labels = form.labels(section)
        standard = section == "Standard Fields"
        if standard:  # Airflow's order, and a field of its own
            assert sorted(labels) == sorted(["Description", *(field.label for field in fields[section])])
        else:
            assert labels == [field.label for field in fields[section]]
        for field in fields[section]:
            shown = form.read(field.label)
            assert (field.label, shown) == (
                field.label,
                shown_before_anything_is_filled_in(field, standard=standard),
            )
            if field.type is FieldType.CHOICE:
                unset = [field.unset_label] if field.unset_label else []
                assert form.choices(field.label) == [*unset, *field.choices.values()]
    form.close()


def test_a_number_box_limits_numbers_to_the_maximum(page: Page) -> None:
    """An emptied box stays empty; a number that is too small is an error of the parser."""
    from tests.integration.browser import ConnectionForm

    form = ConnectionForm.add(page, "bounds")
    form.open("Extra Fields")
    for typed, held in (("99999", "3600"), ("0", "0"), ("12.5", "12.5"), ("", "")):
        form.fill("Timeout (seconds)", typed)
        assert form.read("Timeout (seconds)").value == held
    form.close()


# --- What is saved.


def fill_in(page: Page, conn_id: str, values: dict[str, str | None], *, new: bool) -> None:
    """Fill in fields of the form, section by section, and save it."""
    from tests.integration.browser import ConnectionForm

    form = ConnectionForm.add(page, conn_id) if new else ConnectionForm.edit(page, conn_id)
    for section in SECTIONS:
        for label in form.labels(section):
            if label not in values:
                continue
            value, shown = values[label], form.read(label)
            if value is None:
                form.clear(label)
            elif shown.widget == "drop-down":
                form.choose(label, value)
            elif shown.widget != "switch":
                form.fill(label, value)
            elif shown.value != value:
                form.switch(label)
    form.save()


def read_all(page: Page, conn_id: str) -> dict[str, str]:
    """Return what the form shows of a saved connection, by label."""
    from tests.integration.browser import ConnectionForm

    page.reload()
    form = ConnectionForm.edit(page, conn_id)
    shown = {label: form.read(label).value for section in SECTIONS for label in form.labels(section)}
    form.close()
    return shown


def test_what_is_saved_is_shown_again_and_what_is_cleared_stays_empty(
    page: Page, airflow: AirflowStack, servers: Servers, tmp_path: Path
) -> None:
    """Every field, twice, with a password that the form never shows; and the hook reads what is stored."""
    from tests.integration.browser import press_test

    relay = servers.windows
    assert set(FILLED) == {field.label for field in (*STANDARD_FIELDS, *FIELDS)}
    fill_in(page, "changed", dict(FILLED), new=True)
    expected = {"Description": "", **FILLED, "Password": "***"}
    assert read_all(page, "changed") == expected

    changes = {"Port": str(relay.port), "CA certificate": relay.ca_certificate}
    changes |= {"Verify certificate": "on", "Final reply timeout (seconds)": "45"}
    fill_in(page, "changed", {**CLEARED, **changes}, new=False)
    unset = {field.label: field.unset_label for field in FIELDS}
    expected |= {label: value or unset[label] for label, value in CLEARED.items()} | changes
    shown = read_all(page, "changed")
    assert shown.pop("CA certificate").split() == expected.pop("CA certificate").split()
    assert shown == expected

    file = tmp_path / "connections.json"
    airflow.cli("connections", "export", str(file))
    stored = json.loads(file.read_text())["changed"]
    manager = SmtpConnectionManager.from_airflow(SimpleNamespace(**stored))
    assert manager == SmtpConnectionManager(
        host="localhost",
        port=relay.port,
        login="alice",
        domain="CORP",
        password=PASSWORD,
        auth_mode=AuthMode.WINDOWS,
        ca_certificate=relay.ca_certificate,
        reply_to="operations@corp.example; audit@corp.example",
        final_reply_timeout=45,
        binary_mime=True,
        local_hostname="worker1.corp.example",
    )

    file.write_text(json.dumps({"imported": stored, "added_by_a_program": manager.to_airflow()}))
    airflow.cli("connections", "import", str(file))
    page.reload()
    for conn_id in ("changed", "imported", "added_by_a_program"):
        assert "signed in with NTLM" in press_test(page, conn_id)
