"""Each row becomes a mail, with a key that is the same in every attempt."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_smtpcm.errors import ConnectionSettingsError, MessageError, Reply
from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
from airflow_provider_smtpcm.ledger.journal import LedgerJournal
from airflow_provider_smtpcm.ledger.merge import MergeLedger
from airflow_provider_smtpcm.ledger.record import RunState
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.merge.messages import RowKeys, RowMails, resolve_constants
from airflow_provider_smtpcm.merge.report import MergeReport
from airflow_provider_smtpcm.merge.result import MergeResult
from airflow_provider_smtpcm.merge.rows import Row, open_rows
from airflow_provider_smtpcm.merge.sending import send_rows
from airflow_provider_smtpcm.merge.templates import DeferredTemplate, RowTemplates
from airflow_provider_smtpcm.smtp.cancellation import CancellationToken
from airflow_provider_smtpcm.smtp.outcome import Delivery
from airflow_provider_smtpcm.smtp.queue import SendRequest
from tests.ledger.stores import Memory
from tests.merge.test_report import lines
from tests.operators.tasks import environment

FIELDS = {"from_address": "etl@corp.example", "to": "{{ row.email }}", "subject": "{{ row.name }}", "row_key": None}
ROWS = [{"email": f"{name.lower()}@corp.example", "name": name} for name in ("Jane", "Jim", "Joan")]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SmtpConnectionManagerHook]:
    """For a connection that is never opened."""

    def make(**extra: object) -> SmtpConnectionManagerHook:
        connection = {"conn_type": "smtpcm", "host": "mail.corp.example", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps(connection))
        return SmtpConnectionManagerHook("mail")

    return make


def templates(**fields: Any) -> RowTemplates:
    """As the author of a DAG writes them."""
    written = {name: DeferredTemplate(value) for name, value in fields.items()}
    return RowTemplates(written, environment(), {}, encoding="utf-8-sig")


class Merge:
    """The mails of some rows, and the outcomes of the others."""

    def __init__(self, rows: Any = ROWS, *, run: str = "r", **fields: Any) -> None:
        source = open_rows(rows, encoding="utf-8")
        self.result = MergeResult(rows=source, report=MergeReport(None, try_number=1, to_path=Path))
        self.mails = RowMails(
            source,
            templates(**{**FIELDS, **fields}),
            result=self.result,
            apply_defaults=lambda mail: mail,
            identity=lambda key: ("d", run, "send", "-1", key),
        )

    def all(self) -> list[Mail]:
        return [send_request.mail for send_request in self.mails]

    def ids(self) -> list[str | None]:
        return [send_request.mail.message_id for send_request in self.mails]

    @property
    def failed(self) -> list[tuple[object, str]]:
        listed: Any = self.result.to_dict()["failed"]
        return [(entry["row"], entry["reason"]) for entry in listed]


# --- What is the same for all mails.


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"from_address": "etl"}, "From: there is no '@'"),
        ({"from_address": " "}, "'From address' on the connection"),
        ({"to": "jane"}, "To: there is no '@'"),
        ({"to": ["{{ row.email }}", "jane"]}, "To: there is no '@'"),
        ({"to": None, "cc": " ", "bcc": ["", ""]}, r"no recipient.*to='\{\{ row\.email \}\}'"),
        ({"reply_to": "nobody"}, "Reply-To"),
        ({"subject": "Hi\nBcc: x@corp.example"}, "control character"),
        ({"priority": "urgent"}, "Priority"),
        ({"headers": {"Bcc": "x@corp.example"}}, "Use bcc"),
        ({"headers": "X-Id: 1"}, "Headers must be a mapping"),
        ({"row_key": "4711"}, "'row_key' is the same for every row"),
        ({"attachments": "/nowhere/terms.pdf"}, "/nowhere/terms.pdf"),
        ({"attachments": ["/nowhere/terms.pdf", "{{ row.file }}"]}, "/nowhere/terms.pdf"),
        ({"inline_images": {"logo": "/nowhere/logo.png"}}, "/nowhere/logo.png"),
        ({"inline_images": {"logo": "/nowhere/logo.png", "face": "{{ row.face }}"}}, "/nowhere/logo.png"),
    ],
)
def test_what_is_wrong_for_every_row_is_wrong_before_any_is_taken(
    fields: dict[str, Any], said: str, hook: Callable[..., SmtpConnectionManagerHook]
) -> None:
    """Whatever `on_error` says."""
    with pytest.raises(MessageError, match=f"(?s){said}"):
        resolve_constants(templates(**{**FIELDS, **fields}), hook().connection_manager)


def test_a_connection_that_cannot_be_used_is_wrong_for_every_row(
    hook: Callable[..., SmtpConnectionManagerHook],
) -> None:
    """All its faults at once."""
    with pytest.raises(ConnectionSettingsError, match="Connection 'mail'"):
        resolve_constants(templates(**FIELDS), hook(auth_mode="basic").connection_manager)


def test_what_is_the_same_is_parsed_once(hook: Callable[..., SmtpConnectionManagerHook], tmp_path: Path) -> None:
    """The sender may be the connection's."""
    terms, logo = tmp_path / "terms.pdf", tmp_path / "logo.png"
    terms.write_bytes(b"%PDF")
    logo.write_bytes(b"\x89PNG")
    filler = templates(
        to="{{ row.email }}",
        from_address=None,
        cc="a@corp.example; b@corp.example",
        attachments=f"{terms} | {logo}",
        inline_images={"logo": str(logo)},
        headers={"X-Id": 5},
    )
    resolve_constants(filler, hook(from_address="robot@corp.example").connection_manager)
    constants = filler.constants
    assert constants["from_address"].address == "robot@corp.example"
    assert [address.address for address in constants["cc"]] == ["a@corp.example", "b@corp.example"]
    assert constants["attachments"] == (Attachment(str(terms)), Attachment(str(logo)))
    assert [image.content_id for image in constants["inline_images"]] == ["logo"]


# --- Rows and mails.


def test_a_row_of_which_no_mail_can_be_made_is_told_and_the_others_follow() -> None:
    """Each under its number, which is that of the row among all."""
    merge = Merge([{"email": "x"}, 5, ROWS[0], {"email": "jane", "name": "Jane"}, ROWS[1]])
    assert [mail.subject for mail in merge.all()] == ["Jane", "Jim"]
    assert [number for number, _ in merge.failed] == [1, 2, 4]
    assert "subject: the row has no column 'name'" in merge.failed[0][1]
    assert "A row has to be a mapping, not int" in merge.failed[1][1]
    assert "To: there is no '@' in 'jane'" in merge.failed[2][1]
    assert {index: row.number for index, row in merge.mails.in_flight.items()} == {2: 3, 4: 5}


def test_a_header_cannot_be_smuggled_in_by_a_row() -> None:
    """Neither through the subject nor through an address."""
    merge = Merge(
        [{"email": "a@corp.example", "name": "Hi\r\nBcc: b@corp.example"}, {"email": "a@x\nBcc: b@x", "name": "x"}]
    )
    assert merge.all() == []
    assert ["control character" in reason for _, reason in merge.failed] == [True, True]


def test_a_value_that_no_mail_may_contain_is_told_by_its_field() -> None:
    """A NUL or half a character, in a body, a header or the name of a file; the other rows follow."""
    rows = [{"email": "a@corp.example", "name": text} for text in ("a\0b", "\ud800", "Jane")]
    for fields, label in (
        ({"text": "Dear {{ row.name }}"}, "Text contains"),
        ({"html": "<p>{{ row.name }}"}, "Html contains"),
        ({"subject": "For {{ row.name }}"}, "Subject: "),
        ({"headers": {"X-Name": "{{ row.name }}"}}, "X-Name: "),
        ({"headers": {"Sender": "{{ row.name }} <a@corp.example>"}}, "Sender: "),
        ({"reply_to": "{{ row.name }} <a@corp.example>"}, "Reply-To: "),
        ({"attachments": ["/srv/{{ row.name }}.csv"]}, "Attachments: "),
    ):
        merge = Merge(rows, subject="x", **fields) if "subject" not in fields else Merge(rows, **fields)
        assert len(merge.all()) == 1
        for (_, reason), character in zip(merge.failed, ("U+0000", "U+D800"), strict=True):
            assert reason.startswith(label), reason
            assert character in reason or "a NUL" in reason


def test_a_value_in_a_header_of_addresses_adds_no_address() -> None:
    """A receipt goes to whom the author of the DAG names; one value that is all of it may name several."""
    hostile = {"email": "a@corp.example", "name": "Eve <eve@evil.example>; Jane"}
    several = {"email": "a@corp.example", "name": "b@corp.example; c@corp.example"}

    header = {"Disposition-Notification-To": "{{ row.name }} <jane@corp.example>"}
    [mail] = Merge([hostile], subject="x", headers=header).all()
    assert mail.headers == (("Disposition-Notification-To", '"Eve <eve@evil.example>; Jane" <jane@corp.example>'),)
    [mail] = Merge([several], subject="x", headers={"Errors-To": "{{ row.name }}"}).all()
    assert mail.headers == (("Errors-To", "b@corp.example, c@corp.example"),)
    merge = Merge([several], subject="x", headers={"Errors-To": "boss@corp.example; {{ row.name }}"})
    assert merge.all() == [] and "Errors-To" in merge.failed[0][1]


def test_rows_that_end_early_leave_the_mails_before_them() -> None:
    """The reason is reported at the end."""

    def rows(error: Exception) -> Iterator[dict[str, str]]:
        yield ROWS[0]
        raise error

    merge = Merge(rows(MessageError("The share is gone.", retryable=True)))
    assert len(merge.all()) == 1
    assert str(merge.mails.failure) == "The share is gone."

    merge = Merge(rows(KeyError("next_page")))
    assert len(merge.all()) == 1
    assert str(merge.mails.failure).startswith("The source of the rows failed after row 1 (KeyError: 'next_page')")


def test_all_parts_of_a_mail_come_from_its_row() -> None:
    """Numbers become text, and what is empty is left out."""
    row = {
        "email": "Jane <jane@corp.example>; jim@corp.example",
        "number": 7,
        "file": "/tmp/a.csv|/tmp/b.csv",  # noqa: S108 - nobody reads it
        "urgent": "HIGH",
        "boss": None,
    }
    (mail,) = Merge(
        [row],
        from_address="{{ row.number }}@corp.example",
        cc="{{ row.boss }}",
        bcc=["b{{ row.number }}@corp.example"],
        reply_to="{{ row.email }}",
        subject="{{ row.number }}",
        text="{{ row.number }}",
        html="<p>{{ row.email }}</p>",
        attachments="{{ row.file }}",
        priority="{{ row.urgent }}",
        headers={"X-Number": "{{ row.number }}", "X-Fixed": 3, "X-Boss": "{{ row.boss }}"},
    ).all()
    assert mail.from_address is not None
    assert mail.from_address.address == "7@corp.example"
    assert [address.address for address in mail.recipients] == [
        "jane@corp.example",
        "jim@corp.example",
        "b7@corp.example",
    ]
    assert (mail.cc, len(mail.reply_to), mail.subject, mail.text) == ((), 2, "7", "7")
    assert mail.html == "<p>Jane &lt;jane@corp.example&gt;; jim@corp.example</p>"
    assert [attachment.name for attachment in mail.attachments] == ["a.csv", "b.csv"]
    assert (mail.priority, mail.headers) == ("high", (("X-Number", "7"), ("X-Fixed", "3"), ("X-Boss", "")))


# --- Keys.


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "blank"),
        (" \n", "blank"),
        ("a", "already has the row_key 'a'"),
        ("a\0", r"row_key 'a\\x00' contains the control character U\+0000"),
        ("\ud800", r"contains the lone surrogate U\+D800"),
    ],
)
def test_a_key_that_tells_no_row_apart_makes_no_mail(key: str, said: str) -> None:
    """Two mails with the same Message-ID could be taken for one."""
    keys = RowKeys()
    assert keys.claim(" a ", Row()) == "a"
    with pytest.raises(MessageError, match=said):
        keys.claim(key, Row())


def test_a_row_that_cannot_be_written_down_needs_a_key() -> None:
    """A digest of it would be another one the next time."""
    endless: Any = {}
    endless["self"] = endless
    for row in (Row(a=endless), Row(a={1: "x", "y": 2})):
        with pytest.raises(MessageError, match="Set 'row_key'"):
            RowKeys().claim(None, row)
        assert RowKeys().claim("7", row) == "7"


def test_of_rows_with_the_same_key_only_the_first_makes_a_mail() -> None:
    """The second is reported with its number."""
    merge = Merge([*ROWS, ROWS[1]], row_key="{{ row.email }}")
    assert len(merge.all()) == 3
    assert [number for number, _ in merge.failed] == [4]
    assert "already has the row_key 'jim@corp.example'" in merge.failed[0][1]


def test_every_try_gives_a_mail_the_same_message_id_and_no_two_mails_share_one() -> None:
    """Equal rows too are mails of their own."""
    rows = [*ROWS, ROWS[0], ROWS[0]]
    ids = Merge(rows).ids()
    assert Merge(rows).ids() == ids
    assert len(set(ids)) == 5
    assert set(Merge(rows, run="another").ids()).isdisjoint(ids)
    assert Merge(reversed(rows[:3])).ids() == ids[2::-1]


def test_rows_that_are_alike_are_numbered_without_a_gap() -> None:
    """Whatever is between them; the Message-IDs of a running task depend on these names."""
    keys, row, other = RowKeys(), Row(name="Jane"), Row(name="Jim")
    first, *copies = (keys.claim(None, each) for _ in range(12) for each in (row, other))
    assert copies[1::2] == [f"{first}-{number}" for number in range(2, 13)]
    assert copies[2::2] == [f"{copies[0]}-{number}" for number in range(2, 13)]


def test_a_row_s_own_key_is_all_that_its_message_id_depends_on() -> None:
    """A typo may be fixed between two attempts."""
    mended = [{**row, "name": row["name"].upper()} for row in ROWS]
    assert Merge(row_key="{{ row.email }}").ids() == Merge(mended, row_key="{{ row.email }}").ids()
    assert Merge().ids() != Merge(mended).ids()


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(max_size=4)
dicts = st.dictionaries(st.text(max_size=4), values | st.lists(values, max_size=2), max_size=3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(dicts, max_size=6))
def test_the_keys_of_any_rows_are_different_and_the_same_the_next_time(rows: list[dict[str, Any]]) -> None:
    """Whatever the order of the columns."""
    first, second = RowKeys(), RowKeys()
    keys = [first.claim(None, Row(row)) for row in rows]
    assert len(set(keys)) == len(keys)
    assert [second.claim(None, Row(reversed(row.items()))) for row in rows] == keys


def test_who_has_a_mail_that_an_interruption_leaves_in_flight_to_others_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first turn of this attempt reached one of them, the second one was interrupted."""
    rows = [{"email": "jane@corp.example; jim@corp.example; joan@corp.example", "name": "all"}]
    merge, ledger = Merge(rows), MergeLedger(Memory())
    merge.result._report = MergeReport(str(tmp_path / "report.jsonl"), try_number=1, to_path=Path)
    jane, jim, joan = ("jane@corp.example", "jim@corp.example", "joan@corp.example")

    def interrupt(requests: Iterator[Any], journal: LedgerJournal | None) -> Generator[Delivery, None, None]:
        assert journal is not None
        first = next(one for one in journal.admit(requests) if isinstance(one, SendRequest))
        journal.in_doubt[0] = SendRequest(
            0, first.mail, (jim,), (jane,), {joan: Reply(code=550, enhanced="5.1.1", text="no")}
        )
        raise TimeoutError("it took too long")
        yield

    error = send_rows(
        merge.mails, merge.result, ledger, send=interrupt, on_delivery=lambda *_: None, cancellation=CancellationToken()
    )
    assert error is not None
    assert "1 unknown" in str(error)
    ledger.end(RunState.UNFINISHED)
    (line,) = lines(tmp_path / "report.jsonl")
    assert (line["outcome"], line["accepted"], line["refused"]) == ("unknown", [jane], {joan: "550 5.1.1 no"})
    assert f"was in flight to {jim}. It was accepted for {jane}. It was refused for {joan}. " in line["error"]
    assert f"Look for its delivery to {jim} in the server's log" in caplog.text
