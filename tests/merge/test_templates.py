"""The fields of a merge are filled in from rows; the content of a row is data, whatever it looks like."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.merge.rows import Row
from airflow_provider_smtpcm.merge.templates import DeferredTemplate, RowTemplates
from tests.operators.tasks import environment

CONTEXT = {"ds": "2024-01-31", "params": {"sender": "etl@corp.example", "everybody": ["a@corp.example"]}}
JANE = Row(name="Jane", email="jane@corp.example")


def templates(env: jinja2.Environment | None = None, **fields: Any) -> RowTemplates:
    """As the author of a DAG writes them."""
    deferred = {name: DeferredTemplate(value) for name, value in fields.items()}
    return RowTemplates(deferred, env or environment(), CONTEXT, encoding="utf-8-sig")


def filled_in(template: str, row: Row, field: str = "text", env: jinja2.Environment | None = None) -> Any:
    return templates(env, **{field: template}).render(row, 1)[field]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"subject": "{{ row.name "}, r"subject is not a valid template \(.*line 1\).*raw"),
        ({"text": "a\n{% if row.name %}"}, r"text is not a valid template \(.*line 2\)"),
        ({"to": ["{{ row.email | nosuch }}"]}, "to is not a valid template .*nosuch"),
        ({"headers": {"X-Id": "{{ }}"}}, "headers is not a valid template"),
        ({"subject": "{{ rwo.name }}"}, "subject: 'rwo' is undefined.*Correct the name"),
        ({"subject": "{{ 1 // 0 }}"}, "subject cannot be rendered .*ZeroDivisionError"),
        ({"html_file": "/nowhere/page.html"}, "html_file: there is no file '/nowhere/page.html'.*template_searchpath"),
        (
            {"text_file": r"\\files\loads\body.txt"},
            r"there is no file '\\\\files\\loads\\body\.txt' .*a path on Windows.*mount the share",
        ),
        ({"text_file": "body.txt", "text": "x"}, "'text' and 'text_file' are both set"),
        ({"html": b"<p>{{ row.name }}"}, r"'html' has to be text, not bytes\. Decode it"),
    ],
)
def test_what_is_wrong_whatever_the_row_is_wrong_at_once(fields: dict[str, Any], said: str) -> None:
    """Before a server is contacted."""
    with pytest.raises(MessageError, match=f"(?s){said}"):
        templates(**fields)


def test_a_body_file_that_is_no_template_is_wrong_at_once(tmp_path: Path) -> None:
    """CSS and Jinja share some brackets."""
    (tmp_path / "page.html").write_text("<html>\n<style>a{#x}</style>")
    with pytest.raises(MessageError, match=r"(?s)html_file.*page\.html.*line 2.*raw"):
        templates(html_file=str(tmp_path / "page.html"))


@pytest.mark.parametrize(
    "template", ["{{ row.nmae }}", "{{ row['nmae'] }}", "{{ row.nmae.first }}", "{% for x in row.nmae %}{% endfor %}"]
)
def test_a_missing_column_is_named_with_the_field_and_the_columns_that_there_are(template: str) -> None:
    """Whatever the DAG says of undefined names."""
    for env in (environment(), environment(template_undefined=jinja2.Undefined)):
        with pytest.raises(MessageError) as caught:
            filled_in(template, JANE, "subject", env)
        assert str(caught.value) == (
            "subject: the row has no column 'nmae'; its columns are 'name', 'email'. "
            "Correct the name, or give a default: {{ row.name | default('') }}."
        )


def test_of_many_columns_the_error_names_the_first() -> None:
    """It is for reading."""
    row = Row({f"c{number}": number for number in range(500)})
    with pytest.raises(MessageError, match=r"'c0', 'c1'.*'c9' and 490 more"):
        filled_in("{{ row.x }}", row)
    with pytest.raises(MessageError, match=r"its columns are \(none\)"):
        filled_in("{{ row.x }}", Row())


def test_what_a_template_raises_is_an_error_of_that_row() -> None:
    """The next one may do."""
    filler = templates(text="{{ 10 // row.n }}", subject="{{ row.n.missing or '' }}")
    with pytest.raises(MessageError, match=r"text cannot be rendered \(ZeroDivisionError"):
        filler.render(Row(n=0), 1)
    with pytest.raises(MessageError, match="subject: 'int object' has no attribute 'missing'"):
        filler.render(Row(n=1), 2)


def test_a_template_cannot_leave_its_sandbox() -> None:
    """As with all of Airflow's templates."""
    for template in ("{{ ''.__class__ ~ row.name }}", "{{ row.__class__ }}", "{{ row['name'].__class__.__mro__ }}"):
        with pytest.raises(MessageError):
            filled_in(template, JANE)


def test_a_field_is_a_template_over_the_row_its_number_and_what_airflow_gives() -> None:
    """Columns of any name, and in whatever order."""
    row = Row({"name": "Jane", "First name": "J", "items": 3, "keys": "k", "_id": 7, "get": "g"})
    template = (
        "{{ row_number }} {{ row.name }} {{ row['First name'] }} {{ row.items }} {{ row.keys }} {{ row._id }} "
        "{{ row.get }} {{ ds }} {{ macros_are_there | default('-') }}"
    )
    assert filled_in(template, row) == "1 Jane J 3 k 7 g 2024-01-31 -"
    assert filled_in("{% for name, value in row | items %}{{ name }}={{ value }};{% endfor %}", Row(a=1, b=2)) == (
        "a=1;b=2;"
    )


def test_a_column_that_may_be_missing_has_a_default() -> None:
    """And NULL in a database is empty text in a mail, not the word None."""
    assert filled_in("[{{ row.title | default('-') }}] {% if row.title is defined %}x{% endif %}", JANE) == "[-] "
    assert filled_in("Dear {{ row.title }}{{ row.name }}", Row(title=None, name="Jane")) == "Dear Jane"
    assert filled_in("{{ row.n }} {{ row.flag }}", Row(n=0, flag=False)) == "0 False"


def test_html_is_escaped_unless_it_is_said_to_be_safe() -> None:
    """What the author wrote stays as it is, and other fields too."""
    row = Row(name="<b>&\"'")
    assert filled_in("<p>{{ row.name }}</p>", row, "html") == "<p>&lt;b&gt;&amp;&#34;&#39;</p>"
    assert filled_in("<p>{{ row.name | safe }}</p>", row, "html") == "<p><b>&\"'</p>"
    assert filled_in("<p>&nbsp;</p>", row, "html") == "<p>&nbsp;</p>"
    for field in ("text", "subject", "to"):
        assert filled_in("<p>{{ row.name }}</p>", row, field) == "<p><b>&\"'</p>"


class Marked:
    """A value that brings its own HTML."""

    def __html__(self) -> str:
        return "<u>marked</u>"

    def __repr__(self) -> str:
        return "Marked()"  # the same in every process, as the name of a test has to be


@pytest.mark.parametrize(
    "value",
    [
        "",
        "plain",
        "<a href='x'>&\"</a>",
        "ü<",
        Markup("<b>&amp;</b>"),
        5,
        -2.5,
        True,
        ["<"],
        {"<": "'"},
        b"<x>",
        Marked(),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "template",
    [
        "{{ v }}",
        "{{ v ~ '<' ~ v }}",
        "{{ v | upper }}{{ v | e }}{{ v | safe }}{{ v | string | length }}",
        "{% set s %}<i>{{ v }}</i>{% endset %}{{ s }}",
        "{% macro m(x) %}<b>{{ x }}</b>{{ caller() }}{% endmacro %}{% call m(v) %}{{ v }}{% endcall %}",
        "{% block b %}{{ v }}{% endblock %}{{ self.b() }}{% filter upper %}{{ v }}{% endfilter %}",
        "{% autoescape false %}{{ v }}{% endautoescape %}{% for c in [v, 1] %}{{ c }}{{ loop.index }}{% endfor %}",
    ],
)
def test_html_is_what_jinja_makes_of_it_whatever_a_value_is(template: str, value: Any) -> None:
    """What is marked as safe stays as it is, even if the template passes it on internally."""
    written = filled_in("{% set v = row.v %}" + template, Row(v=value), field="html")
    assert written == jinja2.Environment(autoescape=True).from_string(template).render(v=value)


def test_an_html_file_is_escaped_too_and_a_text_file_is_not(tmp_path: Path) -> None:
    """Even if it extends or includes another."""
    (tmp_path / "base.html").write_text("<h1>{{ row.name }}</h1>{% block rest %}{% endblock %}")
    (tmp_path / "page.html").write_text(
        "{% extends 'base.html' %}{% block rest %}<p>{{ row.name }}{% include 'foot.html' %}{% endblock %}"
    )
    (tmp_path / "foot.html").write_text("<i>{{ row.name }}</i>")
    (tmp_path / "body.txt").write_bytes("\ufeffDear {{ row.name }}".encode())
    env = environment(template_searchpath=[str(tmp_path)])
    filler = templates(env, text_file="body.txt", html_file="page.html")
    for name in ("A & B", "C < D"):
        values = filler.render(Row(name=name), 1)
        escaped = html.escape(name)
        assert values == {
            "text": f"Dear {name}",
            "html": f"<h1>{escaped}</h1><p>{escaped}<i>{escaped}</i>",
        }


@pytest.mark.parametrize("value", [None, math.nan, Decimal("NaN")])
def test_what_is_missing_is_written_as_nothing(value: object) -> None:
    """Also within a value of a row."""
    row = Row(name=value, lines=[{"price": value}])
    assert filled_in("Dear {{ row.name }}!{% for line in row.lines %}{{ line.price }}{% endfor %}", row) == "Dear !"


def test_a_column_is_missing_where_a_file_is_separated_otherwise() -> None:
    """All its columns are one."""
    with pytest.raises(
        MessageError, match=r"no column 'email'; its columns are 'email;name'\. Is the file .* by ';'\?"
    ):
        filled_in("{{ row.email }}", Row({"email;name": "jane@corp.example;Jane"}), "to")


@pytest.mark.parametrize("native", [False, True])
def test_a_column_may_hold_a_list_of_recipients(native: bool) -> None:
    """Of a JSON Lines file, in any DAG."""
    row = Row(emails=["a@corp.example", "b@corp.example"])
    env = environment(render_template_as_native_obj=native)
    assert filled_in("{{ row.emails }}", row, "to", env=env) == row["emails"]
    assert filled_in("{{ row.emails }}", row, "subject", env=env) == str(row["emails"])


def test_which_file_may_depend_on_the_row(tmp_path: Path) -> None:
    """One for each language; each is read once."""
    for language, word in (("en", "Dear"), ("de", "Hallo")):
        (tmp_path / f"{language}.txt").write_text(f"{word} {{{{ row.name }}}}")
    filler = templates(environment(template_searchpath=[str(tmp_path)]), text_file="{{ row.language }}.txt")
    with pytest.raises(MessageError, match=r"text_file: there is no file 'fr\.txt'"):
        filler.render(Row(name="Jeanne", language="fr"), 1)
    assert filler.render(Row(name="Jane", language="en"), 2)["text"] == "Dear Jane"
    (tmp_path / "en.txt").unlink()
    assert filler.render(Row(name="Jim", language="en"), 3)["text"] == "Dear Jim"
    assert filler.render(Row(name="Jan", language="de"), 4)["text"] == "Hallo Jan"


def test_the_dag_s_macros_filters_and_settings_are_there() -> None:
    """It is the task's own environment."""
    env = environment(
        user_defined_macros={"greet": lambda name: f"Hi {name}", "company": "Corp & Co"},
        user_defined_filters={"shout": lambda text: text.upper()},
        jinja_environment_kwargs={"variable_start_string": "[[", "variable_end_string": "]]"},
    )
    assert filled_in("[[ greet(row.name) | shout ]] {{ }} [[ company ]]", JANE, env=env) == "HI JANE {{ }} Corp & Co"


def test_what_names_no_row_is_rendered_once() -> None:
    """An XCom or a variable is not asked for again with each row."""
    asked = []

    def ask() -> Iterator[str]:
        asked.append("x")
        return iter("ab")

    env = environment(user_defined_macros={"ask": ask})
    filler = templates(
        env,
        subject="{{ ask() | join }}",
        text="{% for row in ask() %}{{ row }}{% endfor %}{{ row.name }}",
        cc=["{{ params.sender }}", "x@corp.example"],
        html="<p>{% raw %}{{ row.name }}{% endraw %}</p>{# a remark #}\n",
    )
    assert filler.constants == {
        "subject": "ab",
        "cc": ["etl@corp.example", "x@corp.example"],
        "html": "<p>{{ row.name }}</p>",
    }
    assert asked == ["x"]
    assert [filler.render(JANE, number)["text"] for number in (1, 2)] == ["abJane"] * 2


def test_what_includes_another_template_may_name_the_row_there() -> None:
    """So it is rendered for each row; the other is read and compiled once."""
    read = []

    def load(name: str) -> tuple[str, None, Callable[[], bool]]:
        read.append(name)
        return "{% set names = [] %}{% do names.append(row.name) %}{{ names[0] }}", None, lambda: True

    env = environment()
    env.loader = jinja2.FunctionLoader(load)
    filler = templates(env, subject="For {% include 'name.txt' %}")
    assert [filler.render(Row(name=name), 1)["subject"] for name in ("Jane", "Jim")] == ["For Jane", "For Jim"]
    assert read == ["name.txt"]


def test_of_a_list_that_names_the_row_the_other_items_are_known_beforehand() -> None:
    """So that the file that all mails share is missed before any is sent."""
    filler = templates(
        attachments=["/shared/terms.pdf", "{{ row.file }}"], inline_images={"logo": "/logo.png", "face": "{{ row.a }}"}
    )
    assert filler.constants == {}
    assert filler.constant_items == {"attachments": ["/shared/terms.pdf"], "inline_images": ["/logo.png"]}
    values = filler.render(Row(file="/a.pdf", a="/a.png"), 1)
    assert values["attachments"] == ["/shared/terms.pdf", "/a.pdf"]
    assert values["inline_images"] == {"logo": "/logo.png", "face": "/a.png"}


def test_what_another_task_returned_is_data() -> None:
    """It is not wrapped, and never compiled, even next to what is."""
    fields = {
        "subject": "{{ row.name }}",
        "to": ["{{ x }}@corp.example", DeferredTemplate("{{ row.email }}")],
        "cc": None,
    }
    filler = RowTemplates(fields, environment(), CONTEXT, encoding="utf-8")
    assert filler.render(JANE, 1) == {
        "subject": "{{ row.name }}",
        "to": ["{{ x }}@corp.example", "jane@corp.example"],
        "cc": None,
    }


def test_in_a_dag_of_native_objects_a_list_stays_one_and_text_stays_text() -> None:
    """Also text that looks like a list, or like a number."""
    native = environment(render_template_as_native_obj=True)
    row = Row(to=["a@corp.example", "b@corp.example"], text="['c@corp.example']", number="1e3", nothing=None)
    filler = templates(
        native,
        to="{{ row.to }}",
        cc="{{ row.text }}",
        bcc="{{ params.everybody }}",
        reply_to="{{ row.nothing }}",
        subject="{{ row.number }}",
        text="{{ row.to }}",
        attachments="{{ row.number }}|x",
    )
    assert filler.constants == {"bcc": ["a@corp.example"]}
    assert filler.render(row, 1) == {
        "to": ["a@corp.example", "b@corp.example"],
        "cc": "['c@corp.example']",
        "bcc": ["a@corp.example"],
        "reply_to": "",
        "subject": "1e3",
        "text": "['a@corp.example', 'b@corp.example']",
        "attachments": "1e3|x",
    }
    with pytest.raises(MessageError, match="to: the row has no column 'x'"):
        filled_in("{{ row.x }}", row, "to", native)


# --- Whatever a row contains.

HOSTILE = [
    *("{{ 7 * 7 }}", "{% if 1 %}", "{#", "}}", "{{ ti }}", "{{ row }}", "%s", "\\", "\n", "|"),
    *("<script>", "</p>", "&", "&amp;", '"', "'"),
]
texts = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), max_size=5).map("".join)
plane = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])  # what JSON writes in one piece
names = st.sampled_from(["items", "__class__", "row", "First name", "self", "{{ x }}"]) | st.text(plane, max_size=8)
rows = st.dictionaries(names, texts, min_size=1, max_size=4).map(Row)

ENVIRONMENTS = (environment(), environment(render_template_as_native_obj=True))


def escaped(text: str) -> str:
    """As Jinja writes it; Python's own function has other numbers for the quotation marks."""
    return html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows, st.booleans())
def test_no_row_is_evaluated_and_all_html_is_escaped(row: Row, native: bool) -> None:
    """Every column by its name, in a loop, and through a filter that puts text together."""
    # JSON writes a name as a Jinja template does, in ASCII.
    by_name = "".join(f"{{{{ row[{json.dumps(name)}] }}}}|" for name in row)
    loop = "{% for name in row %}[{{ row[name] }}]{% endfor %}{{ row | join(' ') }}"
    for field, write in (("text", str), ("subject", str), ("to", str), ("html", escaped)):
        cells = [write(value) for value in row.values()]
        assert filled_in(by_name, row, field, ENVIRONMENTS[native]) == "".join(f"{cell}|" for cell in cells)
        in_loop = "".join(f"[{cell}]" for cell in cells) + write(" ".join(row))
        assert filled_in(loop, row, field, ENVIRONMENTS[native]) == in_loop
