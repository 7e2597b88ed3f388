"""The signed mails and the invitation of the pages, as other programs read them after they were sent."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_smtpcm.testing import Relay
from tests.documents.identities import SIGNER, make_openpgp_identity, make_smime_identity
from tests.documents.pages import blocks_in

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DAG

pytestmark = pytest.mark.slow


@pytest.fixture
def send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_dag: Callable[[DAG], DagRun]
) -> Iterator[Callable[[str], bytes]]:
    """Runs the DAG of a page, and gives what arrived."""

    def run(title: str) -> bytes:
        (block,) = [one for one in blocks_in("python") if one.title == title]
        names: dict[str, Any] = {"__name__": "page"}
        exec(compile(block.code.replace("/srv/", f"{tmp_path}/"), str(block), "exec"), names)  # noqa: S102
        assert str(run_dag(names["dag"]).state) == "success"
        (received,) = relay.messages
        assert received.recipients == ("anna@corp.example",)
        assert received.mail_from == SIGNER
        return received.content

    with Relay(ssl_mode="none") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(relay.airflow_connection()))
        yield run


def test_openssl_verifies_the_smime_signature(send: Callable[[str], bytes], tmp_path: Path) -> None:
    """And refuses it once an octet is changed."""
    make_smime_identity(tmp_path / "etl.pem")
    content = send("dags/smime.py")
    verify = ["openssl", "smime", "-verify", "-in", str(tmp_path / "mail.eml"), "-CAfile", str(tmp_path / "etl.pem")]
    (tmp_path / "mail.eml").write_bytes(content)
    verified = subprocess.run(verify, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stderr
    assert b"1,204 orders." in verified.stdout
    (tmp_path / "mail.eml").write_bytes(content.replace(b"1,204", b"9,204"))
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0


def test_gpg_verifies_the_openpgp_signature(
    send: Callable[[str], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the part as it is between the boundaries."""
    make_openpgp_identity(tmp_path / "gnupg", monkeypatch)
    message = message_from_bytes(send("dags/openpgp.py"), policy=policy.default)
    content = message.as_bytes(policy=policy.SMTP)
    assert message["Message-ID"]
    part = re.search(rb"--=_signed\r\n(.*?)\r\n--=_signed\r\n", content, re.DOTALL)
    assert part is not None
    _, signature = message.iter_parts()
    (tmp_path / "part").write_bytes(part[1])
    (tmp_path / "part.asc").write_bytes(signature.get_payload(decode=True))
    verify = ["gpg", "--batch", "--verify", str(tmp_path / "part.asc"), str(tmp_path / "part")]
    verified = subprocess.run(verify, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stderr
    assert b"Good signature" in verified.stderr
    (tmp_path / "part").write_bytes(part[1].replace(b"1,204", b"9,204"))
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0


def test_the_invitation_is_a_request_that_calendars_read(send: Callable[[str], bytes]) -> None:
    """With its method in both places (RFC 6047 2.4), and lines as RFC 5545 3.1 wants them."""
    message = message_from_bytes(send("dags/invitation.py"), policy=policy.default)
    assert message.get_content_type() == "multipart/alternative"
    text, calendar = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert (calendar.get_content_type(), calendar.get_param("method")) == ("text/calendar", "REQUEST")
    octets = calendar.get_payload(decode=True)
    assert isinstance(octets, bytes)
    lines = octets.decode().replace("\r\n ", "").split("\r\n")
    properties = dict(line.rpartition(":")[::2] for line in lines if ":" in line)
    assert (properties["METHOD"], properties["DTSTART"], properties["DTEND"]) == (
        "REQUEST",
        "20300115T093000Z",
        "20300115T103000Z",
    )
    assert properties["ATTENDEE;ROLE=REQ-PARTICIPANT;RSVP=TRUE:mailto"] == "anna@corp.example"
    assert [line for line in lines if line.startswith(("BEGIN", "END"))] == [
        "BEGIN:VCALENDAR",
        "BEGIN:VEVENT",
        "END:VEVENT",
        "END:VCALENDAR",
    ]


def test_what_openssl_itself_writes_is_sent_as_it_is_or_refused(tmp_path: Path) -> None:
    """It mixes line ends; the remedy leaves its signature valid."""
    from airflow_provider_smtpcm.errors import MessageError
    from airflow_provider_smtpcm.mail import MimeMessage

    make_smime_identity(tmp_path / "etl.pem")
    (tmp_path / "body").write_text("Content-Type: text/plain\n\n1,204 orders.\n")
    sign = ["openssl", "smime", "-sign", "-in", tmp_path / "body", "-signer", tmp_path / "etl.pem", "-out"]
    sign += [tmp_path / "mail.eml", "-from", SIGNER, "-to", "anna@corp.example", "-subject", "Signed"]
    subprocess.run(sign, check=True, capture_output=True)
    with pytest.raises(MessageError, match="openssl"):
        MimeMessage(tmp_path / "mail.eml")
    subprocess.run(["sed", "-i", r"s/\r$//", tmp_path / "mail.eml"], check=True)
    message = MimeMessage(tmp_path / "mail.eml").complete(envelope_from=None, make_message_id=lambda _: "<1@x>")
    (tmp_path / "sent.eml").write_bytes(b"".join(message.render()))
    verify = ["openssl", "smime", "-verify", "-in", tmp_path / "sent.eml", "-CAfile", tmp_path / "etl.pem"]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
