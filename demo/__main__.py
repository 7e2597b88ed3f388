"""`python -m demo` delivers a mail and shows it; `python -m demo ui` stays up, for a look at the connection form.

Both run the embedded relay, which requires Windows Authentication over STARTTLS, and a real Airflow with the DAGs of
`example_dags`. Everything runs on this machine and is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from airflow_provider_smtpcm.testing import ReceivedMail, Relay, RelayError
from airflow_provider_smtpcm.testing.inbox import Inbox
from demo.airflow_stack import AirflowStack, StackError
from demo.processes import ending_on_signals

DAGS_FOLDER = Path(__file__).parents[1] / "example_dags"
DAG_ID = "windows_authentication"
CONN_ID = "smtpcm_default"
LOGIN, PASSWORD = r"CORP\alice", "P@ssw0rd-Alice"  # of a relay that lives as long as the demo

_began = time.monotonic()


def say(line: str) -> None:
    """Print a line of progress with the seconds since the start."""
    print(f"{time.monotonic() - _began:5.1f} s  {line}", flush=True)


@contextmanager
def running(password: str, config: Mapping[str, str] | None = None) -> Iterator[tuple[Relay, Inbox, AirflowStack]]:
    """Run the relay, its inbox, and Airflow with a connection to it; yields them once Airflow is healthy."""
    with Relay(users={LOGIN: PASSWORD}) as relay, Inbox() as inbox:
        say(f"The relay listens on {relay.host}:{relay.port}: STARTTLS, and Windows Authentication for {LOGIN}.")
        say(f"What it receives is shown in a browser at {inbox.url}")
        say("Airflow starts: database, API server, scheduler and DAG processor.")
        with AirflowStack(DAGS_FOLDER, config=config) as airflow:
            connection = relay.airflow_connection(LOGIN, password)
            airflow.cli("connections", "add", CONN_ID, "--conn-json", json.dumps(connection))
            say(f"`airflow connections add {CONN_ID}` has added the connection to the relay.")
            airflow.wait_until_healthy()
            say(f"Airflow is healthy at {airflow.url}.")
            yield relay, inbox, airflow
            say("Stopping.")
    say("Everything is stopped.")


def deliver(password: str) -> bool:
    """Let the scheduler run the example DAG and show what the relay received; return whether a mail was delivered."""
    with running(password) as (relay, inbox, airflow):
        run_id = airflow.trigger(DAG_ID)
        say(f"The DAG {DAG_ID} is triggered.")
        state = airflow.wait_for_run(DAG_ID, run_id)
        say(f"The scheduler has run it: {state}.")
        mails = relay.messages
        for mail in mails:
            show(mail, inbox)
        delivered = state == "success" and bool(mails)
        if not delivered:
            print(f"\nNot delivered. What the tasks logged:\n{airflow.task_logs(DAG_ID, run_id)}\n", flush=True)
        elif inbox.is_watched:
            say("A browser shows the mail. Close the page, or press Ctrl-C, to end the demo.")
            with suppress(KeyboardInterrupt):
                inbox.wait_until_unwatched()
    return delivered


def show(mail: ReceivedMail, inbox: Inbox) -> None:
    """Print the mail as the relay received it, its envelope, and how its session was authenticated and encrypted."""
    inbox.add(mail)
    line = "-" * 78
    print(f"\n{line}\n{mail.content.decode(errors='replace').rstrip()}\n{line}")
    print(f"envelope             {mail.mail_from} -> {', '.join(mail.recipients)}")
    print(f"authenticated as     {mail.authenticated_as} with {mail.mechanism}")
    print(f"encrypted by         {mail.tls_version}\n", flush=True)


def stay(password: str) -> NoReturn:
    """Keep everything running until Ctrl-C, and show each mail that arrives."""
    with running(password, {"core.test_connection": "Enabled"}) as (relay, inbox, airflow):
        print(
            f"\n  Connections   {airflow.url}/connections"
            f"\n                {CONN_ID} leads to the relay: open its form, or press Test in its row."
            f"\n  DAGs          {airflow.url}/dags"
            f"\n                {DAG_ID} sends through it: trigger it; what arrives is shown here and in the inbox."
            f"\n  Inbox         {inbox.url}"
            "\n                The mails as a mail program shows them."
            "\n  Stop          Ctrl-C\n",
            flush=True,
        )
        while True:
            with suppress(TimeoutError):
                relay.wait_for_messages(1, timeout=3600)
            for mail in relay.clear():
                say("The relay has received a mail.")
                show(mail, inbox)


def main() -> int:
    """Return the exit status: 0 on success, 1 on failure, 130 after Ctrl-C (0 for `ui`, which only ends that way)."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["deliver", "ui"], default="deliver")
    parser.add_argument("--password", default=PASSWORD, help="password of the connection; a wrong one shows a failure")
    arguments = parser.parse_args()
    try:
        with ending_on_signals():
            if arguments.what == "ui":
                stay(arguments.password)
            return 0 if deliver(arguments.password) else 1
    except KeyboardInterrupt:
        say("Stopped by Ctrl-C.")
        return 0 if arguments.what == "ui" else 130
    except (StackError, RelayError, OSError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        say("That went wrong; everything is stopped.")
        return 1


if __name__ == "__main__":
    sys.exit(main())
