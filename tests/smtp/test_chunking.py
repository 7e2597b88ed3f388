"""BDAT and BINARYMIME (RFC 3030): unencoded files, and messages that are refused or change while they are sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import MessageError, OutcomeUnknownError, Phase
from airflow_provider_smtpcm.mail import Attachment, Mail
from airflow_provider_smtpcm.smtp import Delivery, Outcome
from airflow_provider_smtpcm.smtp.session import Session
from tests.smtp.connection_pool.batches import send_many
from tests.smtp.dialogue import Dialogues
from tests.smtp.files import Changing
from tests.smtp.server import Server

ManagerFor = Callable[..., SmtpConnectionManager]
HELLO = """S: 220 mail.corp.example ESMTP\nC: EHLO *\nS: 250-mail.corp.example\nS: 250-SIZE 0\nS: 250-PIPELINING
S: 250-8BITMIME\nS: 250-BINARYMIME\nS: 250 CHUNKING"""
ENVELOPE = """C: MAIL FROM:<etl@corp.example> SIZE=* BODY=BINARYMIME\nC: RCPT TO:<a@corp.example>
C: RCPT TO:<b@corp.example>\nQUIET"""
TAKEN = "S: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 250 2.1.5 ok"
QUEUED = "S: 250 2.6.0 queued"
BYE = "C: QUIT\nS: 221 bye"
BOTH = ("a@corp.example", "b@corp.example")
OFFERS = ("PIPELINING", "SIZE 0", "8BITMIME", "BINARYMIME", "CHUNKING")
# What base64 is for: every octet, lines of any length and with any end, and what DATA would take for its own end.
NASTY = bytes(range(256)) + b"\r\n.\r\n..\n.\r\r\n" + b"x" * 2000 + b"\r\n--=_smtpcm_\r\n."


def letter(number: int = 0, *files: object) -> Mail:
    """A mail to two people with such files."""
    attachments = [
        Attachment(content=file, name="report.bin") if isinstance(file, bytes) else Attachment(file, name="report.bin")  # type: ignore[arg-type]
        for file in files or (NASTY,)
    ]
    return Mail(
        from_address="etl@corp.example", to=BOTH, attachments=attachments, message_id=f"<{number}@corp.example>"
    )


def send(manager: SmtpConnectionManager, mails: Iterable[Mail]) -> list[Delivery]:
    """The deliveries of these mails over one connection at a time, in order."""
    found = list(send_many(mails, manager, lambda: Session(manager)))
    assert sorted(delivery.index for delivery in found) == list(range(len(found)))
    return sorted(found, key=lambda delivery: delivery.index)


def deliver(manager_for: ManagerFor, mails: Iterable[Mail], *scripts: str, **settings: object) -> list[Delivery]:
    """The deliveries of these mails through scripted servers."""
    with Dialogues(*scripts) as dialogues:
        return send(manager_for(dialogues, binary_mime=True, **settings), mails)


def outcomes(deliveries: list[Delivery]) -> list[str]:
    """The outcome of each mail."""
    return [str(delivery.outcome) for delivery in deliveries]


def test_nobody_left_to_take_it_leaves_no_bdat(manager_for: ManagerFor) -> None:
    """Unlike DATA, which has been sent by then: RFC 3030 leaves nothing to wait for. The next mail begins with RSET."""
    steps = f"{HELLO}\n{ENVELOPE}\nS: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nC: RSET\n{ENVELOPE}\nS: 250 ok"
    steps += f"\n{TAKEN}\nC: BDAT * LAST\nCHUNK\n{QUEUED}\n{BYE}"
    assert outcomes(deliver(manager_for, [letter(0), letter(1)], steps)) == ["refused", "accepted"]


def test_a_refused_sender_leaves_no_bdat_either(manager_for: ManagerFor) -> None:
    """Whatever the server says to the recipients."""
    steps = f"{HELLO}\n{ENVELOPE}\nS: 550 5.7.60 not yours\nS: 250 ok\nS: 503 no\n{BYE}"
    (delivery,) = deliver(manager_for, [letter()], steps)
    assert delivery.outcome is Outcome.REFUSED
    assert "the sender" in str(delivery.error)


@pytest.mark.parametrize("refusal", ["552 5.3.4 too big", "421 4.3.2 closing", "503 5.5.1 out of order"])
@pytest.mark.parametrize("then", ["HANG", "RESET", "SEND b''"])
@pytest.mark.parametrize("after", ["", "PART"])
def test_a_refusal_before_the_last_octet_closes_the_line(
    refusal: str, then: str, after: str, manager_for: ManagerFor
) -> None:
    """The announced octets cannot be taken back (RFC 3030 2), and sending a gigabyte for nothing would be a waste."""
    steps = f"{HELLO}\n{ENVELOPE}\n{TAKEN}\nC: BDAT * LAST\n{after}\nS: {refusal}\n{then}"
    again = f"{HELLO}\n{ENVELOPE}\n{TAKEN}\nC: BDAT * LAST\nCHUNK\n{QUEUED}\n{BYE}"
    first, second = deliver(manager_for, [letter(0, b"x" * 20_000_000), letter(1)], steps, again)
    assert second.outcome is Outcome.ACCEPTED
    # A reset may overtake the reply.
    assert first.outcome in ((Outcome.REFUSED,) if then != "RESET" else (Outcome.REFUSED, Outcome.NOT_SENT))
    if first.outcome is Outcome.REFUSED:
        assert refusal in str(first.error)
        assert first.error is not None
        assert first.error.phase is Phase.DATA


def test_a_yes_before_the_last_octet_is_not_believed(manager_for: ManagerFor) -> None:
    """It answers something else."""
    steps = f"{HELLO}\n{ENVELOPE}\n{TAKEN}\nC: BDAT * LAST\nPART\n{QUEUED}\nHANG"
    (delivery,) = deliver(manager_for, [letter(0, b"x" * 20_000_000)], steps)
    assert delivery.outcome is Outcome.NOT_SENT
    assert "before it had the whole message" in str(delivery.error)


@pytest.mark.parametrize("code", [451, 554])
def test_a_refusal_of_the_whole_message_leaves_the_session_usable(code: int, manager_for: ManagerFor) -> None:
    """As after DATA; the next envelope was already sent."""
    steps = f"{HELLO}\n{ENVELOPE}\n{TAKEN}\nC: BDAT * LAST\nCHUNK\n{ENVELOPE}\nS: {code} no\n{TAKEN}"
    steps += f"\nC: BDAT * LAST\nCHUNK\n{QUEUED}\n{BYE}"
    first, second = deliver(manager_for, [letter(0), letter(1)], steps)
    assert (first.outcome, second.outcome) == (Outcome.REFUSED, Outcome.ACCEPTED)
    assert first.error is not None
    assert first.error.retryable is (code == 451)


@pytest.mark.parametrize(
    ("fault", "remote"), [("HANG", True), ("RESET", True), ("RESET", False), ("SEND b''", False), ("S: nonsense", True)]
)
def test_no_answer_to_the_last_octet_is_unknown(
    fault: str, remote: bool, manager_for: ManagerFor, tmp_path: Path
) -> None:
    """In time, wherever the file is; the mail whose envelope was already sent goes through another session."""
    file = Changing(tmp_path / "report.bin", 100_000, "same", remote=remote)
    steps = f"{HELLO}\n{ENVELOPE}\n{TAKEN}\nC: BDAT * LAST\nCHUNK\n{fault}"
    (delivery,) = deliver(manager_for, [letter(0, file.path)], steps, final_reply_timeout=1)
    assert delivery.outcome is Outcome.UNKNOWN
    assert isinstance(delivery.error, OutcomeUnknownError)


@pytest.mark.parametrize("how", ["shorter", "longer", "gone", "broken", "overwritten", "replaced"])
@pytest.mark.parametrize("remote", [True, False])
def test_a_file_that_changes_on_its_way_is_never_half_a_mail(how: str, remote: bool, tmp_path: Path) -> None:
    """Fewer octets are sent than were announced, and the socket is closed."""
    file = Changing(tmp_path / "report.bin", 300_000, how, remote=remote)
    with Server(offers=OFFERS) as server:
        found = send(server.manager(binary_mime=True), file.watch([letter(0), letter(1, file.path), letter(2)]))
    assert outcomes(found) == ["accepted", "not_sent", "accepted"]
    assert isinstance(found[1].error, MessageError)
    assert [stored.message_id for stored in server.stored] == ["<0@corp.example>", "<2@corp.example>"]


def test_recipients_too_many_get_the_same_octets_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a further transaction, with the same Date too, although time has passed."""
    monkeypatch.setattr("airflow_provider_smtpcm.mail.render.time", itertools.count(1_700_000_000).__next__)
    asked = 0

    def at_most_one(about: str) -> str | None:
        nonlocal asked
        asked = 0 if about.startswith("MAIL") else asked + about.startswith("RCPT")
        return "452 4.5.3 too many recipients" if about.startswith("RCPT") and asked > 1 else None

    with Server(at_most_one, offers=OFFERS) as server:
        (delivery,) = send(server.manager(binary_mime=True), [letter()])
    assert (delivery.outcome, delivery.accepted) == (Outcome.ACCEPTED, BOTH)
    assert server.stored[0].message == server.stored[1].message


@pytest.mark.parametrize(
    ("asked", "offers", "files"),
    [
        (False, OFFERS, (NASTY,)),
        (True, ("PIPELINING", "CHUNKING", "8BITMIME"), (NASTY,)),
        (True, ("PIPELINING", "BINARYMIME"), (NASTY,)),
        (True, OFFERS, ()),
    ],
)
def test_without_being_asked_offered_and_of_use_it_is_data_and_base64(
    asked: bool, offers: tuple[str, ...], files: tuple[bytes, ...]
) -> None:
    """RFC 3030 3 needs both extensions, and a mail without files has nothing to gain."""
    mail = letter() if files else Mail(from_address="etl@corp.example", to=BOTH, text="All is well.")
    with Server(offers=offers) as server:
        assert outcomes(send(server.manager(binary_mime=asked), [mail])) == ["accepted"]
    assert "DATA" in server.commands
    assert not any("BODY" in line for line in server.commands)
    assert server.stored[0].message.isascii()


@pytest.mark.parametrize("pipelining", [True, False])
def test_files_travel_as_they_are(pipelining: bool) -> None:
    """Octet by octet, and no dot is doubled; both parameters of MAIL are there."""
    with Server(offers=OFFERS[not pipelining :]) as server:
        found = send(server.manager(binary_mime=True), [letter(0, NASTY, b"", NASTY), letter(1)])
    assert outcomes(found) == ["accepted", "accepted"]
    first = server.stored[0].message
    assert first.count(b"\r\n\r\n" + NASTY + b"\r\n--") == 2
    assert first.count(b"\r\nContent-Transfer-Encoding: binary\r\n") == 1 + 3
    assert f"MAIL FROM:<etl@corp.example> SIZE={len(first)} BODY=BINARYMIME" in server.commands
    assert f"BDAT {len(first)} LAST" in server.commands
    assert "DATA" not in server.commands


@pytest.mark.parametrize("remote", [True, False])
def test_a_file_of_any_number_of_blocks_arrives(remote: bool, tmp_path: Path) -> None:
    """Even if the last octet is sent at the end of a turn, or before the end of the file is checked."""
    sizes = [blocks * 43_776 for blocks in range(20)] + [1_200_000]
    files = [
        Changing(tmp_path / f"{number}.bin", size, "same", remote=remote).path for number, size in enumerate(sizes)
    ]
    with Server(offers=OFFERS) as server:
        found = send(server.manager(binary_mime=True), [letter(10 + at, file) for at, file in enumerate(files)])
    assert outcomes(found) == ["accepted"] * len(sizes)
    lengths = {stored.message_id: len(stored.message) for stored in server.stored}
    empty = lengths["<10@corp.example>"]
    assert [lengths[f"<{10 + at}@corp.example>"] - empty for at in range(len(sizes))] == sizes
