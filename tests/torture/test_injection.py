"""10,000 hostile mails: each is refused as it is made, or every reader sees one mail with exactly what was meant.

Every reader: a server that takes any line end for the end of a message, an octet reader of this folder's own, Python's
`email`, and Postfix. What was meant is known from the generator, not from the mail that was made of it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.render import render
from airflow_provider_smtpcm.smtp import Outcome
from tests.smtp.server import Server
from tests.torture.anonymous_postfix import AnonymousPostfix
from tests.torture.careless_server import CarelessServer, Taken
from tests.torture.hooks import hook_for
from tests.torture.hostile import BREAKS, FORBIDDEN, INJECTIONS, SMUGGLING, Hostile, hostile_mails
from tests.torture.intended import as_meant, as_read_by_python, contents_as_meant, envelope_as_meant, fields_as_meant
from tests.torture.octets import decoded, leaves, unstuffed
from tests.torture.tally import SEED, TALLY

MAILS = 10_000
INTO_POSTFIX = 400
AS_THEY_ARE = 1_000
# Header fields that Postfix writes, and none of ours.
OF_POSTFIX = ("Return-Path", "X-Original-To", "Delivered-To", "Received")
TOPIC = "hostile mails"


@dataclass(frozen=True, slots=True)
class Made:
    """What became of the hostile mails when they were made."""

    #: By number: what was meant, and the mail.
    mails: dict[int, tuple[Hostile, Mail]]
    #: What was refused, and why.
    refused: list[tuple[Hostile, MessageError]]


@pytest.fixture(scope="module")
def made() -> Made:
    """All of them; whatever is raised that is not a MessageError fails every test here."""
    made = Made({}, [])
    for hostile in hostile_mails(MAILS, SEED):
        try:
            made.mails[hostile.number] = hostile, hostile.make()
        except MessageError as error:
            made.refused.append((hostile, error))
    TALLY.add(TOPIC, {"inputs tried": MAILS, "refused": len(made.refused)})
    return made


@pytest.fixture(scope="module")
def taken(made: Made) -> dict[str, list[Taken]]:
    """What the careless server took, by Message-ID; that it took it was always the answer."""
    with CarelessServer() as server:
        mails = (mail for _, mail in made.mails.values())
        sending = hook_for(server.port).send_many(mails, connections=3)
        outcomes = Counter(delivery.outcome for delivery in sending)
    assert outcomes == {Outcome.ACCEPTED: len(made.mails)}
    assert server.odd == []
    by_id: dict[str, list[Taken]] = defaultdict(list)
    for one in server.taken:
        by_id[leaves(unstuffed(one.wire))[0].one("Message-ID")].append(one)
    TALLY.add(TOPIC, {"sent": len(made.mails), **lost_and_doubled(made, by_id)})
    return by_id


def lost_and_doubled(made: Made, by_id: Mapping[str, list[Any]]) -> dict[str, int]:
    """How many mails are not there, and how many copies are there too many."""
    copies = [len(by_id.get(hostile.message_id, ())) for hostile, _ in made.mails.values()]
    return {"lost": copies.count(0), "doubled": sum(number - 1 for number in copies if number)}


def complaints(made: Made, check: Callable[[Hostile, Mail], None]) -> list[str]:
    """What is wrong, each with the mail that it is wrong with."""
    wrong: list[str] = []
    for hostile, mail in made.mails.values():
        try:
            check(hostile, mail)
        except Exception as error:  # noqa: BLE001 - whatever a reader stumbles over
            wrong.append(f"{error!r:.500} in {hostile!r:.2000}")
    return wrong[:5]


def test_what_no_header_can_hold_is_refused_and_never_mended(made: Made) -> None:
    """A line break that is dropped or encoded could become a line break again later."""
    assert [hostile for hostile, _ in made.mails.values() if hostile.is_beyond_writing] == []
    assert len(made.refused) > MAILS // 5


def test_a_refusal_is_readable_and_holds_nothing_of_the_attack(made: Made) -> None:
    """It is safe in a log: no further lines but the list of faults, no control character, and not too long."""
    for hostile, error in made.refused:
        text = str(error).replace("\n  - ", " ")
        assert not FORBIDDEN.search(text), hostile
        assert len(text) < 2000, hostile
        assert not error.retryable


@pytest.mark.parametrize("end", [end for end in (*BREAKS, *SMUGGLING, *INJECTIONS) if "\0" not in end])
def test_a_file_that_really_has_such_a_name_is_refused_too(end: str, tmp_path: Path) -> None:
    """Linux allows everything but a slash and NUL."""
    path = tmp_path / f"a{end}b.csv"
    path.write_bytes(b"x")
    with pytest.raises(MessageError, match=r"contains the (control character|lone surrogate)"):
        Mail(to="a@corp.example", attachments=[path])


@pytest.mark.parametrize(
    "fields",
    [
        {"to": '"' + '\\"' * 50_000},
        {"to": '"' * 100_001},
        {"to": "a <" * 30_000},
        {"to": "a@" + "ü." * 50_000},
        {"to": "a@" + "a." * 50_000},
        {"to": "a." * 50_000 + "@corp.example"},
        {"to": "a " * 50_000 + "<jane@corp.example>"},
        {"subject": "=?" * 50_000},
        {"headers": {"X-Report": " " * 99_999 + "x"}},
        {"headers": {"X-Report": "ü " * 50_000}},
        {"html": "cid: =" + " " * 100_000},
        {"html": "cid: url(" + " " * 100_000},
        {"html": "cid: " + "= " * 50_000},
        {"html": "cid: url(&#" + "0" * 100_000},
        {"text": ".\r\n" * 50_000},
        {"text": "=" * 100_000},
        {"text": "ü" * 100_000},
        {"message_id": "<" + "a." * 50_000 + "@corp.example>"},
    ],
    ids=lambda fields: f"{next(iter(fields))}-{next(iter(fields.values()))!s:.12}",
)
def test_a_long_text_takes_time_by_its_length_and_not_by_its_square(fields: dict[str, Any]) -> None:
    """A hundred thousand characters, in any form, are made and written in a moment."""
    whole = {"from_address": "etl@corp.example", "to": "a@corp.example", "message_id": "<1@corp.example>"} | fields
    began = time.process_time()
    try:
        render(Mail(**whole))
    except MessageError as error:
        assert len(str(error)) < 2000  # noqa: PT017 - it may also be taken
    assert time.process_time() - began < 1


def test_a_careless_server_sees_one_message_for_each_mail(made: Made, taken: dict[str, list[Taken]]) -> None:
    """Whatever end of line it believes in, it finds one end of each message; and no command that was not one."""
    assert lost_and_doubled(made, taken) == {"lost": 0, "doubled": 0}
    assert len(taken) == len(made.mails) > MAILS // 3


def test_envelope_and_octets_are_what_was_meant(made: Made, taken: dict[str, list[Taken]]) -> None:
    """One header with the fields that were meant, 7-bit lines that end in CRLF, and no part that was not added."""

    def check(hostile: Hostile, mail: Mail) -> None:
        (one,) = taken[hostile.message_id]
        envelope_as_meant(mail, one.sender, one.recipients)
        as_meant(hostile, mail, unstuffed(one.wire))

    assert complaints(made, check) == []


def test_python_reads_what_was_meant(made: Made, taken: dict[str, list[Taken]]) -> None:
    """By the policy that raises for every defect."""

    def check(hostile: Hostile, mail: Mail) -> None:
        (one,) = taken[hostile.message_id]
        as_read_by_python(hostile, mail, unstuffed(one.wire))

    assert complaints(made, check) == []


def test_files_that_go_as_they_are_stay_files(made: Made) -> None:
    """By BDAT (RFC 3030) a file may hold anything, including a predicted boundary and a final dot."""
    chosen = [pair for pair in made.mails.values() if pair[0].files or pair[0].images][:AS_THEY_ARE]
    with Server(offers=("PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME")) as server:
        sending = hook_for(server.port, binary_mime=True).send_many(mail for _, mail in chosen)
        outcomes = Counter(delivery.outcome for delivery in sending)
    assert outcomes == {Outcome.ACCEPTED: len(chosen)}
    assert len(server.stored) == len(chosen) > AS_THEY_ARE // 2
    for (hostile, mail), stored in zip(chosen, server.stored, strict=True):
        envelope_as_meant(mail, stored.sender, stored.recipients)
        as_meant(hostile, mail, stored.message)
    TALLY.add(f"{TOPIC} as they are", {"inputs tried": len(chosen), "sent": len(server.stored)})


@pytest.mark.slow
def test_postfix_stores_each_mail_once_for_each_recipient(made: Made, anonymous_postfix: AnonymousPostfix) -> None:
    """With one hook and four connections: no additional mail or recipient, and each has what was meant."""
    chosen = list(made.mails.values())[:: len(made.mails) // INTO_POSTFIX]
    hook = hook_for(anonymous_postfix.anonymous_port)
    deliveries = list(hook.send_many((mail for _, mail in chosen), connections=4))
    assert sorted(delivery.index for delivery in deliveries) == list(range(len(chosen)))
    for delivery in deliveries:
        asked = {address.address for address in chosen[delivery.index][1].recipients}
        assert {*delivery.accepted, *delivery.refused} == asked, delivery
    wanted = Counter((delivery.message_id, to.lower()) for delivery in deliveries for to in delivery.accepted)
    assert sum(bool(delivery.accepted) for delivery in deliveries) > len(chosen) * 0.9

    copies = [leaves(copy) for copy in anonymous_postfix.settled(len(wanted))]
    found = Counter((whole.one("Message-ID"), whole.one("X-Original-To").lower()) for whole, _ in copies)
    missed_or_more = {"lost": len(wanted - found), "doubled": len(copies) - len(found)}
    TALLY.add(f"{TOPIC} into Postfix", {"inputs tried": len(chosen), "copies stored": len(copies), **missed_or_more})
    assert found == dict.fromkeys(wanted, 1)
    meant = {hostile.message_id: hostile for hostile, _ in chosen}
    for whole, parts in copies:
        hostile = meant[whole.one("Message-ID")]
        assert decoded(whole.one("Subject")) == hostile.subject.strip(" ")
        fields_as_meant(hostile, whole, besides=OF_POSTFIX)
        contents_as_meant(hostile, parts)
