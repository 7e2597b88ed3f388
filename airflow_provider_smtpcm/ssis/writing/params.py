"""What variables and parameters become: params of the DAG with their defaults, and Airflow Variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from airflow_provider_smtpcm.ssis.expressions import DataType, ExpressionError, JinjaName, NotTranslatable
from airflow_provider_smtpcm.ssis.expressions.template_text import quoted
from airflow_provider_smtpcm.ssis.package import Parameter, Variable
from airflow_provider_smtpcm.ssis.passwords import password_line
from airflow_provider_smtpcm.ssis.writing.declared import WHOLE_NUMBERS, Declared, is_secret, value_of
from airflow_provider_smtpcm.ssis.writing.names import ascii_words, listed
from airflow_provider_smtpcm.ssis.writing.outcome import Findings

_TYPES = {
    2: DataType.I2,
    3: DataType.I4,
    4: DataType.R4,
    5: DataType.R8,
    6: DataType.CY,
    7: DataType.DATE,
    8: DataType.WSTR,
    11: DataType.BOOL,
    14: DataType.DECIMAL,
    16: DataType.I1,
    17: DataType.UI1,
    18: DataType.UI2,
    19: DataType.UI4,
    20: DataType.I8,
    21: DataType.UI8,
}


@dataclass(slots=True, kw_only=True)
class Params:
    """The `params` that the templates of one package use so far.

    Args:
        project: the name of the package's project; empty where it has none.
        defaults: by their key.
    """

    project: str
    findings: Findings
    defaults: dict[str, object] = field(default_factory=dict)
    _keys: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)
    _suspected: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)

    def name_of(self, found: Declared) -> JinjaName:
        """What it is in a template."""
        if isinstance(found, Parameter) and found.scope == "Project":
            return self._of_project(found)
        return self._param(found)

    def suspect(self, found: Declared) -> None:
        """Show no value of it: it stands where a password does."""
        self._suspected.add(_identity(found))
        if (key := self._keys.get(_identity(found))) is not None:
            self._put(found, key)

    def keep_at(self, found: Declared, value: str) -> None:
        """Give a variable's param another default: where the path that it holds is on a worker."""
        key = self._keys.get(_identity(found))
        if key is not None:
            self.defaults[key] = value

    @contextmanager
    def given_up_whole(self) -> Iterator[None]:
        """Where a template comes to nothing, the params that it would have used and what was told of them do too."""
        defaults, keys, told = dict(self.defaults), dict(self._keys), len(self.findings)
        try:
            yield
        except (ExpressionError, NotTranslatable):
            secret = {key for known, key in self._keys.items() if known in self._suspected and key in defaults}
            self.defaults = {**defaults, **{key: self.defaults[key] for key in secret}}
            self._keys = keys
            self.findings.forget(told)
            raise

    def _of_project(self, found: Parameter) -> JinjaName:
        name = self.project
        key = "_".join(part for part in (ascii_words(name), ascii_words(found.name) or "parameter") if part)
        type_ = _TYPES.get(found.data_type, DataType.WSTR)
        value = None if self._is_secret(found) else value_of(found)
        where = found.qualified_name
        if value is None:
            code = f"var.value.get({quoted(key)})"
            self.findings.decision(
                "variable-to-set",
                where,
                f"The value of the project's parameter {found.name} is not in the files, or is secret, so the Airflow "
                f"Variable {key} has no default, and a mail that needs it fails without it.",
                f"airflow variables set {key} VALUE",
            )
        else:
            code = f"var.value.get({quoted(key)}, {quoted(str(value))})"
            self.findings.note(
                "project-parameter",
                where,
                f"The project's parameter {found.name} is the Airflow Variable {key}; until that is set, the value "
                "of the project's files holds. What an environment of the SSIS catalog sets is not in them.",
            )
            self._tell_password(where, value, f"the default of the Airflow Variable {key!r}")
        self._tell_configured(found, f"Look up which of them is deployed, and: airflow variables set {key} VALUE")
        if type_ is DataType.WSTR:
            return JinjaName(text=code, type=type_)
        return JinjaName(text=f"ssis.cast({code}, '{type_}')", type=type_ if type_ is DataType.I4 else None)

    def _param(self, found: Declared) -> JinjaName:
        known = _identity(found)
        if known not in self._keys:
            key, count = found.name, 2
            while key in self.defaults:
                key, count = f"{found.name}_{count}", count + 1
            self._put(found, key)
        key = self._keys[known]
        return JinjaName(text=f"params[{quoted(key)}]", type=_TYPES.get(found.data_type))

    def _put(self, found: Declared, key: str) -> None:
        self._keys[_identity(found)] = key
        self.defaults[key] = self._default(found, key)

    def _is_secret(self, found: Declared) -> bool:
        return is_secret(found) or _identity(found) in self._suspected

    def _tell_password(self, where: str, value: object, place: str) -> None:
        if isinstance(value, str) and password_line(value):
            self.findings.decision(
                "password-in-text",
                where,
                f"The value of {where} seems to tell a password; it is {place} in the DAG.",
                "Take it out of the DAG and from where secrets are kept; and change it, if it is still in use.",
            )

    def _tell_configured(self, found: Parameter, remedy: str) -> None:
        if found.configured_in:
            self.findings.decision(
                "project-configuration",
                found.qualified_name,
                f"The parameter has another value than the one that is used in {listed(found.configured_in)}, which "
                "the project has among its configurations.",
                remedy,
            )

    def _default(self, found: Declared, key: str) -> object:
        value = None if self._is_secret(found) else value_of(found)
        where = found.qualified_name
        set_by = (
            "If another task of the package sets it, put what computes it (an XCom, say) in its place."
            if isinstance(found, Variable)
            else "Whoever starts the package may give it another."
        )
        if value is None or value == "":
            why = (
                "may be secret" if self._is_secret(found) else "is empty in the package: something sets it in each run"
            )
            self.findings.decision(
                "param-without-value",
                where,
                f"{where} {why}; it is params[{key!r}] of the DAG, which is empty.",
                "Fill in the default in the DAG, pass it when the DAG is triggered, or put what computes it (an XCom, "
                "say) in its place.",
            )
        else:
            self.findings.note(
                "variable-became-param",
                where,
                f"{where} is params[{key!r}] of the DAG, with its design-time value. {set_by}",
            )
            self._tell_password(where, value, f"the default of params[{key!r}]")
        if isinstance(found, Parameter):
            self._tell_configured(
                found, f"Look up which of them is deployed, and set the default of {key!r} in the DAG."
            )
        empty: dict[int, object] = {11: False, **dict.fromkeys(WHOLE_NUMBERS, 0), 4: 0.0, 5: 0.0}
        return empty.get(found.data_type, "") if value is None else value


def _identity(found: Declared) -> tuple[str, tuple[str, ...]]:
    return found.qualified_name, found.scope if isinstance(found, Variable) else ("$Package",)
