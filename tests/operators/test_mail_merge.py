"""Many mails by one task, on real connections: who gets which mail, and which rows get none."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.mail import Address, Attachment
from airflow_provider_smtpcm.operators._task import AirflowException, AirflowFailException
from airflow_provider_smtpcm.operators.mail_merge import MailMergeOperator
from airflow_provider_smtpcm.testing import Relay
from tests.operators.merges import ROWS, merge, rows_beside, subjects
from tests.operators.tasks import context

# --- What cannot be.


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("on_error", "ignore"),
        ("on_refused", "continue"),
        ("on_unknown", "resend"),
        ("connections", 0),
        ("connections", True),
        ("connections", "4"),
        ("connections", 1000),
        ("rate_limit", 0),
        ("rate_limit", "30"),
        ("rate_limit", float("nan")),
        ("delimiter", ""),
        ("delimiter", ";;"),
        ("delimiter", '"'),
    ],
)
def test_an_option_that_makes_no_sense_fails_when_the_dag_is_parsed(option: str, value: object) -> None:
    """Long before the task runs."""
    with pytest.raises(ValueError, match=option):
        merge(**{option: value})


def test_a_misspelt_argument_is_not_swallowed_and_rows_are_needed() -> None:
    """Airflow's own rules, kept."""
    with pytest.raises(TypeError, match="subjekt"):
        merge(subjekt="x")
    with pytest.raises(TypeError, match="rows"):
        MailMergeOperator(task_id="send", to="{{ row.email }}")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"rows": None}, "'rows' is None"),
        ({"rows": "/nowhere/rows.csv"}, "/nowhere/rows.csv"),
        ({"rows": 5}, "a list or a path"),
        ({"subject": "{{ row.name "}, "not a valid template"),
        ({"subject": "{{ nmae }}"}, "'nmae' is undefined"),
        ({"to": "{{ '' }}"}, "no recipient"),
        ({"to": ["{{ 'nobody' }}", "{{ row.email }}"]}, "nobody"),
        ({"from_address": None}, "'From address' on the connection"),
        ({"text": "x", "text_file": "{{ 'body.txt' }}"}, "both set"),
        ({"html_file": "nowhere.html"}, "nowhere.html"),
        ({"attachments": "/nowhere/terms.pdf"}, "/nowhere/terms.pdf"),
        ({"attachments": ["/nowhere/terms.pdf", "{{ row.file }}"]}, "/nowhere/terms.pdf"),
        ({"report_file": "/proc/report.jsonl"}, "/proc/report.jsonl"),
        ({"smtpcm_conn_id": "no_such_connection"}, "no_such_connection"),
    ],
)
def test_what_is_wrong_for_every_row_fails_the_task_before_anything_is_sent(
    fields: dict[str, Any], complaint: str, relay: Relay
) -> None:
    """Even if single rows may fail."""
    with pytest.raises(AirflowException, match=f"(?i){complaint}") as caught:
        merge(**{"on_error": "continue", **fields}).execute(context())
    if complaint != "no_such_connection":
        assert isinstance(caught.value, AirflowFailException)
    assert relay.messages == []


# --- Single rows that fail.


def test_a_row_without_its_column_fails_and_all_others_are_sent(relay: Relay) -> None:
    """Then the task fails, for good, and names the row and the column."""
    rows = rows_beside({"email": "a@corp.example"}, {"email": "nobody", "name": "x"})
    surroundings = context()
    with pytest.raises(AirflowFailException) as caught:
        merge(rows=rows).execute(surroundings)
    assert "3 accepted, 2 failed of 5 rows" in str(caught.value)
    assert "the first is row 2: subject: the row has no column 'name'; its columns are 'email'" in str(caught.value)
    assert subjects(relay) == ["For 0", "For 1", "For 2"]
    result = surroundings["ti"].pushed["return_value"]
    assert [(entry["row"], entry["key"] is None) for entry in result["failed"]] == [(2, False), (4, False)]
    assert "To: there is no '@' in 'nobody'" in result["failed"][1]["reason"]


def test_such_a_row_may_be_a_warning(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    """If the author chose that; the XCom says which."""
    result: Any = merge(rows=rows_beside({"email": "a@corp.example"}), on_error="continue").execute(context())
    assert (result["counts"]["accepted"], result["counts"]["failed"], result["failed"][0]["row"]) == (2, 1, 2)
    assert any("1 row could not be turned into a mail" in record.getMessage() for record in caplog.records)
    assert len(relay.messages) == 2


def test_rows_that_all_fail_are_no_success_whatever_somebody_decided(relay: Relay) -> None:
    """A name that is misspelled in the template affects all rows."""
    with pytest.raises(AirflowFailException, match=r"(?s)3 failed of 3 rows.*'emial'"):
        merge(to="{{ row.emial }}", on_error="continue").execute(context())
    assert relay.messages == []


@pytest.mark.parametrize("on_error", ["fail", "continue"])
def test_a_file_that_is_missing_fails_its_own_row_alone(on_error: str, relay: Relay, tmp_path: Path) -> None:
    """It is a row of which no mail can be made."""
    for name in ("Jane", "Joan"):
        (tmp_path / f"{name}.txt").write_text(f"For {name} alone")
    (tmp_path / "terms.pdf").write_bytes(b"%PDF")
    surroundings = context()
    send = merge(attachments=f"{tmp_path}/terms.pdf|{tmp_path}/{{{{ row.name }}}}.txt", on_error=on_error)
    if on_error == "fail":
        with pytest.raises(AirflowFailException, match=r"row 2: The attachment '.*Jim\.txt' cannot be read"):
            send.execute(surroundings)
        result = surroundings["ti"].pushed["return_value"]
    else:
        result = send.execute(surroundings)
    assert (result["counts"]["accepted"], result["counts"]["failed"]) == (2, 1)
    files = {
        str(received.message["Subject"]): [part.get_filename() for part in received.message.iter_attachments()]
        for received in relay.messages
    }
    assert files == {"For Jane": ["terms.pdf", "Jane.txt"], "For Joan": ["terms.pdf", "Joan.txt"]}


def test_a_message_that_is_too_large_for_the_server_fails_its_own_row_alone(
    set_connection: Callable[..., None],
) -> None:
    """Which is known once the server has said how much it takes."""
    with Relay(ssl_mode="none", size_limit=20_000) as relay:
        set_connection("smtpcm_default", relay.airflow_connection())
        rows = rows_beside({"email": "a@corp.example", "name": "x", "text": "long " * 10_000})
        result: Any = merge(rows=rows, text="{{ row.text | default('') }}", on_error="continue").execute(context())
        assert len(relay.messages) == 2
    assert "20,000 at most" in result["failed"][0]["reason"]


def test_rows_with_the_same_key_get_one_mail(relay: Relay) -> None:
    """The second is a row that fails; without a key each is a mail of its own."""
    twice = [*ROWS, ROWS[0]]
    result: Any = merge(rows=twice, row_key="{{ row.email }}", on_error="continue").execute(context())
    assert (result["counts"]["accepted"], result["failed"][0]["row"]) == (3, 4)
    relay.clear()
    merge(rows=twice).execute(context())
    assert len({received.message["Message-ID"] for received in relay.messages}) == 4


# --- Mails.


def body_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).strip()


def test_every_field_is_its_row_s(relay: Relay, tmp_path: Path) -> None:
    """The content of a row is data, and escaped in HTML."""
    (tmp_path / "logo.png").write_bytes(b"\x89PNG")
    (tmp_path / "a.csv").write_text("a")
    (tmp_path / "b.csv").write_text("b")
    row = {
        "email": "Jane Doe <jane@corp.example>",
        "name": "{{ 7 * 7 }} <b>",
        "files": f"{tmp_path}/a.csv | {tmp_path}/b.csv",
        "logo": str(tmp_path / "logo.png"),
        "urgency": "High",
        "boss": None,
        "id": 4711,
    }
    merge(
        rows=[row],
        from_address=Address(display_name="Reports", local_part="etl", domain="corp.example"),
        to=["{{ row.email }}", "second@corp.example"],
        cc="{{ row.boss }}",
        bcc="audit+{{ row.id }}@corp.example",
        reply_to="{{ row.email }}",
        subject="{{ row_number }}: {{ row.name }} ({{ ti.run_id }})",
        text="{{ row.name }}",
        html="<p>{{ row.name }}</p><img src='cid:logo'>",
        attachments="{{ row.files }}",
        inline_images={"logo": "{{ row.logo }}"},
        priority="{{ row.urgency }}",
        headers={"X-Id": "{{ row.id }}"},
    ).execute(context())
    (received,) = relay.messages
    message = received.message
    assert received.recipients == ("jane@corp.example", "second@corp.example", "audit+4711@corp.example")
    assert (message["From"], message["Reply-To"]) == (
        "Reports <etl@corp.example>",
        "Jane Doe <jane@corp.example>",
    )
    assert (message["Cc"], message["Bcc"], message["X-Id"], message["Importance"]) == (None, None, "4711", "high")
    assert message["Subject"] == "1: {{ 7 * 7 }} <b> (r)"
    assert body_of(message, "plain") == "{{ 7 * 7 }} <b>"
    assert "<p>{{ 7 * 7 }} &lt;b&gt;</p>" in body_of(message, "html")
    assert [part.get_filename() for part in message.walk() if part.get_filename()] == ["logo.png", "a.csv", "b.csv"]


def test_an_attachment_that_all_share_goes_with_each(relay: Relay) -> None:
    """Its octets too, over several connections."""
    shared = Attachment(content=bytes(range(256)) * 80, name="terms.bin")
    rows = [{"email": f"r{number}@corp.example", "name": f"{number}"} for number in range(60)]
    result: Any = merge(rows=rows, attachments=[shared], connections=4).execute(context())
    assert result["counts"]["accepted"] == 60
    assert subjects(relay) == sorted(f"For {number}" for number in range(60))
    for received in relay.messages:
        (attachment,) = received.message.iter_attachments()
        assert attachment.get_content() == shared.content


def test_no_more_mails_a_minute_than_the_server_allows(relay: Relay) -> None:
    """Over all connections: six of them take five tenths of a second at 600 a minute."""
    began = time.monotonic()
    merge(rows=ROWS * 2, rate_limit=600, connections=3).execute(context())
    assert time.monotonic() - began >= 0.5
    assert len(relay.messages) == 6


def test_a_merge_without_rows_is_done_at_once(relay: Relay) -> None:
    """There is nothing to send, and no server is contacted."""
    result: Any = merge(rows=[]).execute(context())
    assert (result["counts"]["rows"], result["failed"], result["refused"]) == (0, [], [])


# --- What people's files are like.


def test_a_german_csv_file_without_a_delimiter_says_what_is_missing(relay: Relay, tmp_path: Path) -> None:
    """The header is one column, so that the row has none of the names."""
    path = tmp_path / "kunden.csv"
    path.write_text("email;name\njane@corp.example;Jane\n")
    with pytest.raises(AirflowFailException, match="Is the file separated by ';'\\? Set delimiter=';'"):
        merge(rows=str(path)).execute(context())
    assert relay.messages == []
    assert merge(rows=str(path), delimiter=";").execute(context())["counts"]["accepted"] == 1  # type: ignore[index]


def test_nobody_is_called_nan(relay: Relay) -> None:
    """Neither by a list of mappings, nor by JSON Lines."""
    merge(rows=[{"email": "a@corp.example", "name": math.nan}], text="Dear {{ row.name }},").execute(context())
    (received,) = relay.messages
    assert received.message["Subject"] == "For"
    assert received.message.get_content().strip() == "Dear ,"


def test_a_cell_with_an_address_on_each_line_is_a_list_where_it_is_the_whole_field(relay: Relay) -> None:
    """Anywhere else it stands for one address, and a header in it is an error."""
    rows = [{"email": "a@corp.example\nb@corp.example\n", "name": "x"}]
    merge(rows=rows).execute(context())
    assert relay.messages[0].recipients == ("a@corp.example", "b@corp.example")
    relay.clear()
    hostile = [{"email": "a@corp.example\nBcc: b@corp.example", "name": "x"}]
    for fields in (
        {"rows": rows, "to": ["{{ row.email }}"]},
        {"rows": rows, "to": "c@corp.example; {{ row.email }}"},
        {"rows": rows, "to": "c@corp.example\n{{ row.email }}"},
        {"rows": rows, "to": "{{ row.name }} <{{ row.email }}>"},
        {"rows": rows, "from_address": "{{ row.email }}"},
        {"rows": hostile},
        {"rows": hostile, "to": ["{{ row.email }}"]},
    ):
        with pytest.raises(AirflowFailException):
            merge(**fields).execute(context())
    assert relay.messages == []


def test_an_attachment_without_content_is_logged_once_for_each_file(
    relay: Relay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The program that should have written it may have failed."""
    for name in ("terms", "Jane", "Jim", "Joan"):
        (tmp_path / f"{name}.txt").write_text("x" if name == "Jim" else "")
    merge(attachments=f"{tmp_path}/terms.txt|{tmp_path}/{{{{ row.name }}}}.txt").execute(context())
    assert len(relay.messages) == 3
    said = [line for line in caplog.messages if "is empty (0 octets)" in line]
    assert sorted(Path(line.split("'")[1]).stem for line in said) == ["Jane", "Joan", "terms"]
