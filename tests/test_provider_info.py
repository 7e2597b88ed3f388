"""The provider info: it matches Airflow's own schema, and the form has the fields that the parser reads."""

from __future__ import annotations

import importlib
import json
from importlib import metadata, resources
from typing import Any

import jsonschema
import pytest

from airflow_provider_smtpcm.connection_manager import FIELDS, STANDARD_FIELDS, SmtpConnectionManager
from airflow_provider_smtpcm.get_provider_info import get_provider_info


def connection_type() -> dict[str, Any]:
    """Return the only connection type."""
    (found,) = get_provider_info()["connection-types"]  # type: ignore[misc]
    return found  # type: ignore[no-any-return]


def test_the_info_matches_airflows_schema() -> None:
    """A mismatch breaks every Airflow process."""
    schema = json.loads(resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_the_package_name_is_that_of_the_distribution() -> None:
    """Airflow compares the two, and a mismatch breaks every Airflow process."""
    (entry,) = metadata.entry_points(
        group="apache_airflow_provider", value=f"{get_provider_info.__module__}:get_provider_info"
    )
    assert entry.dist is not None
    assert entry.dist.name == get_provider_info()["package-name"] == "airflow-provider-smtpcm"
    assert entry.load() is get_provider_info


def test_the_info_is_a_new_dict_each_time() -> None:
    """Airflow adds to it."""
    assert get_provider_info() is not get_provider_info()


def test_everything_that_the_info_names_exists() -> None:
    """A wrong class path would be noticed only when the form is opened."""
    info = get_provider_info()
    names = [module for key in ("hooks", "operators") for entry in info[key] for module in entry["python-modules"]]  # type: ignore[attr-defined]
    for name in names:
        importlib.import_module(name)
    module, _, cls = connection_type()["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), cls)
    assert (hook.conn_type, hook.hook_name) == ("smtpcm", "SMTP Connection Manager")
    assert (hook.conn_name_attr, hook.default_conn_name) == ("smtpcm_conn_id", "smtpcm_default")


def test_the_form_shows_each_setting_once_and_in_order() -> None:
    """As in the table of fields."""
    assert list(connection_type()["conn-fields"]) == [field.name for field in FIELDS]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_each_setting_may_be_left_empty(field: Any) -> None:
    """A field without "null" would be required, and Save would stay disabled."""
    assert connection_type()["conn-fields"][field.name]["schema"]["type"][1] == "null"


def test_what_an_ssis_string_can_set_has_no_default_in_the_form() -> None:
    """The form saves every default that it shows, which would then contradict the string."""
    fields = connection_type()["conn-fields"]
    fillable = [field.name for field in FIELDS if field.in_ssis_properties]
    assert fillable == ["auth_mode", "ssl_mode", "timeout"]
    assert not any("default" in fields[name]["schema"] for name in fillable)


def test_what_is_stricter_when_spelled_out_has_no_default_in_the_form() -> None:
    """The form would spell it out in every connection."""
    fields = connection_type()["conn-fields"]
    strict = [field.name for field in FIELDS if field.is_strict_if_set]
    assert strict == ["channel_binding"]
    assert not any("default" in fields[name]["schema"] for name in strict)


def test_every_drop_down_has_a_label_for_each_choice() -> None:
    """And only choices that the parser accepts."""
    for name, field in connection_type()["conn-fields"].items():
        schema = field["schema"]
        choices = {"null" if choice is None else choice for choice in schema.get("enum", ())}
        assert set(schema.get("values_display", {})) == choices, name


def test_a_drop_down_without_a_default_shows_what_an_empty_setting_means() -> None:
    """As the label of null, which the form saves: a default would be saved as if somebody had chosen it."""
    fields = connection_type()["conn-fields"]
    shown = {
        name: field["schema"]["values_display"].get("null")
        for name, field in fields.items()
        if "enum" in field["schema"]
    }
    assert shown == {
        "auth_mode": "Default: Anonymous, or as the SSIS connection string says",
        "ssl_mode": "Default: STARTTLS (SSIS: Enable SSL), or as the SSIS connection string says",
        "windows_protocol": None,
        "channel_binding": "Default: The server's certificate (tls-server-end-point)",
    }


def test_the_properties_of_ssis_come_first() -> None:
    """In its order: name and server are Airflow's own fields."""
    assert list(connection_type()["conn-fields"])[:3] == ["auth_mode", "ssl_mode", "timeout"]


def test_a_form_saved_unchanged_is_a_valid_connection() -> None:
    """With its defaults and its nulls."""
    extra = {name: field["schema"].get("default") for name, field in connection_type()["conn-fields"].items()}
    saved = type("Saved", (), {"host": "mail.corp.example", "extra": json.dumps(extra)})
    assert SmtpConnectionManager.from_airflow(saved) == SmtpConnectionManager(host="mail.corp.example")


def test_airflows_own_fields_have_our_labels() -> None:
    """And its schema field, which is not used, is hidden."""
    behaviour = connection_type()["ui-field-behaviour"]
    assert behaviour["hidden-fields"] == ["schema"]
    assert behaviour["relabeling"] == {field.name: field.label for field in STANDARD_FIELDS}


def test_no_form_field_shows_markup() -> None:
    """The form shows text unchanged."""
    assert not any("`" in field["description"] for field in connection_type()["conn-fields"].values())
