"""The connection form of Airflow 3.1, generated from the same table; newer Airflow reads the provider info instead.

Airflow 3.1 stands in for wtforms and flask_appbuilder itself, so neither needs to be installed; outside of its form
they may be absent altogether.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_smtpcm.connection_manager import FIELDS
from airflow_provider_smtpcm.connection_manager import fields as form
from airflow_provider_smtpcm.connection_manager.fields import Field, Kind


def connection_form_widgets() -> dict[str, Any]:
    """One widget for each extra."""
    return {field.name: _widget(field) for field in FIELDS}


def ui_field_behaviour() -> dict[str, Any]:
    """Airflow 3.1 spells the keys with underscores."""
    return {key.replace("-", "_"): value for key, value in form.ui_field_behaviour().items()}


def _widget(field: Field) -> Any:
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import any_of

    widgets = {Kind.FLAG: BooleanField, Kind.NUMBER: IntegerField, Kind.SECRET: PasswordField}
    default = None if field.in_ssis_properties else field.default
    if field.kind is Kind.NUMBER and default is not None:
        default = int(default)
    elif isinstance(default, str):
        default = str(default)
    validators = [any_of([str(value) for value in field.choices])] if field.kind is Kind.CHOICE else []
    widget = widgets.get(field.kind, StringField)(
        field.label, description=form.help_text(field), default=default, validators=validators
    )
    # Airflow's stand-ins keep here what the browser gets, and the browser knows more than wtforms can say: labels of
    # choices, maxima, sections, boxes of several lines. The real wtforms has nothing of the kind, and does without.
    param = getattr(widget, "param", None)
    if param is not None:
        param.schema |= form.schema(field)
    return widget
