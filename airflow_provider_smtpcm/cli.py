"""The command line: `python -m airflow_provider_smtpcm <command>`. Knows the arguments; each command is elsewhere.

A command is one function that adds its parser and names what runs it, in `COMMANDS`. What runs it is imported then.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  (argparse gives it no other name)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status. Wrong arguments end in `SystemExit` with status 2, as argparse has it."""
    arguments = build_parser().parse_args(argv)
    return int(arguments.run(arguments))


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_smtpcm", description="The SSIS SMTP connection manager for Apache Airflow."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    for add in COMMANDS:
        add(commands)
    return parser


def add_relay(commands: Commands) -> None:
    """`relay`: an SMTP server to try things with."""
    parser = commands.add_parser(
        "relay",
        help="run an SMTP server on this machine that shows what it receives",
        description="Run an SMTP server on this machine, for demos and tests. It keeps nothing and sends nothing on.",
    )
    parser.add_argument("--port", type=port, default=0, metavar="N", help="where to listen (default: any free port)")
    parser.add_argument(
        "--ssl-mode", choices=["starttls", "none", "implicit"], default="starttls", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--user", metavar="NAME", help=r"demand Windows Authentication as this user, such as 'CORP\alice'"
    )
    parser.add_argument(
        "--password-env",
        type=variable,
        metavar="VARIABLE",
        help="the environment variable with the user's password (default: a new password, which is printed)",
    )
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write each mail into this folder as an .eml file")

    def run(arguments: argparse.Namespace) -> int:
        if arguments.password_env is not None and arguments.user is None:
            parser.error("--password-env: whose password? Name the user with --user.")
        from airflow_provider_smtpcm.testing.command import run_relay

        return run_relay(
            port=arguments.port,
            ssl_mode=arguments.ssl_mode,
            user=arguments.user,
            password_env=arguments.password_env,
            save=arguments.save,
        )

    parser.set_defaults(run=run)


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


COMMANDS: tuple[Callable[[Commands], None], ...] = (add_relay,)
