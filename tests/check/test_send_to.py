"""`check --send-to` sends a test mail and a sample alert over the checked session; a plain check sends nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from airflow_provider_smtpcm.cli import main
from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.testing import Relay
from demo.processes import free_port
from tests.check.checked import CheckIt, make_check

ME = "me@corp.example"
PASSWORD = "correct horse battery"
ALICE = {r"CORP\alice": PASSWORD}


@pytest.fixture
def check_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> CheckIt:
    """Check a connection manager."""
    return make_check(capsys, caplog)


def manager_of(relay: Relay, **changes: Any) -> SmtpConnectionManager:
    """Return the connection manager for a relay, with changes."""
    known = SmtpConnectionManager.from_airflow(type("Connection", (), relay.airflow_connection()))
    return dataclasses.replace(known, **changes)


def test_a_plain_check_sends_nothing(check_it: CheckIt) -> None:
    """And says so."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay))
        assert relay.messages == []
    assert "No mail is sent." in found.text
    assert not {"test mail", "sample alert"} & set(found.statuses)


def test_two_mails_arrive_and_the_page_says_what_they_are(check_it: CheckIt) -> None:
    """One is plain text that names the connection, the other looks like any alert."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay, from_address="Airflow <airflow@corp.example>"), send_to=ME)
        mail, alert = relay.messages
    assert found.report.exit_status == 0
    assert f"A test mail and a sample alert are sent to {ME}." in found.text
    for name, message in (("test mail", mail), ("sample alert", alert)):
        assert message.recipients == (ME,)
        assert message.message["From"] == "Airflow <airflow@corp.example>"
        assert message.authenticated_as == r"CORP\alice"
        first, last = found.details[name].split("\n")
        assert first == f"from Airflow <airflow@corp.example> to {ME}"
        assert last.startswith("accepted: 250 ")
        assert last.endswith(message.message["Message-ID"])
    assert mail.message["Subject"].startswith("Test mail from Airflow on ")
    assert "Connection: mail" in mail.message.get_content()
    assert "sample_dag.sample_task" in alert.message["Subject"]
    assert "no task has failed" in alert.message.get_body(("html",)).get_content()
    assert alert.message["X-Auto-Response-Suppress"] == "OOF, AutoReply"


def test_a_connection_without_a_sender_sends_from_the_recipient(check_it: CheckIt) -> None:
    """Many tasks name their own sender, so the connection needs none."""
    with Relay() as relay:
        found = check_it(manager_of(relay), send_to=ME)
        assert {message.message["From"] for message in relay.messages} == {ME}
    assert "the connection has no From address" in found.details["test mail"]


def test_each_check_sends_other_mails(check_it: CheckIt) -> None:
    """Exchange would drop one with the Message-ID of an earlier one."""
    with Relay() as relay:
        check_it(manager_of(relay), send_to=ME)
        check_it(manager_of(relay), send_to=ME)
        assert len({message.message["Message-ID"] for message in relay.messages}) == 4


def test_a_recipient_that_is_refused_fails_the_check_with_its_remedy(check_it: CheckIt) -> None:
    """The alert is not tried then."""
    with Relay(refuse={ME: "550 5.7.54 Unable to relay"}) as relay:
        found = check_it(manager_of(relay), send_to=ME)
        assert relay.messages == []
    found.assert_failed_at("test mail", "")
    assert "550 5.7.54" in found.details["test mail"]
    assert found.statuses["sample alert"] == "skipped"
    assert found.report.remedy


def test_a_mail_that_is_refused_does_not_hide_the_channel_bindings(check_it: CheckIt) -> None:
    """The sign-in before it was accepted; and the remedy is that of the mail."""
    with Relay(users=ALICE, refuse={ME: "550 5.7.54 Unable to relay"}) as relay:
        found = check_it(manager_of(relay), send_to=ME, every_binding=True)
    assert "tls-server-end-point (the connection's own): accepted" in found.details["every binding"]
    found.assert_failed_at("test mail", "")
    assert found.report.remedy


def test_nothing_is_sent_if_a_step_before_fails(check_it: CheckIt) -> None:
    """Both mails are among what was not reached."""
    with Relay(users=ALICE) as relay:
        found = check_it(manager_of(relay, password="wrong-Password-1"), send_to=ME)
        assert relay.messages == []
    found.assert_failed_at("sign-in", "")
    assert found.statuses["test mail"] == found.statuses["sample alert"] == "skipped"


def test_of_several_servers_the_first_that_passes_sends(check_it: CheckIt) -> None:
    """Each other is checked up to NOOP."""
    with Relay(ssl_mode="none") as second, Relay(ssl_mode="none") as third:
        fallbacks = f"127.0.0.1:{second.port};127.0.0.1:{third.port}"
        manager = SmtpConnectionManager(
            host="127.0.0.1", port=free_port(), ssl_mode="none", fallback_hosts=fallbacks, from_address=ME
        )
        check_it(manager, send_to=ME)
        assert (len(second.messages), len(third.messages)) == (2, 0)


def test_the_command_sends_and_reports_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps have the mails' Message-IDs."""
    with Relay() as relay:
        monkeypatch.setenv("MAIL_URI", json.dumps(relay.airflow_connection()))
        assert main(["check", "--uri-env", "MAIL_URI", "--send-to", ME, "--json"]) == 0
        sent = [message.message["Message-ID"] for message in relay.messages]
    steps = {step["name"]: step["detail"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert [steps[name].rpartition(" ")[2] for name in ("test mail", "sample alert")] == sent


@pytest.mark.parametrize("address", ["me", "me@corp.example;you@corp.example", "Me <me@corp.example>", "a@b\r\nc", ""])
def test_what_is_not_one_address_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is looked up."""
    with pytest.raises(SystemExit) as end:
        main(["check", "mail", "--send-to", address])
    assert end.value.code == 2
    assert "give one mail address" in capsys.readouterr().err
