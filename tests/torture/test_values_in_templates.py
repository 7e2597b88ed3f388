"""Thousands of hostile values in templates: each row makes the mail that its template means, or none.

A value adds no recipient, no attachment, no header and no markup, leads to no other folder, and is never run.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import PurePosixPath
from random import Random

import pytest

from airflow_provider_smtpcm.errors import MailError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.merge.rows import Row
from airflow_provider_smtpcm.merge.templates import DeferredTemplate, RowTemplates
from tests.operators.tasks import environment
from tests.torture import hostile
from tests.torture.tally import SEED, TALLY

ROWS = 5_000
EVE = hostile.EVE
SECRET = "correct-horse-battery"
TEMPLATES = ("{{ secret }}", "{{ row.name }}", "{% raw %}", "{# ", "{{ 7 * 7 }}", "{{ conn.db.password }}", "{%- if")
MARKUP = ("<img src=//evil.example>", "</p><a href='x'>", "&lt;", "<!--", "<script>", "]]>", "<p onclick=x>")
PATHS = (
    "..",
    "../",
    "/..",
    "/../../etc/passwd",
    "..\\",
    "/etc/passwd",
    "|/etc/passwd|",
    "|",
    "~",
    "//",
    "./",
    "file://",
)
PEOPLE = ("jane@corp.example", EVE, f"<{EVE}>", f"x <{EVE}>", f"{EVE}, ", f"; {EVE}; ", f'" <{EVE}>; "', f"{EVE}>,<")
POOLS = (
    *(TEMPLATES, MARKUP, PATHS, PEOPLE, hostile.SEPARATORS, hostile.SYNTAX, hostile.DOTS, hostile.WORDS),
    *(hostile.BREAKS, hostile.UNSEEN, hostile.LETTERS, hostile.ENCODED),
)
FIELDS = {
    "from_address": '"{{ row.name }}" <etl@corp.example>',
    "to": '"{{ row.name }}" <{{ row.email }}>; boss@corp.example',
    "cc": ["{{ row.name }} <cc@corp.example>", "{{ row.user }}@corp.example"],
    "subject": "For {{ row.name }}",
    "text": "Dear {{ row.name }}",
    "html": "<p>{{ row.name }}</p>",
    "attachments": "/srv/terms.pdf|/srv/statements/{{ row.id }}.pdf",
    "inline_images": {"logo": "/srv/logos/{{ row.id }}.png"},
    "headers": {"X-Name": "{{ row.name }}"},
}


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """With its attributes."""
        self.tags.append(f"{tag}{attrs}")

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        self.text += data


def value(random: Random) -> str:
    """Out of what has broken programs before; harmless now and then, or no row would make a mail."""
    if random.random() < 0.4:
        return random.choice(("4711", "Jane Doe", 'O\'Neil "J"', "Müller; Söhne", "a..b", "2026/11"))
    return "".join(random.choice(random.choice(POOLS)) for _ in range(random.randint(1, 4)))


def rows() -> list[Row]:
    """All of them."""
    random = Random(SEED)  # noqa: S311 - to be done again
    names = ("name", "email", "user", "id")
    all_rows = [Row({name: value(random) for name in names}) for _ in range(ROWS)]
    for row in all_rows[::2]:
        row["email"], row["user"] = "jane@corp.example", "jim"
    return all_rows


def inside(path: str, folder: str) -> bool:
    """Whether a path leads into a folder, by its components alone."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return path.startswith(folder) and ".." not in parts


def check(row: Row, mail: Mail) -> None:
    """The mail is the one that its templates mean."""
    jane, boss = mail.to
    cc, jim = mail.cc
    assert mail.from_address is not None
    assert mail.from_address.address == "etl@corp.example"
    assert (boss.address, cc.address) == ("boss@corp.example", "cc@corp.example")
    assert jane.display_name == mail.from_address.display_name == cc.display_name == row["name"].strip()
    assert jane.address == Mail(to=[row["email"]], subject="x").to[0].address
    assert jim.address.rpartition("@")[2] == "corp.example"
    terms, statement = (str(file.path) for file in mail.attachments)
    assert terms == "/srv/terms.pdf"
    assert inside(statement, "/srv/statements/")
    assert statement == f"/srv/statements/{row['id']}.pdf"
    assert inside(str(mail.inline_images[0].path), "/srv/logos/")
    assert [name for name, _ in mail.headers] == ["X-Name"]
    page = Tags()
    page.feed(mail.html or "")
    page.close()
    assert page.tags == ["p[]"]
    assert mail.text == f"Dear {row['name']}"
    assert SECRET not in repr(mail)


def test_a_hostile_value_changes_nothing_but_its_own_place() -> None:
    """Field by field, so that a row which one field refuses is tried in the others."""
    context = {"secret": SECRET}
    whole = RowTemplates(
        {name: DeferredTemplate(field) for name, field in FIELDS.items()}, environment(), context, encoding="utf-8"
    )
    made, refusals = 0, list[MailError]()
    for number, row in enumerate(rows(), 1):
        try:
            mail = Mail(**whole.render(row, number))
        except MailError as error:
            refusals.append(error)
            continue
        check(row, mail)
        made += 1
    assert made > ROWS // 20
    assert len(refusals) > ROWS // 4
    assert not any(error.retryable or SECRET in str(error) for error in refusals)
    TALLY.add(
        "values in templates",
        {"inputs tried": ROWS, "refused": len(refusals), "mails as meant": made},
    )


@pytest.mark.parametrize("name", ["to", "cc", "attachments"])
def test_a_field_alone_is_what_its_values_say_or_none(name: str) -> None:
    """Those rows too that another field would refuse."""
    templates = RowTemplates({name: DeferredTemplate(FIELDS[name])}, environment(), {}, encoding="utf-8")
    made = 0
    for number, row in enumerate(rows(), 1):
        try:
            field = templates.render(row, number)[name]
            mail = Mail(**{"to": "a@corp.example", "subject": "x", name: field})
        except MailError:
            continue
        made += 1
        if name == "attachments":
            assert [str(file.path)[:16] for file in mail.attachments] == ["/srv/terms.pdf", "/srv/statements/"]
            assert inside(str(mail.attachments[1].path), "/srv/statements/")
        else:
            people = getattr(mail, name)
            assert len(people) == 2
            assert ("boss@corp.example" if name == "to" else "cc@corp.example") in [one.address for one in people]
    assert made > ROWS // 20
