"""The expression language of SSIS: parsing, evaluation, and translation to Jinja templates.

The modules inside are internal: other packages import from here.
"""

from __future__ import annotations

from airflow_provider_smtpcm.ssis.expressions.ast import (
    Call,
    Cast,
    Conditional,
    Expression,
    Literal,
    Name,
    Null,
    Operation,
    Unary,
    children,
    contains_choice,
    find_leading_strings,
    find_variables,
    merge_strings,
    reads_clock,
    replace_compared,
    replace_names,
    replace_strings,
    unparse,
    walk,
)
from airflow_provider_smtpcm.ssis.expressions.casts import Value, cast, to_bool, to_value
from airflow_provider_smtpcm.ssis.expressions.evaluate import apply_binary, apply_unary, evaluate
from airflow_provider_smtpcm.ssis.expressions.functions import call_function
from airflow_provider_smtpcm.ssis.expressions.jinja import JinjaName, escape_template, quote_string
from airflow_provider_smtpcm.ssis.expressions.parser import parse, parse_assignment
from airflow_provider_smtpcm.ssis.expressions.system_variables import (
    TemplateContext,
    find_system_type,
    is_system_variable,
    resolve_system_variable,
)
from airflow_provider_smtpcm.ssis.expressions.translate import (
    DATE_FORMAT_NOTE,
    Translation,
    condition_to_jinja,
    find_non_boolean_type,
    to_jinja,
)
from airflow_provider_smtpcm.ssis.expressions.types import DataType, ExpressionError, NotTranslatable, TypeSpec

__all__ = [
    "DATE_FORMAT_NOTE",
    "Call",
    "Cast",
    "Conditional",
    "DataType",
    "Expression",
    "ExpressionError",
    "JinjaName",
    "Literal",
    "Name",
    "NotTranslatable",
    "Null",
    "Operation",
    "TemplateContext",
    "Translation",
    "TypeSpec",
    "Unary",
    "Value",
    "apply_binary",
    "apply_unary",
    "call_function",
    "cast",
    "children",
    "condition_to_jinja",
    "contains_choice",
    "escape_template",
    "evaluate",
    "find_leading_strings",
    "find_non_boolean_type",
    "find_system_type",
    "find_variables",
    "is_system_variable",
    "merge_strings",
    "parse",
    "parse_assignment",
    "quote_string",
    "reads_clock",
    "replace_compared",
    "replace_names",
    "replace_strings",
    "resolve_system_variable",
    "to_bool",
    "to_jinja",
    "to_value",
    "unparse",
    "walk",
]
