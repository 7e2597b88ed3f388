"""The command line: `python -m airflow_provider_smtpcm <command>`. Knows the arguments; each command is elsewhere.

A command is an entry in `COMMANDS`; Airflow's own command line takes the same (`airflow_cli`). What runs it is imported
then.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UsageError(Exception):
    """Arguments that do not belong together."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument, as argparse's `add_argument` takes it.

    Args:
        flags: its names.
        options: the rest.
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command.

    Args:
        run: does it; returns the exit status, or raises UsageError.
        epilog: stands below the arguments in its help, line by line as it is.
    """

    name: str
    help: str
    description: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int]
    epilog: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status. Wrong arguments end in `SystemExit` with status 2, as argparse has it."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UsageError as error:
        arguments.fail(str(error))
        raise


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_smtpcm", description="The SSIS SMTP connection manager for Apache Airflow."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    for command in COMMANDS:
        mine = commands.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in command.arguments:
            mine.add_argument(*argument.flags, **argument.options)
        mine.set_defaults(run=command.run, fail=mine.error)
    return parser


def port(text: str) -> int:
    """A port number, or 0."""
    number = int(text)
    if not 0 <= number <= 65535:  # the highest there is
        raise argparse.ArgumentTypeError(f"{number} is no port; take one up to 65535, or 0 for any free one")
    return number


def variable(text: str) -> str:
    """The name of an environment variable, as a shell can spell it."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise argparse.ArgumentTypeError("name an environment variable here, not the password itself")
    return text


def connection_id(text: str) -> str:
    """The id of an Airflow connection; the connection itself is refused without being repeated."""
    if "://" in text or text.lstrip().startswith("{"):
        raise argparse.ArgumentTypeError(_NOT_HERE)
    return text


def standard_input(text: str) -> str:
    """`-` alone."""
    if text != "-":
        raise argparse.ArgumentTypeError(_NOT_HERE)
    return text


_NOT_HERE = (
    "a connection on the command line shows its password to everybody in the process list; "
    "give it on standard input with '--uri -', or in an environment variable with '--uri-env NAME'"
)


def run_relay(arguments: argparse.Namespace) -> int:
    """`relay`."""
    if arguments.password_env is not None and arguments.user is None:
        raise UsageError("--password-env: whose password? Name the user with --user.")
    from airflow_provider_smtpcm.testing.command import run_relay

    return run_relay(
        port=arguments.port,
        ssl_mode=arguments.ssl_mode,
        user=arguments.user,
        password_env=arguments.password_env,
        save=arguments.save,
    )


def run_check(arguments: argparse.Namespace) -> int:
    """`check`."""
    if sum(given is not None for given in (arguments.conn_id, arguments.uri, arguments.uri_env)) != 1:
        raise UsageError("which connection? Give one of CONN_ID, --uri - and --uri-env NAME.")
    from airflow_provider_smtpcm.check.command import run_check

    return run_check(
        conn_id=arguments.conn_id,
        from_stdin=arguments.uri is not None,
        uri_env=arguments.uri_env,
        as_json=arguments.output,
        every_binding=arguments.bindings,
    )


RELAY = Command(
    name="relay",
    help="run an SMTP server on this machine that shows what it receives",
    description="Run an SMTP server on this machine, for demos and tests. It keeps nothing and sends nothing on.",
    arguments=(
        Argument(
            ("--port",),
            {"type": port, "default": 0, "metavar": "N", "help": "where to listen (default: any free port)"},
        ),
        Argument(
            ("--ssl-mode",),
            {"choices": ["starttls", "none", "implicit"], "default": "starttls", "help": "(default: %(default)s)"},
        ),
        Argument(
            ("--user",),
            {"metavar": "NAME", "help": r"demand Windows Authentication as this user, such as 'CORP\alice'"},
        ),
        Argument(
            ("--password-env",),
            {
                "type": variable,
                "metavar": "VARIABLE",
                "help": "the environment variable with the user's password (default: a new password, which is printed)",
            },
        ),
        Argument(
            ("--save",),
            {"type": Path, "metavar": "FOLDER", "help": "write each mail into this folder as an .eml file"},
        ),
    ),
    run=run_relay,
)

CHECK = Command(
    name="check",
    help="find out whether a connection works, step by step, and what to do if not",
    description=(
        "Go the way to a mail server step by step, as a task would: look the name up, connect, encrypt, look at the\n"
        "certificates, sign in. It ends with NOOP and never sends mail; 30 seconds at the most."
    ),
    arguments=(
        Argument(
            ("conn_id",),
            {"metavar": "CONN_ID", "nargs": "?", "type": connection_id, "help": "an Airflow connection"},
        ),
        Argument(
            ("--uri",),
            {
                "metavar": "-",
                "type": standard_input,
                "help": "read the connection from standard input: a URI (smtpcm://...) or Airflow's JSON",
            },
        ),
        Argument(
            ("--uri-env",),
            {"metavar": "NAME", "type": variable, "help": "the same from an environment variable"},
        ),
        Argument(
            ("--bindings",),
            {
                "action": "store_true",
                "help": "sign in once with each channel binding and name what passes; up to three sign-ins, so that a "
                "wrong password counts three times towards a lockout",
            },
        ),
        # Airflow's command line keeps its log off the standard output of a command that has an `output`.
        Argument(("--json",), {"action": "store_true", "dest": "output", "help": "one JSON object, for machines"}),
    ),
    epilog=(
        "exit status:\n"
        "  0  it works; weak settings are warned about and change nothing here (in JSON the verdict is 'warning')\n"
        "  1  a step failed: the server, the account, or the way there is at fault\n"
        "  2  wrong arguments\n"
        "  3  the connection does not exist or is written wrong; nothing was tried"
    ),
    run=run_check,
)

COMMANDS: tuple[Command, ...] = (CHECK, RELAY)
