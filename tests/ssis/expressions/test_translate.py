"""The templates that expressions become: what a person reads, and that literal text comes out as it is."""

from __future__ import annotations

import datetime as dt
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from airflow_provider_smtpcm.ssis import macros
from airflow_provider_smtpcm.ssis.expressions import (
    DataType,
    ExpressionError,
    JinjaName,
    NotTranslatable,
    condition_to_jinja,
    dates,
    escape_template,
    to_jinja,
)
from airflow_provider_smtpcm.ssis.expressions.parser import FUNCTIONS

NAMES: dict[str, JinjaName | str] = {
    "System::PackageName": JinjaName(code="dag.dag_id", type=DataType.WSTR),
    "System::StartTime": JinjaName(code="dag_run.start_date", type=DataType.DATE, note="StartTime is the run's."),
    "System::ErrorDescription": JinjaName(code="error if error else ''", type=DataType.WSTR),
    "User::To": JinjaName(code="params['To']", type=DataType.WSTR),
    "User::Rows": JinjaName(code="params['Rows']", type=DataType.I4),
    "User::Big": JinjaName(code="params['Big']", type=DataType.I8),
    "User::Price": JinjaName(code="params['Price']", type=DataType.DECIMAL),
    "User::Flag": JinjaName(code="params['Flag']", type=DataType.BOOL),
    "User::May": JinjaName(code="params['May']", type=DataType.WSTR, nullable=True),
    "User::Any": "params['Any']",
}
CONTEXT: dict[str, Any] = {
    "dag": {"dag_id": "nightly"},
    "dag_run": {"start_date": dt.datetime.fromisoformat("2026-11-25 13:05:00")},
    "error": "disk full",
    "params": {
        "To": "ops@corp.example",
        "Rows": 7,
        "Big": 5,
        "Price": "12.50",
        "Flag": True,
        "May": None,
        "Any": "any",
    },
}


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dates, "now", lambda **_: dt.datetime.fromisoformat("2026-11-25 10:57:48.123"))


def rendered(template: str, **more: object) -> str:
    """As Airflow renders a callback's template, in its sandbox, where whatever is missing is an error."""
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.globals["ssis"] = macros
    return environment.from_string(template).render(**{**CONTEXT, **more})


def test_a_decimal_number_keeps_the_digits_that_it_has() -> None:
    """A cast would give it ten after the point."""
    assert rendered(template('"Total: " + (DT_WSTR, 20)@[User::Price]')) == "Total: 12.50"


def template(text: str) -> str:
    """The template of an expression."""
    return to_jinja(text, NAMES.get).template


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("@[User::Unknown]", "User::Unknown"),
        ('"a" + @[User::Rows]', "cannot concatenate a string and an integer"),
        ("@[User::To] + 1", "cannot concatenate"),
        ("@[User::To] == 1", "cannot compare a string"),
        ('"a" + (@[User::Flag] ? (DT_WSTR,5)(1 / 0) : "")', "always fails: 1 / 0 is a division by zero"),
        ('SUBSTRING("a", 0, 1) + @[User::To]', "always fails"),
        ("REPLACE(" * 30 + "@[User::To]" + ',"a","b")' * 30, "nested"),
    ],
)
def test_what_no_template_says_is_refused_with_a_remedy(text: str, reason: str) -> None:
    """So that the report can say what is left to do."""
    with pytest.raises(NotTranslatable, match=reason) as caught:
        to_jinja(text, NAMES.get)
    assert caught.value.remedy


def test_what_cannot_be_read_is_an_error_of_the_expression() -> None:
    """And not of the translation."""
    with pytest.raises(ExpressionError):
        to_jinja('"a" + ', NAMES.get)


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        (
            '"Failed: " + @[System::PackageName] + " at " + (DT_WSTR,30)GETDATE()',
            "Failed: {{ dag.dag_id }} at {{ ssis.text(ssis.getdate(), 30) }}",
            "Failed: nightly at 2026-11-25 10:57:48.123000000",
        ),
        ("@[User::To]", "{{ params['To'] }}", "ops@corp.example"),
        (
            '@[User::To] + ";dba@corp.example"',
            "{{ params['To'] }};dba@corp.example",
            "ops@corp.example;dba@corp.example",
        ),
        ('@[User::Any] + "!"', "{{ params['Any'] }}!", "any!"),
        ('"Rows: " + (DT_STR,10,1252)@[User::Rows]', "Rows: {{ ssis.text(params['Rows'], 10) }}", "Rows: 7"),
        ("(DT_STR,3,1252)@[User::To]", "{{ params['To'][:3] }}", "ops"),
        ("!@[User::Flag]", "{{ not params['Flag'] }}", "False"),
        ("@[User::Rows] == 0 ? 1 : 5", "{{ 1 if (params['Rows'] == 0) else 5 }}", "5"),
        (
            '@[User::Rows] > 0 ? "Loaded " + (DT_WSTR,9)@[User::Rows] : "Nothing"',
            "{% if params['Rows'] > 0 %}Loaded {{ ssis.text(params['Rows'], 9) }}{% else %}Nothing{% endif %}",
            "Loaded 7",
        ),
        ("SUBSTRING(@[User::To],2,3)", "{{ params['To'][1:4] }}", "ps@"),
        ("RIGHT(@[User::To],7)", "{{ params['To'][-7:] }}", "example"),
        ("LEFT(@[User::To],3)", "{{ params['To'][:3] }}", "ops"),
        ("UPPER(@[User::To])", "{{ ssis.upper(params['To']) }}", "OPS@CORP.EXAMPLE"),
        ("TRIM(@[User::To])", "{{ params['To'].strip(' ') }}", "ops@corp.example"),
        ("LEN(@[User::To])", "{{ params['To'] | length }}", "16"),
        ('REPLACE(@[User::To],"ops","dba")', "{{ params['To'] | replace('ops', 'dba') }}", "dba@corp.example"),
        ('TOKEN(@[User::To],"@",2)', "{{ ssis.token(params['To'], '@', 2) }}", "corp.example"),
        (
            "(DT_WSTR,30)@[System::StartTime]",
            "{{ ssis.text(ssis.cast(dag_run.start_date, 'DT_DATE'), 30) }}",
            "11/25/2026 1:05:00 PM",
        ),
        ("(DT_DBDATE)GETDATE()", "{{ ssis.cast(ssis.getdate(), 'DT_DBDATE') }}", "2026-11-25"),
        (
            'RIGHT("0" + (DT_STR,2,1252)DAY(GETDATE()),2)',
            "{{ ('0' ~ ssis.text(ssis.day(ssis.getdate()), 2))[-2:] }}",
            "25",
        ),
        (
            'DATEADD("day",-1,GETDATE())',
            "{{ ssis.dateadd('day', -1, ssis.getdate()) }}",
            "2026-11-24 10:57:48.123000000",
        ),
        ("1 + 2", "3", "3"),
        ("TRUE", "True", "True"),
        ('(DT_DBDATE)"2026-01-02"', "2026-01-02", "2026-01-02"),
        ('"a" + "b" + REPLICATE("-", 3)', "ab---", "ab---"),
        ("@[User::Big] * 2", "{{ ssis.calc(ssis.cast(params['Big'], 'DT_I8'), '*', 2) }}", "10"),
        (
            'ISNULL(@[User::May]) ? "none" : @[User::May]',
            "{{ ssis.text('none' if (params['May'] is none) else params['May']) }}",
            "none",
        ),
        ('"a" + @[User::May]', "{{ ssis.calc('a', '+', params['May']) }}", ""),
        ('"Error: " + @[System::ErrorDescription]', "Error: {{ error if error else '' }}", "Error: disk full"),
        (
            "LEN(@[System::ErrorDescription]) > 4",
            "{{ ((error if error else '') | length) > 4 }}",
            "True",
        ),
    ],
)
def test_a_template_reads_well_and_gives_the_value(text: str, expected: str, shown: str) -> None:
    """Plain Jinja where that is exactly the same."""
    assert template(text) == expected
    assert rendered(expected) == shown


@pytest.mark.parametrize(
    "text",
    [
        "{{ x }}",
        "{% if %}",
        "{# no comment #}",
        "{{{ {%{{ {{{{",
        "{",
        "{{",
        "a {",
        "}}",
        "%}",
        "ends\n",
        "ends\n\n",
        "\n",
        "a\rb",
        "tab\tquote'\"\\",
        "{% raw %}{% endraw %}",
        "{{-",
        "\x0b\x0c\x1c\x85\u2028\u2029",
        "{{ '",
        "😀 {{ €",
        "# for x in y",
        "",
    ],
)
def test_literal_text_comes_out_as_it_is(text: str) -> None:
    """Alone, before an expression and after one, whatever Jinja would see in it."""
    assert rendered(escape_template(text)) == text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert rendered(template(f'"{quoted}" + @[User::To] + "{quoted}"')) == f"{text}ops@corp.example{text}"
    assert rendered(template(f'@[User::Flag] ? @[User::To] + "{quoted}" : ""')) == f"ops@corp.example{text}"


def test_a_line_end_of_windows_becomes_one_of_python() -> None:
    """In a mail a line end is a line end."""
    assert rendered(escape_template("one\r\ntwo\r\n")) == "one\ntwo\n"


def test_plain_text_is_not_marked_as_a_template() -> None:
    """The writer may then write a plain text."""
    assert not to_jinja('"plain" + " text\\n" + "x"', NAMES.get).is_template
    assert to_jinja('"{{"', NAMES.get).is_template
    assert to_jinja("@[User::To]", NAMES.get).is_template
    assert not to_jinja("@[User::To]", NAMES.get).uses_macros
    assert to_jinja("(DT_WSTR,9)GETDATE()", NAMES.get).uses_macros


def test_the_notes_say_what_differs_once() -> None:
    """Of the clock, and of each variable."""
    notes = to_jinja("(DT_WSTR,9)GETDATE() + (DT_WSTR,9)GETDATE() + (DT_WSTR,9)@[System::StartTime]", NAMES.get).notes
    assert len(notes) == 2
    assert "local time of the Airflow worker" in notes[0]
    assert notes[1] == "StartTime is the run's."


def test_only_the_chosen_branch_is_worked_out() -> None:
    """As in SSIS."""
    text = "@[User::Rows] == 0 ? (DT_WSTR,9)(1 / @[User::Rows]) : (DT_WSTR,9)(8 / @[User::Rows])"
    assert rendered(template(text)) == "1"
    assert rendered(template("@[User::Rows] != 0 && 1 / @[User::Rows] > 5"), params={"Rows": 0}) == "False"


def test_an_error_while_rendering_says_what_is_wrong() -> None:
    """In the log of the task."""
    with pytest.raises(ExpressionError, match="division by zero"):
        rendered(template("8 / @[User::Rows]"), params={"Rows": 0})


def test_a_body_of_thousands_of_parts_renders() -> None:
    """Without depth, whatever its length."""
    text = " + ".join(['"line\\n" + @[User::To] + (DT_WSTR,9)@[User::Rows]'] * 3000)
    assert len(rendered(template(text))) == 3000 * len("line\nops@corp.example7")


@pytest.mark.parametrize(("before", "after"), [('(@[User::Nil] ? "a" + ', ' : "b")'), ("(@[User::Nil] && !", ")")])
def test_what_is_held_twice_does_not_grow_without_end(before: str, after: str) -> None:
    """Forty levels of it would be a million million characters."""
    nil = JinjaName(code="nil", type=DataType.BOOL, nullable=True)
    inner = '"x"' if "?" in before else "@[User::Nil]"
    with pytest.raises(NotTranslatable, match="nested"):
        to_jinja(before * 22 + inner + after * 22, lambda _: nil)


def test_a_table_of_conditions_renders() -> None:
    """As one `{% if %}` with many arms."""
    text = "".join(f'@[User::Rows] == {number} ? "{number}" : ' for number in range(300)) + '"none"'
    assert rendered(template(text)) == "7"


@pytest.mark.parametrize("depth", [12])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("REPLACE(", ',"a","a")'),
        ("LTRIM(TOKEN(", ',";",1))'),
        ('("x" + (DT_WSTR,50)(', "))"),
        ('(@[User::Flag] ? "a" + (', ') : "b")'),
        ('REPLACENULL(@[User::May] + "x", ', ")"),
    ],
)
def test_what_is_translated_can_be_read_by_jinja(before: str, after: str, depth: int) -> None:
    """From deep inside of Airflow, where half of the stack is used up."""
    for levels in range(1, depth + 1):
        try:
            found = template(before * levels + "@[User::To]" + after * levels)
        except NotTranslatable:
            assert levels > 4
            return
        assert _deep(300, found) is not None


def _deep(frames: int, found: str) -> str:
    return rendered(found) if frames == 0 else _deep(frames - 1, found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@[User::Flag]", "params['Flag']"),
        ("@[User::Rows] > 3 && @[User::Flag]", "(params['Rows'] > 3) and params['Flag']"),
        ("@[User::Any]", "ssis.is_true(params['Any'])"),
        ("NULL(DT_BOOL)", "ssis.is_true(ssis.null('DT_BOOL'))"),
    ],
)
def test_a_condition_is_an_expression_for_an_if(text: str, expected: str) -> None:
    """Of a precedence constraint, or of Disable."""
    assert condition_to_jinja(text, NAMES.get) == expected


def test_a_condition_that_is_not_a_boolean_is_refused() -> None:
    """A text is neither true nor false."""
    with pytest.raises(NotTranslatable, match="is a string, not a Boolean"):
        condition_to_jinja("@[User::To]", NAMES.get)


def test_every_function_of_the_language_is_a_macro() -> None:
    """By its name in small letters, and the same code."""
    for name in FUNCTIONS:
        assert getattr(macros, name.lower()).__doc__.startswith(name)
