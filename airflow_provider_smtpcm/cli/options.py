"""The commands `relay`, `check` and `import-ssis`: their arguments and help. A command's code is imported when it runs.

No message repeats an argument, since it may be a password in the wrong place.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UsageError(Exception):
    """A wrong combination of arguments."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a command, for argparse's `add_argument`.

    Args:
        flags: its name, or its option strings.
        options: the keyword arguments of `add_argument`.
    """

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command.

    Args:
        name: its name on the command line.
        help: one clause for the list of commands.
        description: the text above the arguments in `--help`.
        arguments: in the order of `--help`.
        run: the function that runs it and returns the exit status; may raise `UsageError`.
        epilog: the text below the arguments in `--help`; its line breaks are kept.
    """

    name: str
    help: str
    description: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int]
    epilog: str = ""


# --- Types of arguments. Each function parses a text; its error does not repeat the text.

_SSL_MODES = ("starttls", "none", "implicit")
_EXTENDED_PROTECTION = ("none", "allow", "require")
_NOT_ON_COMMAND_LINE = (
    "a connection on the command line shows its password to everyone in the process list; "
    "give it on standard input with '--uri -', or in an environment variable with '--uri-env NAME'"
)


def parse_port(text: str) -> int:
    """Parse a port; 0 means any free one."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError("not a port; give a number up to 65535, or 0 for any free port")
    return int(text)


def parse_ssl_mode(text: str) -> str:
    """Check that a text is one of the relay's SSL modes."""
    if text not in _SSL_MODES:
        raise argparse.ArgumentTypeError(f"choose one of {', '.join(_SSL_MODES)}")
    return text


def parse_personality(text: str) -> str:
    """Check that a text is one of the relay's personalities."""
    if text != "exchange":
        raise argparse.ArgumentTypeError("choose exchange")
    return text


def parse_message_rate(text: str) -> int:
    """Parse a number of messages per minute."""
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError("give a number of messages per minute, from 1")
    return int(text)


def parse_extended_protection(text: str) -> str:
    """Check that a text is one of the policies of Extended Protection."""
    if text not in _EXTENDED_PROTECTION:
        raise argparse.ArgumentTypeError(f"choose one of {', '.join(_EXTENDED_PROTECTION)}")
    return text


def parse_variable_name(text: str) -> str:
    """Check that a text is the name of an environment variable."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise argparse.ArgumentTypeError("give the name of an environment variable, not the password itself")
    return text


def parse_conn_id(text: str) -> str:
    """Check that a text is the id of a connection, not a connection itself."""
    if "://" in text or text.lstrip().startswith("{"):
        raise argparse.ArgumentTypeError(_NOT_ON_COMMAND_LINE)
    return text


def parse_dash(text: str) -> str:
    """Check that a text is `-`, for standard input."""
    if text != "-":
        raise argparse.ArgumentTypeError(_NOT_ON_COMMAND_LINE)
    return text


def parse_windows_auth(text: str) -> tuple[str, str | None]:
    """Parse `keep` or `anonymous`, and the connection manager after `=`; None: all that no other option names."""
    mode, equals, name = text.partition("=")
    if mode not in {"keep", "anonymous"} or (equals and not name):
        raise argparse.ArgumentTypeError("give keep, anonymous, or one of them with =NAME of a connection manager")
    return mode, name or None


def parse_path_mapping(text: str) -> tuple[str, str]:
    r"""Parse a prefix of Windows paths, and the path on the workers that replaces it: `\\files\loads=/srv/loads`."""
    windows, _, worker = text.rpartition("=")
    if not windows.strip() or not worker.startswith("/"):
        raise argparse.ArgumentTypeError(
            r"write it as '\\server\share=/mnt/share': the Windows path, '=', the path on the workers"
        )
    return windows.strip(), worker


# --- relay


def run_relay(arguments: argparse.Namespace) -> int:
    """Run `relay`."""
    if arguments.password_env is not None and arguments.user is None:
        raise UsageError("--password-env needs a user. Give one with --user.")
    if arguments.like is None and (arguments.message_rate_limit, arguments.extended_protection) != (None, None):
        raise UsageError("--message-rate-limit and --extended-protection are of an Exchange. Add --like exchange.")
    from airflow_provider_smtpcm.testing import Exchange
    from airflow_provider_smtpcm.testing.command import run_relay

    personality = None
    if arguments.like is not None:
        personality = Exchange(
            message_rate_limit=arguments.message_rate_limit,
            extended_protection=arguments.extended_protection or "none",
        )
    return run_relay(
        port=arguments.port,
        ssl_mode=arguments.ssl_mode,
        user=arguments.user,
        password_env=arguments.password_env,
        save=arguments.save,
        personality=personality,
        inbox_port=None if arguments.inbox is False else arguments.inbox or 0,
    )


RELAY = Command(
    name="relay",
    help="run an SMTP server on this machine that shows what it receives",
    description="Run an SMTP server on this machine, for demos and tests. It shows each mail and forwards none.",
    arguments=(
        Argument(
            ("--port",),
            {"type": parse_port, "default": 0, "metavar": "N", "help": "the port (default: any free port)"},
        ),
        Argument(
            ("--ssl-mode",),
            {
                "type": parse_ssl_mode,
                "metavar": f"{{{','.join(_SSL_MODES)}}}",
                "default": "starttls",
                "help": "(default: %(default)s)",
            },
        ),
        Argument(
            ("--user",),
            {"metavar": "NAME", "help": r"require Windows Authentication as this user, such as 'CORP\alice'"},
        ),
        Argument(
            ("--password-env",),
            {
                "type": parse_variable_name,
                "metavar": "VARIABLE",
                "help": "the environment variable with the user's password (default: a new password, which is printed)",
            },
        ),
        Argument(
            ("--save",),
            {"type": Path, "metavar": "FOLDER", "help": "write each mail to this folder as an .eml file"},
        ),
        Argument(
            ("--like",),
            {
                "type": parse_personality,
                "metavar": "{exchange}",
                "help": "behave as an on-premises Exchange does: its replies, its limits, its delays",
            },
        ),
        Argument(
            ("--message-rate-limit",),
            {
                "type": parse_message_rate,
                "metavar": "N",
                "help": "of the Exchange: messages per minute from a user (default: no limit)",
            },
        ),
        Argument(
            ("--extended-protection",),
            {
                "type": parse_extended_protection,
                "metavar": f"{{{','.join(_EXTENDED_PROTECTION)}}}",
                "help": "of the Exchange: what it does about channel bindings (default: none)",
            },
        ),
        Argument(
            ("--inbox",),
            {
                "nargs": "?",
                "type": parse_port,
                # None without a port; Airflow's arguments have no `const`.
                "default": False,
                "metavar": "PORT",
                "help": "show the mails in a browser, at an address that is printed (default: any free port)",
            },
        ),
    ),
    run=run_relay,
)


# --- check


def run_check(arguments: argparse.Namespace) -> int:
    """Run `check`."""
    if sum(given is not None for given in (arguments.conn_id, arguments.uri, arguments.uri_env)) != 1:
        raise UsageError("exactly one connection is needed. Give CONN_ID, --uri - or --uri-env NAME.")
    from airflow_provider_smtpcm.check.command import run_check

    return run_check(
        conn_id=arguments.conn_id,
        from_stdin=arguments.uri is not None,
        uri_env=arguments.uri_env,
        as_json=arguments.output,
        every_binding=arguments.bindings,
    )


CHECK = Command(
    name="check",
    help="find out whether a connection works, step by step, and what to do if not",
    description=(
        "Go through every step to a mail server, as a task would: resolve the name, connect, encrypt, inspect the\n"
        "certificates, sign in. It ends with NOOP, never sends mail, and takes 30 seconds at most."
    ),
    arguments=(
        Argument(
            ("conn_id",),
            {"metavar": "CONN_ID", "nargs": "?", "type": parse_conn_id, "help": "an Airflow connection"},
        ),
        Argument(
            ("--uri",),
            {
                "metavar": "-",
                "type": parse_dash,
                "help": "read the connection from standard input: a URI (smtpcm://...) or Airflow's JSON",
            },
        ),
        Argument(
            ("--uri-env",),
            {"metavar": "NAME", "type": parse_variable_name, "help": "read it from an environment variable instead"},
        ),
        Argument(
            ("--bindings",),
            {
                "action": "store_true",
                "help": "sign in once with each channel binding and list those that the server accepts; up to three "
                "sign-ins, so a wrong password counts three times toward a lockout",
            },
        ),
        # Airflow's command line keeps its log off standard output if there is an argument `output`.
        Argument(("--json",), {"action": "store_true", "dest": "output", "help": "print one JSON object"}),
    ),
    epilog=(
        "exit status:\n"
        "  0  the connection works; warnings do not change this (in JSON the verdict is 'warning')\n"
        "  1  a step failed: the server, the account or the network is at fault\n"
        "  2  wrong arguments\n"
        "  3  the connection does not exist or cannot be used; nothing was tried"
    ),
    run=run_check,
)


# --- import-ssis


def run_import_ssis(arguments: argparse.Namespace) -> int:
    """Run `import-ssis`."""
    from airflow_provider_smtpcm.ssis.command import run_import

    return run_import(
        paths=arguments.paths,
        out=arguments.out,
        windows_auth=arguments.windows_auth or (),
        map_path=arguments.map_path or (),
        answers=arguments.answers or (),
        placeholders=arguments.placeholders,
        force=arguments.force,
        as_json=arguments.output,
    )


IMPORT_SSIS = Command(
    name="import-ssis",
    help="convert SSIS packages to DAGs and connections, and report what is left to decide",
    description=(
        "Convert the mail of SSIS packages: write the connections, a DAG for each package with a Send Mail task, and\n"
        "a report of what became of every property and what you have to decide. It needs no SSIS, sends nothing and\n"
        "contacts no server."
    ),
    arguments=(
        Argument(
            ("paths",),
            {
                "metavar": "PATH",
                "nargs": "+",
                "type": Path,
                "help": "a .dtsx, .ispac, .conmgr or .dtsConfig file, a folder with such files at any depth, or an "
                "export of the SSIS configuration table or of a catalog environment (.csv, .sql)",
            },
        ),
        Argument(
            ("--out",),
            {"type": Path, "metavar": "DIR", "required": True, "help": "the output folder; created if missing"},
        ),
        Argument(
            ("--windows-auth",),
            {
                "type": parse_windows_auth,
                "action": "append",
                "metavar": "{keep,anonymous}[=NAME]",
                "help": "what to do with Use Windows Authentication: keep it (default), or make the connection "
                "anonymous, as SSIS did where a relay offers no sign-in; with =NAME, only for the connection manager "
                "of that name; may be repeated",
            },
        ),
        Argument(
            ("--map-path",),
            {
                "type": parse_path_mapping,
                "action": "append",
                "metavar": r"'\\SRV\SHARE=/MNT/SHARE'",
                "help": "where a Windows path is on the workers; the longest prefix wins; may be repeated",
            },
        ),
        Argument(
            ("--answers",),
            {
                "type": Path,
                "action": "append",
                "metavar": "FILE",
                "help": "the questions.csv of an earlier import, with its column 'answer' filled in; may be repeated",
            },
        ),
        Argument(
            ("--placeholders",),
            {
                "choices": ("fail", "pass"),
                "default": "fail",
                "help": "what the placeholders of tasks that cannot be translated do: fail (default), or pass, for a "
                "walk-through of the DAGs",
            },
        ),
        Argument(("--force",), {"action": "store_true", "help": "also overwrite files in DIR that you have edited"}),
        # `dest` as in `check`.
        Argument(("--json",), {"action": "store_true", "dest": "output", "help": "print JSON instead of text"}),
    ),
    epilog=(
        "files in DIR:\n"
        "  connections.json  for 'airflow connections import'\n"
        "  dags/*.py         a DAG for each package with a Send Mail task\n"
        "  questions.csv     what you have to decide, each question once; for --answers\n"
        "  report.html       what became of every property; report.json is the same in machine-readable form\n"
        "\n"
        "A file in DIR that you have edited is kept, and the new text is written next to it, as NAME.new.\n"
        "\n"
        "exit status:\n"
        "  0  everything was converted\n"
        "  2  wrong arguments or paths, nothing could be read, or DIR cannot be written\n"
        "  3  you have something to decide, or something could not be read; the report says what"
    ),
    run=run_import_ssis,
)
