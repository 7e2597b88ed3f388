"""What a sign-in costs: connect, STARTTLS, AUTH, one command, QUIT; beside curl and msmtp on the same server.

Real servers on loopback (Postfix with Cyrus SASL's NTLM, and with MIT Kerberos). Medians; the contenders take turns.
The time of curl is the one that it reports, without its start. msmtp reports none, so its whole process is timed, which
sends a mail. Needs root and `make system-packages`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from airflow_provider_smtpcm.connection_manager import SmtpConnectionManager
from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator
from airflow_provider_smtpcm.smtp.session import Session
from airflow_provider_smtpcm.smtp.tls import create_tls_context
from tests.integration.gssapi_postfix import GssapiPostfix
from tests.integration.kerberos import KerberosRealm
from tests.integration.postfix import Postfix
from tests.integration.programs import absent

RUNS = 25
MESSAGE = b"From: a@corp.example\r\nTo: b@corp.example\r\nSubject: x\r\n\r\nx\r\n"


def ours(connection: SmtpConnectionManager, *, keep: bool) -> Callable[[], float]:
    """Time one session after the other; the TLS context is kept, and with `keep` the hook's Kerberos state too."""
    context = create_tls_context(connection.ca_certificate, verify=connection.verify_certificate)
    kept = WindowsAuthenticator(connection)

    def run() -> float:
        began = time.perf_counter()
        with Session(connection, context=context, authenticator=kept if keep else None) as session:
            session.noop()
        return time.perf_counter() - began

    return run


def curl(port: int, ca: str, *arguments: str) -> Callable[[], float]:
    """Time `curl` by the time that it reports."""
    command = ["curl", "-s", "--ssl-reqd", "--cacert", ca, *arguments, f"smtp://localhost:{port}", "-X", "NOOP"]

    def run() -> float:
        done = subprocess.run([*command, "-o", "/dev/null", "-w", "%{time_total}"], capture_output=True, check=True)
        return float(done.stdout)

    return run


def msmtp(port: int, ca: str, *arguments: str) -> Callable[[], float]:
    """Time `msmtp` as a whole process that sends a mail."""
    command = ["msmtp", "--host=localhost", f"--port={port}", "--tls=on", "--tls-starttls=on", f"--tls-trust-file={ca}"]
    command += ["--from=a@corp.example", *arguments, "b@corp.example"]

    def run() -> float:
        began = time.perf_counter()
        subprocess.run(command, input=MESSAGE, capture_output=True, check=True)
        return time.perf_counter() - began

    return run


def measure(title: str, contenders: dict[str, Callable[[], float]], runs: int) -> None:
    """Print one row for each contender."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for name, run in contenders.items():
        try:
            run()
        except subprocess.CalledProcessError as error:
            print(f"| {title} | {name} | cannot: {error.stderr.decode(errors='replace').strip()[:60]} | |")
            del took[name]
    for _ in range(runs):
        for name, times in took.items():
            times.append(contenders[name]() * 1000)
    mine = statistics.median(next(iter(took.values())))
    for name, times in took.items():
        median = statistics.median(times)
        print(f"| {title} | {name} | {median:.1f} ({min(times):.1f} to {max(times):.1f}) | {median / mine:.2f} |")


def missing() -> str | None:
    """Return what the servers need and this machine lacks, or None."""
    if os.geteuid() != 0:
        return "root, who alone may start a Postfix"
    lacking = (Postfix.missing(), GssapiPostfix.missing(), KerberosRealm.missing(), absent(("curl", "msmtp")))
    return ", ".join(name for name in lacking if name) or None


def main(runs: int = RUNS) -> None:
    """Print the table."""
    if lacking := missing():
        print(f"Sign-in: left out for want of {lacking}: `make system-packages`, `make venv`, and run this as root.\n")
        return
    print(f"| server and mechanism | contender | ms, median of {runs} (min to max) | x ours |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        KerberosRealm() as realm,
        Postfix() as ntlm,
        GssapiPostfix(realm) as gss,
    ):
        ca, secret = Path(folder) / "ca.pem", Path(folder) / "password"
        os.environ.update(realm.environment())
        common = {"host": "localhost", "auth_mode": "windows"}
        ca.write_text(ntlm.ca_certificate)
        secret.write_text(ntlm.users["alice"])
        account = {"login": r"CORP\alice", "password": ntlm.users["alice"]}
        connection = SmtpConnectionManager(
            port=ntlm.starttls_port,
            ca_certificate=ntlm.ca_certificate,
            **account,
            **common,  # type: ignore[arg-type]
        )
        measure(
            "Postfix, NTLM, password",
            {
                "this package": ours(connection, keep=True),
                "curl": curl(ntlm.starttls_port, str(ca), "--ntlm", "-u", rf"CORP\alice:{ntlm.users['alice']}"),
                "msmtp (whole process, a mail)": msmtp(
                    ntlm.starttls_port, str(ca), "--auth=ntlm", "--user=alice", f"--passwordeval=cat {secret}"
                ),
            },
            runs,
        )
        ca.write_text(gss.ca_certificate)
        for title, settings, keep in (
            ("Postfix, GSSAPI, credential cache", {"ccache": realm.ccache("alice")}, True),
            ("Postfix, GSSAPI, keytab, ticket kept", {"keytab": str(realm.client_keytab)}, True),
            ("Postfix, GSSAPI, keytab, ticket fetched each time", {"keytab": str(realm.client_keytab)}, False),
            (
                "Postfix, GSSAPI, password, ticket fetched each time",
                {"login": "alice@corp.example", "password": realm.password_of("alice")},
                False,
            ),
        ):
            connection = SmtpConnectionManager(
                port=gss.starttls_port,
                ca_certificate=gss.ca_certificate,
                **settings,
                **common,  # type: ignore[arg-type]
            )
            contenders = {"this package": ours(connection, keep=keep)}
            if "ccache" in settings:
                os.environ["KRB5CCNAME"] = settings["ccache"]
                contenders["curl"] = curl(
                    gss.starttls_port, str(ca), "--negotiate", "-u", ":", "--login-options", "AUTH=GSSAPI"
                )
                contenders["msmtp (whole process, a mail)"] = msmtp(
                    gss.starttls_port, str(ca), "--auth=gssapi", "--user=alice"
                )
            measure(title, contenders, runs)
    print()


if __name__ == "__main__":
    main()
