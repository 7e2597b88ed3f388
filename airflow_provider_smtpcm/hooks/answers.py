"""What Airflow's *Test* button answers, worded for the small box in which the browser shows it on one line.

Names the machine that ran the test: the button runs it on the API server, whose files, names and firewall need not be
a worker's.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.errors import ConnectionSettingsError, MailError

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.session import Session

# The answer says them in words of its own.
_TOLD = frozenset({"AUTH", "SIZE", "STARTTLS"})


def good_answer(session: Session) -> str:
    """How the session got in, and what the server can do."""
    manager, limit = session.manager, session.size_limit
    facts = [
        f"Connected to {session.wire.peer} from {socket.gethostname()}",
        session.tls_version or "clear text, no TLS",
        f"signed in by {session.signed_in}" if session.signed_in else "anonymous",
        f"messages up to {limit:,} octets" if limit else "no size limit given",
        f"offers {', '.join(key for key in session.extensions if key not in _TOLD) or 'no extension'}",
    ]
    return " ".join((f"{'; '.join(facts)}.", *(f"Warning: {warning}" for warning in manager.warnings)))


def bad_answer(error: MailError, *, limit: float | None) -> str:
    """What went wrong and what to do about it.

    Args:
        error: what ended the test.
        limit: seconds that a test may take, where it took them all.
    """
    if isinstance(error, ConnectionSettingsError):
        # Without the connection's id: Airflow tests under one that it makes up.
        if len(error.faults) == 1:
            return f"This connection cannot be used: {error.faults[0]}"
        numbered = " ".join(f"({number}) {fault}" for number, fault in enumerate(error.faults, 1))
        return f"This connection cannot be used, for {len(error.faults)} reasons: {numbered}"
    ceiling = "" if limit is None else f" A test takes {limit:g} seconds at the most, whatever 'Timeout' says."
    return f"{error}{ceiling} (Tested on {socket.gethostname()}.)"
