"""Client certificates at a real Postfix and a real Exim that demand them, or relay for those who have one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.errors import MailError, TlsError
from airflow_provider_smtpcm.mail import Mail
from airflow_provider_smtpcm.smtp.outcome import Delivery
from airflow_provider_smtpcm.smtp.session import Session
from tests.check.checked import CheckIt, make_check
from tests.client_certificates import NAME
from tests.integration.certificate_postfix import CertificatePostfix, get_fingerprint
from tests.integration.exim import Exim
from tests.integration.system_packages import skip_for_want_of, skip_unless_root
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

MAIL = Mail(from_address="etl@corp.example", to="b@elsewhere.example", subject="Loaded", text="7 rows.")


def skip_unless_it_can_start(server: type[CertificatePostfix | Exim]) -> None:
    """Skip with what is missing."""
    if missing := server.missing():
        skip_for_want_of(missing)
    skip_unless_root(server.__name__)


@pytest.fixture(scope="module")
def postfix() -> Iterator[CertificatePostfix]:
    """A Postfix for all tests."""
    skip_unless_it_can_start(CertificatePostfix)
    with CertificatePostfix() as server:
        yield server


@pytest.fixture(scope="module")
def exim() -> Iterator[Exim]:
    """An Exim for all tests."""
    skip_unless_it_can_start(Exim)
    with Exim() as server:
        yield server


@pytest.fixture
def check_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> CheckIt:
    """Checks a connection manager."""
    return make_check(capsys, caplog)


def manager_of(
    server: CertificatePostfix | Exim, port: str, certificate: str | None, **settings: Any
) -> SmtpConnectionManager:
    """A connection manager for one of the server's ports."""
    return SmtpConnectionManager(
        host=server.host,
        port=getattr(server, port),
        ssl_mode="implicit" if "implicit" in port else "starttls",  # type: ignore[arg-type]
        ca_certificate=server.ca_certificate,
        client_certificate=certificate,
        **settings,
    )


def send(manager: SmtpConnectionManager) -> Delivery:
    """Send a mail."""
    with Session(manager) as session:
        return session.send(MAIL)


def refusal(manager: SmtpConnectionManager) -> MailError:
    """How the session fails."""
    with pytest.raises(MailError) as caught:
        Session(manager).open()
    return caught.value


# --- Postfix.


@pytest.mark.parametrize("port", ["relay_port", "client_port", "demanding_port", "demanding_implicit_port"])
def test_postfix_takes_the_mail_of_a_client_that_it_knows(port: str, postfix: CertificatePostfix) -> None:
    """And the stored message has the name in the certificate."""
    postfix.clear()
    assert send(manager_of(postfix, port, postfix.known)).outcome == "accepted"
    [message] = postfix.wait_for_messages(1)
    assert f'(Client CN "{NAME}", Issuer "Clients"' in message["Received"]


def test_postfix_relays_for_a_client_whose_key_is_in_a_file_of_its_own(postfix: CertificatePostfix) -> None:
    """As certbot writes them, for example."""
    certificate, key = postfix.clients.split(postfix.known)
    assert send(manager_of(postfix, "relay_port", certificate, client_key=key)).outcome == "accepted"


@pytest.mark.parametrize(
    ("port", "answer"), [("relay_port", "Relay access denied"), ("client_port", "Client host rejected")]
)
def test_postfix_refuses_who_has_none_and_the_remedy_names_both_ways(
    port: str, answer: str, postfix: CertificatePostfix
) -> None:
    """An account or a certificate: which of them the server wants, it does not say."""
    error = send(manager_of(postfix, port, None)).error
    assert error is not None
    assert answer in error.message
    assert "'Windows Authentication'" in error.remedy
    assert "'Client certificate'" in error.remedy


@pytest.mark.parametrize("port", ["relay_port", "client_port", "not_asking_port"])
def test_postfix_refuses_a_certificate_that_it_does_not_know_and_the_remedy_is_about_that(
    port: str, postfix: CertificatePostfix
) -> None:
    """Nobody is sent to an account that would not help."""
    error = send(manager_of(postfix, port, postfix.unknown)).error
    assert error is not None
    assert "554 5.7.1" in error.message
    assert "allow this worker's client certificate" in error.remedy
    assert "Windows" not in error.remedy


@pytest.mark.parametrize("port", ["demanding_port", "demanding_implicit_port"])
def test_postfix_that_demands_one_says_so_after_the_handshake(port: str, postfix: CertificatePostfix) -> None:
    """With a 421, in place of the greeting or of the reply to EHLO."""
    error = refusal(manager_of(postfix, port, None))
    assert "421 4.7.1 mail.corp.example Error: No client certificate presented" in error.message
    assert error.remedy.startswith("The server demands a client certificate")
    stranger = postfix.clients.issue("stranger.pem", authority=trustme.CA())
    error = refusal(manager_of(postfix, port, stranger))
    assert "Error: Client certificate not trusted" in error.message
    assert error.remedy.startswith("The server does not accept this worker's client certificate")


# --- Exim.


@pytest.mark.parametrize("port", ["demanding_port", "asking_port"])
def test_exim_takes_the_mail_of_a_client_whose_certificate_it_can_verify(port: str, exim: Exim) -> None:
    """And its log has the name in the certificate."""
    message_id = send(manager_of(exim, port, exim.clients.issue())).message_id.strip("<>")
    wait_until(lambda: message_id in exim.log())
    [line] = [line for line in exim.log().splitlines() if message_id in line and "<=" in line]
    assert "CV=yes" in line
    assert f"CN={NAME}" in line


def test_exim_that_demands_one_says_so_by_an_alert(exim: Exim) -> None:
    """Which TLS 1.3 brings in place of the reply to EHLO."""
    error = refusal(manager_of(exim, "demanding_port", None))
    assert isinstance(error, TlsError)
    assert "demands a client certificate, and the connection has none (TLS alert: certificate required)" in str(error)


@pytest.mark.parametrize("what", ["stranger", "expired"])
def test_exim_refuses_a_certificate_that_it_cannot_verify_by_the_same_alert(what: str, exim: Exim) -> None:
    """So the remedy names all of what it may be."""
    certificate = {
        "stranger": lambda: exim.clients.issue("stranger.pem", authority=trustme.CA()),
        "expired": lambda: exim.clients.issue("expired.pem", days=-1, since=-9),
    }[what]()
    error = refusal(manager_of(exim, "demanding_port", certificate))
    assert isinstance(error, TlsError)
    assert "refused the client certificate (TLS alert: bad certificate)" in error.message
    assert "may have expired" in error.remedy
    assert "authority" in error.remedy
    error = send(manager_of(exim, "asking_port", certificate)).error
    assert error is not None
    assert "550 relay not permitted" in error.message
    assert "allow this worker's client certificate" in error.remedy


# --- The check.


def test_the_check_shows_the_certificate_with_the_fingerprint_that_postfix_wants(
    postfix: CertificatePostfix, check_it: CheckIt
) -> None:
    """And that it was asked for and sent."""
    found = check_it(manager_of(postfix, "relay_port", postfix.known))
    assert str(found.report.verdict) == "ok", found.page
    shown = found.details["client certificate"]
    assert f"CN={NAME}" in shown
    assert "issued by OU=" in shown
    assert "(89 days left)" in shown or "(90 days left)" in shown
    assert f"SHA-256 fingerprint {get_fingerprint(postfix.known)}" in shown
    assert "the server asked for a client certificate, and it was sent" in found.details["TLS"]


def test_the_check_warns_where_the_server_asked_for_none(postfix: CertificatePostfix, check_it: CheckIt) -> None:
    """So nothing was sent, and the server may not relay."""
    found = check_it(manager_of(postfix, "not_asking_port", postfix.known))
    assert found.statuses["TLS"] == "warning"
    assert "asked for no client certificate" in found.details["TLS"]


def test_the_check_tells_who_has_none_that_the_server_asks_for_one(
    postfix: CertificatePostfix, exim: Exim, check_it: CheckIt
) -> None:
    """Be it required or not."""
    asked = "the server asked for a client certificate; the connection has none"
    found = check_it(manager_of(postfix, "relay_port", None))
    assert str(found.report.verdict) == "ok", found.page
    assert asked in found.details["TLS"]
    found = check_it(manager_of(exim, "demanding_port", None))
    found.assert_failed_at("EHLO after TLS", "as 'Client certificate'")
    assert asked in found.details["TLS"]


def test_the_check_compares_the_issuer_with_the_authorities_that_the_server_names(
    exim: Exim, check_it: CheckIt, tmp_path: Path
) -> None:
    """Before anybody has to read the server's log."""
    stranger = exim.clients.issue("stranger.pem", authority=trustme.CA(organization_name="Strangers"))
    found = check_it(manager_of(exim, "asking_port", stranger))
    assert "names 1 accepted authorities" in found.details["TLS"]
    assert "O=Strangers is none of them" in found.details["TLS"]
