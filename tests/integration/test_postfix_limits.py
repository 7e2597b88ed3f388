"""Merges through a real Postfix that limits its clients' rates, or has them call again (postscreen)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar

import pytest

from demo.processes import LOOPBACK
from tests.integration.loopback_postfix import ANONYMOUS
from tests.integration.system_packages import skip_for_want_of, skip_unless_root
from tests.ledger.stores import Memory
from tests.operators.merges import merge
from tests.operators.tasks import context
from tests.torture.anonymous_postfix import AnonymousPostfix

pytestmark = pytest.mark.slow

ROWS = 20
_NO_EXCEPTIONS = "smtpd_client_event_limit_exceptions="


class LimitingPostfix(AnonymousPostfix):
    """A client may send five messages, or name five recipients, in four seconds; or has to come twice."""

    message_rate_port: int
    recipient_rate_port: int
    postscreen_port: int
    services: ClassVar = {
        "message_rate_port": (*ANONYMOUS, "smtpd_client_message_rate_limit=5", _NO_EXCEPTIONS),
        "recipient_rate_port": (*ANONYMOUS, "smtpd_client_recipient_rate_limit=5", _NO_EXCEPTIONS),
        "postscreen_port": (),
    }

    def _configure(self) -> None:
        super()._configure()
        with (self._etc / "main.cf").open("a") as settings:
            settings.write(
                "\nanvil_rate_time_unit = 4s\npostscreen_access_list =\npostscreen_greet_wait = 1s\n"
                "postscreen_tls_security_level = none\npostscreen_non_smtp_command_enable = yes\n"
            )

    def _services(self) -> list[str]:
        options = "".join(f"  -o {option}\n" for option in ANONYMOUS)
        return [
            *super()._services()[:-1],
            f"{LOOPBACK}:{self.postscreen_port} inet n - n - 1 postscreen\n",
            f"smtpd pass - - n - - smtpd\n{options}",
            "dnsblog unix - - n - 0 dnsblog\n",
        ]


@pytest.fixture(scope="module")
def postfix() -> Iterator[LimitingPostfix]:
    """One for all tests here."""
    if missing := LimitingPostfix.missing():
        skip_for_want_of(missing)
    skip_unless_root("Postfix")
    with LimitingPostfix() as server:
        yield server


@pytest.mark.parametrize(
    ("port", "logged"),
    [
        ("message_rate_port", "Message delivery request rate limit exceeded"),
        ("recipient_rate_port", "Recipient address rate limit exceeded"),
        ("postscreen_port", "450 4.3.2 Service currently unavailable"),
    ],
)
def test_a_merge_copes_with_what_postfix_does_to_its_clients(
    port: str, logged: str, postfix: LimitingPostfix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everyone has it once, and the server did refuse some for now."""
    address = {"host": LOOPBACK, "port": getattr(postfix, port)}
    connection = {"conn_type": "smtpcm", **address, "extra": {"ssl_mode": "none"}}
    monkeypatch.setenv("AIRFLOW_CONN_SMTPCM_DEFAULT", json.dumps(connection))
    postfix.clear()
    rows = [{"email": f"p{number}@corp.example", "name": str(number)} for number in range(ROWS)]
    sending = merge(rows=rows, retry_for=60, connections=2)
    counts = sending.execute(context() | {"task_state_store": Memory()})["counts"]
    assert counts["accepted"] == ROWS
    assert len(postfix.settled(ROWS)) == ROWS
    assert logged in postfix.log()
