"""The command line: `python -m airflow_provider_smtpcm <command>`. Knows no command by its name.

A command is an entry in `COMMANDS`; Airflow's own command line takes the same (`airflow_cli`). What runs it is imported
then.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from airflow_provider_smtpcm.cli.commands import CHECK, IMPORT_SSIS, RELAY, Argument, Command, UsageError

__all__ = ["CHECK", "COMMANDS", "IMPORT_SSIS", "RELAY", "Argument", "Command", "UsageError", "build_parser", "main"]

COMMANDS: tuple[Command, ...] = (CHECK, IMPORT_SSIS, RELAY)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status. Wrong arguments end in `SystemExit` with status 2, as argparse has it."""
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse would repeat them, with the password that somebody gave in the wrong place
        parser.error(f"{len(unknown)} of the arguments are not known here; --help lists those that are")
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
