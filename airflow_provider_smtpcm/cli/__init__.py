"""The command line: `python -m airflow_provider_smtpcm <command>`, and `airflow smtpcm <command>` from Airflow 3.2 on.

Airflow imports this module whenever its own command line starts, so it imports only argparse and the table of commands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_smtpcm.cli.arguments import Argument, Command, UsageError
from airflow_provider_smtpcm.cli.options import CHECK, FROM_SMTP, IMPORT_SSIS, PREVIEW, RELAY

__all__ = ["COMMANDS", "IMPORT_SSIS", "Argument", "Command", "UsageError", "build_parser", "main"]

COMMANDS: tuple[Command, ...] = (CHECK, PREVIEW, FROM_SMTP, IMPORT_SSIS, RELAY)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status of the command.

    Raises:
        SystemExit: with status 2, as argparse does, if the arguments are wrong.
    """
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse would repeat them, and one may be a password
        count = f"{len(unknown)} unknown argument{'' if len(unknown) == 1 else 's'}"
        parser.error(f"{count}; see --help")
    try:
        return int(arguments.run(arguments))
    except UsageError as error:
        arguments.fail(str(error))
        raise


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_smtpcm", description="The SSIS SMTP connection manager for Apache Airflow."
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="command")
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in command.arguments:
            subparser.add_argument(*argument.flags, **argument.options)
        subparser.set_defaults(run=command.run, fail=subparser.error)
    return parser


def get_commands() -> list[Any]:
    """Return the group of commands for `cli` in the provider info."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand  # its command line has loaded this

    return [
        GroupCommand(
            name="smtpcm",
            help="Check SMTP connection managers, preview their mail, and bring them over from elsewhere",
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
