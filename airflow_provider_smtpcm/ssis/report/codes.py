"""What each finding means, by its code: the codes are promises, and `docs/from-ssis.md` tells the same."""

from __future__ import annotations

CODES = {
    # reading
    "configuration-applied": "A .dtsConfig file sets a value; it was used instead of the one in the package.",
    "configuration-not-read": "A package configuration has a value that is in no file here; the package's was used.",
    "configuration-switched-off": "The package names a configuration, but its configurations are switched off.",
    "configuration-unreadable": "A .dtsConfig file cannot be read.",
    "connection-manager-not-smtp": "The task refers to a connection manager of another kind; SSIS fails here, too.",
    "dangling-connection-manager": "The task refers to a connection manager that neither package nor project has.",
    "dangling-file-connection": "The text comes from a File connection manager that neither package nor project has.",
    "dangling-precedence-constraint": "A precedence constraint leads to or from something that is not there.",
    "no-connection-manager": "The task names no connection manager; SSIS fails here, too.",
    "other-mail-task": "A mail task of another maker, which is not read.",
    "unknown-format-version": "The package is of a format that is not known here; it was read as the nearest one.",
    "unknown-message-source-type": "MessageSourceType is none that SSIS knows.",
    "unknown-precedence": "A precedence constraint has a value that SSIS does not know.",
    "unreadable-mail": "The task's properties are missing or encrypted; only its expressions are known.",
    # connections
    "account-in-connection-manager": "Somebody wrote an account into the connection string; it was left out.",
    "connection-expression": "The connection comes from an expression; it has the value that the files give, or none.",
    "connection-manager-became": "Which Airflow connection a connection manager is.",
    "connection-manager-invalid": "A value of the connection manager cannot be one of a connection.",
    "connection-manager-property": "A property of the connection string has a strange value.",
    "no-smtp-server": "SmtpServer is empty, and SSIS fails here; the connection has to be completed.",
    "port-in-smtp-server": "SmtpServer has a port behind it, which SSIS ignores and the connection has.",
    "unknown-connection-property": "The connection string has a property that SSIS does not know.",
    "windows-auth-dropped": "Windows Authentication was ticked; the connection is anonymous, by --windows-auth.",
    "windows-auth-kept": "Windows Authentication is ticked: the connection signs in, or fails. SSIS may never have.",
    # mails
    "connection-to-choose": "Which connection manager is meant cannot be told; the mail has the default connection.",
    "expression-to-complete": "An expression is not known, has no template, or holds an account; complete the field.",
    "message-source-type": "MessageSourceType comes from an expression.",
    "message-variable-no-text": "The text comes from a variable that is no String; SSIS fails here, too.",
    "no-recipient": "The mail has nobody to go to, and SSIS fails here, too.",
    "no-sender": "FromLine is empty, and SSIS fails here; the sender of the connection is taken.",
    "param-without-value": "A variable is empty in the package or may be secret; its param of the DAG is empty.",
    "project-parameter": "A parameter of the project is an Airflow Variable, with the project's value as default.",
    "system-variable": "A system variable has something like it in Airflow; the finding says how it differs.",
    "unmapped-path": "A path of Windows, for which no --map-path says where it is on a worker.",
    "variable-became-param": "A variable is a param of the DAG, with its design-time value.",
    "variable-to-set": "A parameter of the project has no value in the files; the Airflow Variable is to be set.",
    # the order of the tasks, and event handlers
    "alert-without-to": "The mail of an event handler has no To, which an alert needs.",
    "callback-without-place": "An event has no callback there in Airflow; it is defined in the DAG and not called.",
    "condition-in-handler": "A condition in an event handler decides on the mail; the alert is always sent.",
    "condition-on-variables": "A condition asks variables; the DAG asks its params, until something computes them.",
    "condition-to-complete": "A condition has no template; it is to be written, and until then its task fails.",
    "disable-expression": "An expression decides whether the mail of an event handler is sent; it always is.",
    "event-without-callback": "Airflow has nothing like the event; its mail is not in the DAG.",
    "handler-became-callback": "The mail of an event handler is a callback; the finding says how often each is called.",
    "handler-of-handler": "The mail hangs on an event of an event handler; it is not in the DAG.",
    "loop-runs-once": "What stands in a loop runs once in the DAG.",
    # the run
    "edited-file-kept": "You edited a file in the output folder; it stayed, and the new text is beside it.",
    "importer-failed": "The importer itself failed: please report it. Everything else was converted all the same.",
}
