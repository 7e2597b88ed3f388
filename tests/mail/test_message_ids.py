"""Message-IDs: random ones are unique, stable ones are the same for every attempt."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.mail.headers import new_message_id, stable_message_id


def test_a_domain_that_is_none_is_refused() -> None:
    """The domain becomes part of a header."""
    for domain in ("", "corp.example>\r\nBcc: x", "a b"):
        with pytest.raises(MessageError):
            new_message_id(domain)
        with pytest.raises(MessageError):
            stable_message_id(domain, "dag")


def test_a_stable_message_id_needs_parts() -> None:
    """It is an error of the program, not of a mail."""
    with pytest.raises(ValueError, match="parts"):
        stable_message_id("corp.example")


def test_parts_are_joined_without_ambiguity() -> None:
    """("a", "bc") is not ("ab", "c"), and neither is "a1:b" what it looks like."""
    parts = [("a", "bc"), ("ab", "c"), ("abc",), ("", "abc"), ("abc", ""), ("1:a", "bc"), ("a2:bc",), ("bc", "a")]

    assert len({stable_message_id("corp.example", *part) for part in parts}) == len(parts)


def test_every_attempt_of_the_same_mail_has_the_same_one() -> None:
    """The value is fixed: an earlier version of the package may have sent the first attempt."""
    first = stable_message_id("corp.example", "dag", "scheduled__2024-01-31", "send", -1)

    assert first == stable_message_id("corp.example", "dag", "scheduled__2024-01-31", "send", -1)
    assert first == "<10677e60a675801414f0d5a8928a558b@corp.example>"


def test_a_random_one_is_never_seen_again() -> None:
    """128 bits of the system's randomness."""
    assert len({new_message_id("corp.example") for _ in range(100)}) == 100


@pytest.mark.parametrize("domain", ["corp.example", "bücher.example", "[10.0.0.1]", "[IPv6:2001:db8::1]", "my_host"])
def test_a_mail_takes_what_is_made(domain: str) -> None:
    """It is valid for every domain that a sender can have."""
    for message_id in (new_message_id(domain), stable_message_id(domain, "x\ud800")):
        assert Mail(to="jane@corp.example", message_id=message_id).message_id == message_id
        assert message_id.isascii()
