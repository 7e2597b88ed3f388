"""The connection form of Airflow 3.1, generated from the table of settings; later versions read the provider info.

wtforms is imported only when the form is built: Airflow 3.1 then provides a stand-in for it, and otherwise it need not
be installed.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_smtpcm.connection_manager import FIELDS, Field, fields
from airflow_provider_smtpcm.connection_manager.fields import FieldType


def build_connection_form_widgets() -> dict[str, Any]:
    """Return one widget for each extra."""
    return {field.name: _create_widget(field) for field in FIELDS}


def build_ui_field_behaviour() -> dict[str, Any]:
    """Return `fields.build_ui_field_behaviour()` with underscores in the keys, as Airflow 3.1 spells them."""
    return {key.replace("-", "_"): value for key, value in fields.build_ui_field_behaviour().items()}


def _create_widget(field: Field) -> Any:
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import any_of

    widgets = {FieldType.BOOLEAN: BooleanField, FieldType.NUMBER: IntegerField, FieldType.SECRET: PasswordField}
    default = None if field.in_ssis_properties else field.default
    if field.type is FieldType.NUMBER and default is not None:
        default = int(default)
    elif isinstance(default, str):
        default = str(default)
    validators = [any_of([str(value) for value in field.choices])] if field.type is FieldType.CHOICE else []
    widget = widgets.get(field.type, StringField)(
        field.label, description=fields.get_plain_help(field), default=default, validators=validators
    )
    # Airflow's stand-in keeps the browser's schema in this attribute, which wtforms itself does not have. The schema
    # also has labels of choices, maxima, sections and multiline boxes.
    param = getattr(widget, "param", None)
    if param is not None:
        param.schema |= fields.build_form_schema(field)
    return widget
