"""Many mails: the needs of one do not affect the others."""

from __future__ import annotations

import ssl

import pytest

from tests.smtp.connection_pool.batches import NO_FROM, letter, outcomes, send, send_through_a_strait
from tests.smtp.server import MESSAGE, STORE_AND_HANG_UP, Server


def test_a_mail_that_the_server_cannot_take_is_nothing_to_the_others() -> None:
    """Too large, or an address that needs SMTPUTF8: each is reported before any of it is sent."""
    batch = [letter(0), letter(1, size=90_000), letter(2, "jürgen@corp.example"), NO_FROM, letter(4)]
    with Server(offers=("PIPELINING", "SIZE 100000")) as server:
        found = list(send(server.manager(), batch))
    assert outcomes(found) == ["accepted", "not_sent", "not_sent", "not_sent", "accepted"]
    errors = {delivery.index: str(delivery.error) for delivery in found if delivery.error}
    assert "100,000" in errors[1]
    assert "SMTPUTF8" in errors[2]
    assert len([line for line in server.commands if line.startswith("MAIL")]) == 2


def test_an_address_outside_ascii_is_announced_for_its_mail_alone() -> None:
    """RFC 6531 3.4."""
    with Server(offers=("PIPELINING", "SMTPUTF8")) as server:
        found = list(send(server.manager(), [letter(0), letter(1, "jürgen@corp.example"), letter(2)]))
    assert outcomes(found) == ["accepted"] * 3
    assert server.copies("<1@corp.example>") == ["jürgen@corp.example"]
    assert ["SMTPUTF8" in line for line in server.commands if line.startswith("MAIL")] == [False, True, False]


@pytest.mark.parametrize("pipelining", [True, False])
def test_more_recipients_than_the_server_takes_get_it_in_turns(pipelining: bool) -> None:
    """RFC 5321 4.5.3.1.10; each once, and the mail has one delivery."""
    asked = 0

    def at_most_seven(about: str) -> str | None:
        nonlocal asked
        asked = 0 if about.startswith("MAIL") else asked + about.startswith("RCPT")
        return "452 4.5.3 too many recipients" if about.startswith("RCPT") and asked > 7 else None

    everybody = [f"r{number}@corp.example" for number in range(40)]
    with Server(at_most_seven, offers=("PIPELINING",) if pipelining else ()) as server:
        found = list(send(server.manager(), [letter(0, *everybody), letter(1)]))
    assert outcomes(found) == ["accepted", "accepted"]
    assert sorted(server.copies("<0@corp.example>")) == sorted(everybody)
    assert len(server.stored) == 6 + 1
    assert len({stored.message for stored in server.stored if stored.message_id == "<0@corp.example>"}) == 1


@pytest.mark.parametrize("encrypted", [False, True])
def test_hundreds_of_recipients_and_long_answers_do_not_lock_both_sides_up(
    encrypted: bool, tls: tuple[ssl.SSLContext, str]
) -> None:
    """A server that answers each command at length before it reads the next one fills the buffers both ways."""
    everybody = [f"recipient-number-{number}@corp.example" for number in range(500)]
    long = "\r\n".join(["250-2.1.5 " + "so be it " * 50] * 2 + ["250 2.1.5 ok"])
    decide = {"RCPT": long}.get
    with Server(
        lambda about: decide(about[:4]), at_once=256, tls=tls[0] if encrypted else None, offers=("PIPELINING",)
    ) as server:
        how = {"ssl_mode": "implicit", "ca_certificate": tls[1]} if encrypted else {}
        manager = server.manager(timeout=60, **how)
        found = list(send_through_a_strait(manager, [letter(0, *everybody), letter(1, *everybody)]))
    assert outcomes(found) == ["accepted", "accepted"]
    assert sorted(server.copies("<1@corp.example>")) == sorted(everybody)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_message_that_is_out_is_known_to_be_out_while_the_next_envelope_is_not(
    encrypted: bool, tls: tuple[ssl.SSLContext, str]
) -> None:
    """The server has the final dot when the line breaks, in the middle of what was to be sent in one piece with it."""
    everybody = [f"recipient-number-{number}@corp.example" for number in range(3000)]

    def hang_up_once(about: str) -> str | None:
        return STORE_AND_HANG_UP if about == MESSAGE and not server.stored else None

    with Server(hang_up_once, at_once=256, tls=tls[0] if encrypted else None) as server:
        how = {"ssl_mode": "implicit", "ca_certificate": tls[1]} if encrypted else {}
        batch = [letter(0, text="x\n" * 20_000), letter(1, *everybody)]
        found = list(send_through_a_strait(server.manager(**how), batch))
    assert outcomes(found) == ["unknown", "accepted"]
    assert len(server.copies("<0@corp.example>")) == 2


@pytest.mark.parametrize("connections", [1, 3])
def test_many_mails_go_over_an_encrypted_line(connections: int, tls: tuple[ssl.SSLContext, str]) -> None:
    """Small ones, and files in blocks; what TLS holds back, `poll` does not show."""
    batch = [letter(number, size=(0, 10_000, 400_000)[number % 3]) for number in range(12)]
    with Server(tls=tls[0], per_connection=5) as server:
        manager = server.manager(ssl_mode="implicit", ca_certificate=tls[1])
        found = list(send(manager, batch, connections=connections))
    assert outcomes(found) == ["accepted"] * 12
    assert sorted(len(stored.message) > 400_000 for stored in server.stored) == [False] * 8 + [True] * 4
