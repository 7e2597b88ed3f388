"""The commands in Airflow's own command line, `airflow smtpcm <command>`, from Airflow 3.2 on.

Airflow imports this module whenever its command line starts, so it imports only argparse and the table of commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from airflow_provider_smtpcm.cli import COMMANDS, Command, UsageError


def get_commands() -> list[Any]:
    """Return the group of commands for `cli` in the provider info."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand  # Airflow has loaded it already

    return [
        GroupCommand(
            name="smtpcm",
            help="Check and try SMTP connection managers, and import them from SSIS",
            subcommands=[
                ActionCommand(
                    name=command.name,
                    help=command.help,
                    description=command.description,
                    epilog=command.epilog or None,
                    func=_create_runner(command),
                    args=[
                        Arg(argument.flags, **argument.options)  # type: ignore[no-untyped-call]
                        for argument in command.arguments
                    ],
                )
                for command in COMMANDS
            ],
        )
    ]


def _create_runner(command: Command) -> Callable[[argparse.Namespace], None]:
    """Return a function that exits with the command's status, since Airflow ignores what a command returns."""

    def run(arguments: argparse.Namespace) -> None:
        try:
            status = command.run(arguments)
        except UsageError as error:
            print(f"airflow smtpcm {command.name}: error: {error}", file=sys.stderr)
            status = 2
        sys.exit(status)

    return run
