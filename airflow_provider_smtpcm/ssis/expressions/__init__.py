"""The expression language of SSIS: `parse`, `evaluate`, and `to_jinja`, which says the same as a template."""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.expressions.evaluate import evaluate
from airflow_provider_smtpcm.ssis.expressions.jinja import (
    JinjaName,
    Translation,
    condition_to_jinja,
    protected,
    to_jinja,
)
from airflow_provider_smtpcm.ssis.expressions.parser import Expression, parse, to_text, variables_of
from airflow_provider_smtpcm.ssis.expressions.types import DataType, ExpressionError, NotTranslatable, TypeSpec
from airflow_provider_smtpcm.ssis.expressions.values import Value

__all__ = [
    "DataType",
    "Expression",
    "ExpressionError",
    "JinjaName",
    "NotTranslatable",
    "Translation",
    "TypeSpec",
    "Value",
    "condition_to_jinja",
    "evaluate",
    "parse",
    "protected",
    "to_jinja",
    "to_text",
    "variables_of",
]
