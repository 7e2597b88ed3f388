"""The same commands in Airflow's own command line, as `airflow smtpcm <command>`, from Airflow 3.2 on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from airflow_provider_smtpcm.cli import COMMANDS, Command, UsageError


def commands() -> list[Any]:
    """What the provider info names under `cli`: one group with each command; Airflow has loaded what this imports."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

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
                    func=_runner(command),
                    args=[
                        Arg(argument.flags, **argument.options)  # type: ignore[no-untyped-call]
                        for argument in command.arguments
                    ],
                )
                for command in COMMANDS
            ],
        )
    ]


def _runner(command: Command) -> Callable[[argparse.Namespace], None]:
    """Airflow takes no notice of what a command returns."""

    def run(arguments: argparse.Namespace) -> None:
        try:
            status = command.run(arguments)
        except UsageError as error:
            print(f"airflow smtpcm {command.name}: error: {error}", file=sys.stderr)
            status = 2
        sys.exit(status)

    return run
