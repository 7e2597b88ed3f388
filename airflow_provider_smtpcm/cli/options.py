"""The commands with their arguments and help. A command's code is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from airflow_provider_smtpcm.cli.arguments import (
    EXTENDED_PROTECTION,
    SSL_MODES,
    Argument,
    Command,
    UsageError,
    parse_conn_id,
    parse_dash,
    parse_date,
    parse_extended_protection,
    parse_json_object,
    parse_map_index,
    parse_message_rate,
    parse_path_mapping,
    parse_personality,
    parse_port,
    parse_recipient,
    parse_row_number,
    parse_ssl_mode,
    parse_variable_name,
    parse_windows_auth,
)

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
                "metavar": f"{{{','.join(SSL_MODES)}}}",
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
                "metavar": f"{{{','.join(EXTENDED_PROTECTION)}}}",
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
        send_to=arguments.send_to,
    )


CHECK = Command(
    name="check",
    help="find out whether a connection works, step by step, and what to do if not",
    description=(
        "Go through every step to a mail server, as a task would: resolve the name, connect, encrypt, inspect the\n"
        "certificates, sign in. It ends with NOOP and takes 30 seconds at most. It sends mail only with --send-to."
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
        Argument(
            ("--send-to",),
            {
                "metavar": "ADDRESS",
                "type": parse_recipient,
                "help": "then send a test mail and a sample alert to this address, from the connection's From address",
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


# --- preview


def run_preview(arguments: argparse.Namespace) -> int:
    """Run `preview`."""
    if arguments.run_id is not None and arguments.logical_date is not None:
        raise UsageError("a run has its own logical date. Give --run-id or --logical-date.")
    from airflow_provider_smtpcm.preview import run_preview

    return run_preview(
        dag_id=arguments.dag_id,
        task_id=arguments.task_id,
        output=arguments.output,
        rows=arguments.row or (),
        alert=arguments.alert,
        run_id=arguments.run_id,
        logical_date=arguments.logical_date,
        conf=arguments.conf,
        map_index=-1 if arguments.map_index is None else arguments.map_index,
    )


PREVIEW = Command(
    name="preview",
    help="write the mail of a task to a file, without sending it",
    description=(
        "Render the mail of a task as a run would, and write it to an .eml file, which every mail program opens.\n"
        "It contacts no mail server. A function with @task.send_mail is called. Variables, connections, and the \n"
        "outputs of other tasks of a run (--run-id) come from Airflow's database."
    ),
    arguments=(
        Argument(("dag_id",), {"metavar": "DAG", "help": "the id of the DAG"}),
        Argument(("task_id",), {"metavar": "TASK", "help": "the id of the task"}),
        Argument(
            ("--output",),
            {
                "type": Path,
                "metavar": "FILE",
                "help": "the file to write, with the row's number added to its name if there are several mails "
                "(default: TASK.eml)",
            },
        ),
        Argument(
            ("--row",),
            {
                "type": parse_row_number,
                "action": "append",
                "metavar": "N",
                "help": "of a mail merge: the number of the row, from 1; may be repeated (default: the first three)",
            },
        ),
        Argument(
            ("--alert",),
            {
                "choices": ("failure", "retry", "success"),
                "help": "the alert of the task, or else of its DAG, in this callback, instead of the task's mail",
            },
        ),
        Argument(("--run-id",), {"metavar": "ID", "help": "a run of the DAG (default: none; its date is now)"}),
        Argument(
            ("--logical-date",),
            {"type": parse_date, "metavar": "DATE", "help": "the logical date of a run that need not exist"},
        ),
        Argument(
            ("--conf",),
            {"type": parse_json_object, "metavar": "JSON", "help": "the configuration of the run, for the params"},
        ),
        Argument(
            ("--map-index",),
            {"type": parse_map_index, "metavar": "N", "help": "of a mapped task: the map index, from 0"},
        ),
    ),
    epilog=(
        "exit status:\n"
        "  0  the mail was written\n"
        "  1  the mail cannot be built\n"
        "  2  wrong arguments\n"
        "  3  there is no such DAG, task, run, row or alert"
    ),
    run=run_preview,
)


# --- from-smtp


def run_from_smtp(arguments: argparse.Namespace) -> int:
    """Run `from-smtp`."""
    from airflow_provider_smtpcm.from_smtp import run_from_smtp

    return run_from_smtp(
        conn_ids=arguments.conn_ids,
        output=arguments.output,
        basic_as=arguments.basic_as,
        show_passwords=arguments.show_passwords,
    )


FROM_SMTP = Command(
    name="from-smtp",
    help="convert connections of Airflow's own SMTP provider",
    description=(
        "Convert connections of type smtp, of apache-airflow-providers-smtp, to connections of type smtpcm, and say\n"
        "which cannot be converted, and why. It changes no connection: 'airflow connections import' reads its JSON."
    ),
    arguments=(
        Argument(
            ("conn_ids",),
            {
                "metavar": "CONN_ID",
                "nargs": "*",
                "type": parse_conn_id,
                "help": "connections (default: all of type smtp in Airflow's database and in the environment)",
            },
        ),
        Argument(
            ("--output",),
            {
                "choices": ("text", "json", "env"),
                "default": "text",
                "help": "a report (default), or with the report on standard error: JSON for 'airflow connections "
                "import', or environment variables",
            },
        ),
        Argument(
            ("--basic-as",),
            {
                "choices": ("windows", "anonymous"),
                "help": "what a sign-in with a password becomes: Windows Authentication with the same account, or no "
                "sign-in (default: such a connection is not converted)",
            },
        ),
        Argument(
            ("--show-passwords",),
            {"action": "store_true", "help": "print the passwords, which are left out otherwise"},
        ),
    ),
    epilog=(
        "exit status:\n"
        "  0  all were converted\n"
        "  1  some cannot be converted; the report says why\n"
        "  2  wrong arguments\n"
        "  3  a connection does not exist, or there is none"
    ),
    run=run_from_smtp,
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
