"""The commands: their arguments, their help, and what runs them, which is elsewhere and imported only then."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# folded: What an argument may be: its text in its type, or argparse's error. A password is refused without being
#   repeated.

SSL_MODES = ("starttls", "none", "implicit")
_NOT_HERE = (
    "a connection on the command line shows its password to everybody in the process list; "
    "give it on standard input with '--uri -', or in an environment variable with '--uri-env NAME'"
)


def port(text: str) -> int:
    """A port number, or 0."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:  # the highest there is
        raise argparse.ArgumentTypeError("that is not a port; take one up to 65535, or 0 for any free one")
    return int(text)


def ssl_mode(text: str) -> str:
    """One of the relay's; argparse's own `choices` repeats what is none of them."""
    if text not in SSL_MODES:
        raise argparse.ArgumentTypeError(f"choose one of {', '.join(SSL_MODES)}")
    return text


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


def windows_auth(text: str) -> tuple[str, str | None]:
    """`keep` or `anonymous`, and the connection manager that it is about; None: all others."""
    mode, equals, name = text.partition("=")
    if mode not in {"keep", "anonymous"} or (equals and not name):
        raise argparse.ArgumentTypeError("say keep, anonymous, or one of them with =NAME of a connection manager")
    return mode, name or None


def path_mapping(text: str) -> tuple[str, str]:
    r"""The beginning of a Windows path, and where it is on the workers: `\\files\loads=/srv/loads`."""
    windows, _, worker = text.rpartition("=")
    if not windows.strip() or not worker.startswith("/"):
        raise argparse.ArgumentTypeError(r"write it as '\\server\share=/mnt/share': Windows's, '=', the workers'")
    return windows.strip(), worker


# folded: What a command is, for argparse as for Airflow. Knows no command.


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


# folded: here began the module itself


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


def run_import_ssis(arguments: argparse.Namespace) -> int:
    """`import-ssis`."""
    from airflow_provider_smtpcm.ssis.command import run_import

    return run_import(
        paths=arguments.paths,
        out=arguments.out,
        windows_auth=arguments.windows_auth or (),
        map_path=arguments.map_path or (),
        force=arguments.force,
        as_json=arguments.output,
    )


RELAY = Command(
    name="relay",
    help="run an SMTP server on this machine that shows what it receives",
    description="Run an SMTP server on this machine, for demos and tests. It shows what it gets and sends nothing on.",
    arguments=(
        Argument(
            ("--port",),
            {"type": port, "default": 0, "metavar": "N", "help": "where to listen (default: any free port)"},
        ),
        Argument(
            ("--ssl-mode",),
            {
                "type": ssl_mode,
                "metavar": f"{{{','.join(SSL_MODES)}}}",
                "default": "starttls",
                "help": "(default: %(default)s)",
            },
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
                "help": "a .dtsx, .ispac, .conmgr or .dtsConfig file, or a folder with such files at any depth",
            },
        ),
        Argument(
            ("--out",),
            {"type": Path, "metavar": "DIR", "required": True, "help": "the output folder; created if missing"},
        ),
        Argument(
            ("--windows-auth",),
            {
                "type": windows_auth,
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
                "type": path_mapping,
                "action": "append",
                "metavar": r"'\\SRV\SHARE=/MNT/SHARE'",
                "help": "where a Windows path is on the workers; the longest prefix wins; may be repeated",
            },
        ),
        Argument(("--force",), {"action": "store_true", "help": "also overwrite files in DIR that you have edited"}),
        # As in `check`.
        Argument(("--json",), {"action": "store_true", "dest": "output", "help": "print one JSON object for programs"}),
    ),
    epilog=(
        "files in DIR:\n"
        "  connections.json  for 'airflow connections import'\n"
        "  dags/*.py         a DAG for each package with a Send Mail task\n"
        "  report.html       what became of every property; report.json is the same for programs\n"
        "\n"
        "A file in DIR that you have edited is kept, and the new text is written next to it, as NAME.new.\n"
        "\n"
        "exit status:\n"
        "  0  everything was converted\n"
        "  2  wrong arguments, nothing could be read, or DIR cannot be written\n"
        "  3  you have something to decide, or something could not be read; the report says what"
    ),
    run=run_import_ssis,
)
