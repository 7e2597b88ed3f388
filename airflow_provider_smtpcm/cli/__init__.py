"""The command line: `python -m airflow_provider_smtpcm <command>`.

`COMMANDS` lists the commands, which `cli.airflow` adds to Airflow's command line too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from airflow_provider_smtpcm.cli.options import CHECK, IMPORT_SSIS, RELAY, Argument, Command, UsageError

__all__ = ["CHECK", "COMMANDS", "IMPORT_SSIS", "RELAY", "Argument", "Command", "UsageError", "build_parser", "main"]

COMMANDS: tuple[Command, ...] = (CHECK, IMPORT_SSIS, RELAY)


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
