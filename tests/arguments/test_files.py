"""URLs and wildcards: the author's have a meaning, those of values have none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_smtpcm.arguments.templates import FieldEnvironments, render_field
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Attachment, FilePattern
from airflow_provider_smtpcm.mail.attachment import parse_attachments
from airflow_provider_smtpcm.mail.structured_headers import parse_headers
from airflow_provider_smtpcm.mail.tainted import TaintedStr
from airflow_provider_smtpcm.merge.rows import Row
from airflow_provider_smtpcm.merge.templates import DeferredTemplate, RowTemplates, defer_templates


class Url:
    """A path in object storage, as far as it is not read."""

    def __init__(self, text: str) -> None:
        self.text = text

    def open(self, mode: str) -> Any: ...

    def stat(self) -> Any: ...

    def __str__(self) -> str:
        return self.text


class Bucket(Url):
    """A path without a folder above it."""

    name = ""

    @property
    def parent(self) -> Bucket:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bucket)

    __hash__ = None  # type: ignore[assignment]


def rendered(
    value: Any, field: str = "attachments", *, in_merge: bool = False, native: bool = False, **variables: Any
) -> Any:
    """Return a field as an operator renders it, or a merge for its row."""
    environment: Environment = NativeEnvironment() if native else SandboxedEnvironment()
    if in_merge:
        templates = RowTemplates({field: defer_templates(value)}, environment, {}, encoding="utf-8", to_path=Url)
        return templates.render(Row(variables), 1)[field]
    environments = FieldEnvironments(environment, to_path=Url)
    return render_field(field, value, environments, variables, lambda other: other)


def kinds(value: Any) -> list[tuple[str, str]]:
    """Return each file as what it is taken for, and its text."""
    if isinstance(value, TaintedStr):
        value = value.split_untainted("|")
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    names = {Url: "url", FilePattern: "pattern", Attachment: "attachment"}
    return [(names.get(type(item), "path"), str(item).strip()) for item in items]


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("s3://b/a.csv", [("url", "s3://b/a.csv")]),
        ("s3://b/a.csv|/srv/x.csv", [("url", "s3://b/a.csv"), ("path", "/srv/x.csv")]),
        ("s3://b/{{ day }}.csv", [("url", "s3://b/monday.csv")]),
        ("{{ 's3://b/' ~ day }}", [("url", "s3://b/monday")]),
        ("{{ url }}", [("path", "s3://evil/x")]),
        ("{{ url }}|/srv/x.csv", [("path", "s3://evil/x"), ("path", "/srv/x.csv")]),
        (" {{ url ~ '' }}", [("path", "s3://evil/x")]),
        ("{{ scheme }}://b/x", [("path", "s3://b/x")]),
        (["{{ url }}", "s3://b/a.csv"], [("path", "s3://evil/x"), ("url", "s3://b/a.csv")]),
        ("/srv/*.csv", [("pattern", "/srv/*.csv")]),
        ("/srv/{{ day }}/*.csv|/srv/x", [("pattern", "/srv/monday/*.csv"), ("path", "/srv/x")]),
        ("/srv/{{ star }}.csv", [("path", "/srv/*.csv")]),
        ("{{ star }}", [("path", "*")]),
        ("{{ number * 2 }}", [("path", "aa")]),
        ("/srv/report [final].csv", [("path", "/srv/report [final].csv")]),
        ("s3://b/*.csv", [("pattern", "s3://b/*.csv")]),
        ("https://host/x?y=1", [("url", "https://host/x?y=1")]),
        ({"a.csv": "s3://b/{{ day }}"}, [("url", "s3://b/monday")]),
        (FilePattern("/srv/{{ day }}/*"), [("pattern", "/srv/monday/*")]),
        (FilePattern(Path("/srv") / "{{ day }}/*"), [("pattern", "/srv/monday/*")]),
        (FilePattern("s3://b/{{ day }}/*"), [("pattern", "s3://b/monday/*")]),
    ],
)
@pytest.mark.parametrize("in_merge", [False, True])
def test_only_what_the_author_wrote_is_a_url_or_a_wildcard(
    value: Any, taken: list[tuple[str, str]], in_merge: bool
) -> None:
    """In an operator, and in a merge over the values of a row."""
    values = {"day": "monday", "url": "s3://evil/x", "star": "*", "scheme": "s3", "number": "a"}
    if in_merge:
        value = _over_rows(value)
    assert kinds(rendered(value, in_merge=in_merge, **values)) == taken


def _over_rows(value: Any) -> Any:
    if isinstance(value, str):
        for name in ("day", "url", "star", "scheme", "number"):
            value = value.replace(f"{{{{ {name}", f"{{{{ row.{name}").replace(f"~ {name}", f"~ row.{name}")
        return value
    if isinstance(value, FilePattern):
        is_path = isinstance(value.pattern, Path)
        return FilePattern(Path(_over_rows(str(value.pattern))) if is_path else _over_rows(value.pattern))
    return (
        {key: _over_rows(item) for key, item in value.items()}
        if isinstance(value, dict)
        else list(map(_over_rows, value))
    )


@pytest.mark.parametrize(("name", "kind"), [("html_file", "url"), ("message", "url"), ("to", "path"), ("html", "path")])
def test_a_url_is_one_where_a_field_is_a_file(name: str, kind: str) -> None:
    """Not in an address or a text; a wildcard is one only where a field may be several files."""
    assert kinds(rendered("s3://b/x", name)) == [(kind, "s3://b/x")]
    assert kinds(rendered("/srv/*.html", name)) == [("path", "/srv/*.html")]


@pytest.mark.parametrize("in_merge", [False, True])
def test_a_value_in_a_pattern_of_a_path_object_is_data(in_merge: bool) -> None:
    """As in one of text: it is no wildcard, and leads to no other folder."""
    value = _over_rows(FilePattern(Path("/srv") / "{{ day }}*")) if in_merge else FilePattern(Path("/srv/{{ day }}*"))
    assert rendered(value, in_merge=in_merge, day="*").pattern.mask == "/srv/\0*"
    with pytest.raises(MessageError, match="leads out of its folder"):
        rendered(value, in_merge=in_merge, day="../").find()


@pytest.mark.parametrize("in_merge", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_the_keys_of_a_mapping_are_templates(in_merge: bool, native: bool) -> None:
    """They name files for the recipient. What a value fills in is text, and not rendered again."""
    key, item = ("{{ row.name }}", "{{ row.day }}") if in_merge else ("{{ name }}", "{{ day }}")
    value = {f"{key}-1.pdf": f"/srv/{item}.pdf", f"a-{key}": "/srv/b", key: "/srv/c", "plain": item}
    for name, seen in (("7", "7"), ("{{ 7 }} | /x", "{{ 7 }} | /x"), ("*", "*")):
        made = rendered(value, in_merge=in_merge, native=native, name=name, day="monday")
        assert made == {f"{seen}-1.pdf": "/srv/monday.pdf", f"a-{seen}": "/srv/b", seen: "/srv/c", "plain": "monday"}
        assert all(type(made_key) is str for made_key in made)


@pytest.mark.parametrize("in_merge", [False, True])
def test_two_keys_that_are_rendered_to_one_are_an_error(in_merge: bool) -> None:
    """A file would be lost."""
    value = _over_rows_and_keys({"{{ day }}": "/srv/a", "{{ name }}": "/srv/b"}, in_merge=in_merge)
    with pytest.raises(MessageError, match="attachments: two keys are rendered to 'x'"):
        rendered(value, in_merge=in_merge, day="x", name="x")


@pytest.mark.parametrize("in_merge", [False, True])
def test_a_header_whose_name_is_a_template_is_what_it_is_named(in_merge: bool) -> None:
    """A value adds no address to a header of addresses."""
    value = _over_rows_and_keys({"{{ kind }}": "a{{ name }}@corp.example", "X-{{ name }}": "x"}, in_merge=in_merge)
    headers = rendered(value, "headers", in_merge=in_merge, kind="Sender", name="b")
    assert parse_headers(headers) == (("Sender", "ab@corp.example"), ("X-b", "x"))
    headers = rendered(value, "headers", in_merge=in_merge, kind="Errors-To", name="@corp.example, eve")
    with pytest.raises(MessageError):
        parse_headers(headers)


@pytest.mark.parametrize("wraps", [False, True])
def test_the_keys_of_what_another_task_returned_are_data(wraps: bool) -> None:
    """Its braces are in the name of the file."""
    data = {"{{ row.name }}": "/srv/a"}
    fields = {"attachments": data} if not wraps else {"attachments": [DeferredTemplate("/srv/b"), data]}
    templates = RowTemplates(fields, SandboxedEnvironment(), {}, encoding="utf-8")
    made = templates.render(Row({"name": "x"}), 1)["attachments"]
    assert (made[1] if wraps else made) == data


def _over_rows_and_keys(value: dict[str, str], *, in_merge: bool) -> dict[str, str]:
    def convert(text: str) -> str:
        return text.replace("{{ ", "{{ row.") if in_merge else text

    return {convert(key): convert(item) for key, item in value.items()}


def test_a_path_object_is_not_resolved() -> None:
    """Airflow 3.1 calls `resolve` of everything that has it, and a pattern is no file."""

    def resolve(other: Any) -> Any:
        return other.resolve({"a": "context"})

    environments = FieldEnvironments(SandboxedEnvironment(), to_path=Url)
    for value in (Path("/nowhere/*.csv"), FilePattern(Path("/nowhere/*.csv"))):
        rendered_value = render_field("attachments", value, environments, {}, resolve)
        assert str(rendered_value) == "/nowhere/*.csv"


def test_an_attachment_with_a_url_is_in_object_storage() -> None:
    """If the author wrote it into the DAG file."""
    for in_merge in (False, True):
        (attachment,) = rendered([Attachment("s3://b/a.csv", name="b.csv")], in_merge=in_merge)
        assert (type(attachment.path), attachment.name) == (Url, "b.csv")
    assert isinstance(Attachment("s3://b/a.csv").path, str)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files."""
    for name in ("b.csv", "a.csv", "c.txt", ".hidden.csv", "[1].csv", "sub/d.csv", "sub.csv/x", "s*r.csv", "sir.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    return tmp_path


def names(value: Any) -> list[str]:
    """Return the names of the files that are attached."""
    return [attachment.name for attachment in parse_attachments(value)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("?.csv", ["a.csv", "b.csv"]),
        ("[1].*", ["[1].csv"]),
        (".*.csv", [".hidden.csv"]),
        ("**/?.csv", ["a.csv", "b.csv", "d.csv"]),
        ("*/d.csv", ["d.csv"]),
        ("s*r.csv", ["s*r.csv"]),
    ],
)
def test_a_pattern_finds_files_sorted_by_path(pattern: str, found: list[str], folder: Path) -> None:
    """No folders, no hidden files; a file of exactly that name alone."""
    assert names(FilePattern(folder / pattern)) == found
    assert names([FilePattern(str(folder / pattern)), folder / "c.txt"]) == [*found, "c.txt"]


def test_a_value_in_a_pattern_matches_itself_alone(folder: Path) -> None:
    """Whatever characters it has."""
    assert names(rendered(f"{folder}/{{{{ stem }}}}.*", stem="s*r")) == ["s*r.csv"]
    assert names(rendered(f"{folder}/{{{{ stem }}}}*", stem="s*r", in_merge=False)) == ["s*r.csv"]
    with pytest.raises(MessageError, match="leads out of its folder"):
        names(rendered(f"{folder}/sub/{{{{ stem }}}}/*.csv", stem=".."))


def test_a_pattern_that_matches_nothing_is_an_error_unless_that_is_meant(folder: Path) -> None:
    """A report whose files are missing must not look complete."""
    with pytest.raises(MessageError, match=r"No file matches '.*\.pdf'.*required=False"):
        names(FilePattern(folder / "*.pdf"))
    with pytest.raises(MessageError, match="No file matches"):
        names(FilePattern(folder / "none/*.pdf"))
    assert names(FilePattern(folder / "*.pdf", required=False)) == []
    assert rendered(FilePattern("/srv/{{ day }}/*", required=False), day="x").required is False


def test_a_wildcard_of_a_value_in_object_storage_is_refused() -> None:
    """It cannot be told from the author's there."""
    with pytest.raises(MessageError, match=r"wildcard in\s+object storage"):
        rendered("s3://b/{{ stem }}/*.csv", stem="x[1]")


def test_a_pattern_in_object_storage_is_found_there(folder: Path) -> None:
    """By Airflow's own paths."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_smtpcm.hooks.object_storage import to_storage_path

    environments = FieldEnvironments(SandboxedEnvironment(), to_path=to_storage_path)

    def located(value: str) -> Any:
        return render_field("attachments", value, environments, {"day": folder.name}, lambda other: other)

    value = located(f"file://{folder.parent}/{{{{ day }}}}/*.txt|file://{folder.parent}/{{{{ day }}}}/s*.csv")
    assert names(value) == ["c.txt", "s*r.csv", "sir.csv"]
    assert [attachment.is_remote for attachment in parse_attachments(value)] == [True] * 3
    assert names(located(f"file://{folder}/**/d.*")) == ["d.csv"]
    assert names(located(f"file://{folder}/s*b/d.csv")) == ["d.csv"]
    with pytest.raises(MessageError, match="No file matches"):
        names(FilePattern(ObjectStoragePath(f"file://{folder}/*.pdf")))
    with pytest.raises(MessageError, match="bucket or host"):
        names(FilePattern(Bucket("s3://*/")))
