"""Failover: chooses which of a connection's servers a session is opened to (`fallback_hosts`). No sockets.

A server counts as down if it cannot be reached: its name is not resolved, no address answers, it greets with anything
but 220, or it is silent, hangs up, says 421 or something that is not SMTP before it has answered EHLO. A failure after
that (no STARTTLS, a certificate that is not trusted, a refused sign-in) is no reason to use another server: that would
hide the fault, and try a wrong password twice.

Each process remembers for a minute which servers are down, and tries them last. After that minute, one session at a
time tries again. Connections share that only if they reach the server in the same way; see `_get_reach`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from airflow_provider_smtpcm.connection_manager import AuthMode, SmtpConnectionManager, SslMode
from airflow_provider_smtpcm.errors import AuthenticationError, ConnectError, MailError
from airflow_provider_smtpcm.smtp.throttling import ServerProfile
from airflow_provider_smtpcm.smtp.transport import format_peer

if TYPE_CHECKING:
    from airflow_provider_smtpcm.smtp.auth.negotiation import WindowsAuthenticator

log = logging.getLogger(__name__)

#: For this many seconds after a failure to reach a server, the other servers are tried first.
DOWN_SECONDS = 60.0
# A server whose failure took at least this many seconds is tried after those that failed at once. One that had less
# time to answer is not remembered as down.
_SLOW_SECONDS = 1.0


class Outage:
    """Why a server counts as down.

    Args:
        error: the message of the error; the error itself would keep the frames of its traceback.
        is_slow: whether it took long to fail.
        until: when (`time.monotonic`) the server may be tried again.
        may_be_limit: whether the server may have reached a limit on connections: it failed at once, or it answered,
            perhaps late on purpose, as a tarpit does.
    """

    __slots__ = ("error", "is_slow", "may_be_limit", "until")

    def __init__(self, error: str, *, is_slow: bool, until: float, may_be_limit: bool = False) -> None:
        self.error = error
        self.is_slow = is_slow
        self.until = until
        self.may_be_limit = may_be_limit


# The servers that are down, by `_get_reach`. Threads share it without a lock: each access is one dict operation.
_outages: dict[Hashable, Outage] = {}


def _get_reach(manager: SmtpConnectionManager) -> Hashable:
    """Return the settings that decide whether a server can be reached.

    Connections in which they differ share no outage: one that waits for a second says nothing to one that waits for a
    minute, nor does one whose TLS settings fail before the greeting.
    """
    tls = None
    if manager.ssl_mode is SslMode.IMPLICIT:
        files = manager.ca_certificate, manager.client_certificate, manager.client_key
        tls = (manager.verify_certificate, *files)
    return manager.server_name.lower(), manager.port, manager.timeout, manager.local_hostname, tls


class Server:
    """One server of a connection, and what sessions to it share.

    Args:
        rank: its place in the order, from 0.
        manager: the connection manager for it alone.
        authenticator: signs in there; None: anonymous.
    """

    def __init__(self, rank: int, manager: SmtpConnectionManager, authenticator: WindowsAuthenticator | None) -> None:
        self.rank = rank
        self.manager = manager
        self.authenticator = authenticator
        self.profile = ServerProfile()
        self.peer = format_peer(manager.host, manager.port)
        self._reach = _get_reach(manager)
        # Why no session could be opened although the server was reached: for this connection alone.
        self._unusable: Outage | None = None

    @property
    def outage(self) -> Outage | None:
        """Why the server counts as down; None if it does not."""
        return self._unusable or _outages.get(self._reach)

    def mark_down(self, outage: Outage) -> bool:
        """Remember that the server cannot be reached; return whether that is news."""
        is_news = _outages.setdefault(self._reach, outage) is outage
        _outages[self._reach] = outage
        return is_news

    def mark_unusable(self, outage: Outage) -> None:
        """Remember, for this connection alone, that no session can be opened to the server, which was reached."""
        self._unusable = outage

    def mark_up(self) -> None:
        """Remember that the server has been reached."""
        self._unusable = None
        if _outages.pop(self._reach, None) is not None:
            log.info("%s can be reached again.", self.peer)

    def claim(self) -> bool:
        """Return whether the caller may try a server that was down again, as the only one for now."""
        outage, now = self.outage, time.monotonic()
        if outage is None or now < outage.until:
            return False
        # Connecting and the greeting may take a timeout each.
        outage.until = now + DOWN_SECONDS + 2 * self.manager.timeout
        return True

    def retry_soon(self) -> None:
        """Let the next session try the server first again, if it is down."""
        if (outage := self.outage) is not None:
            outage.until = 0.0


#: Opens a session to a server, whose `mark_up` it calls if the server can be reached. The second argument is the
#: deadline (`time.monotonic`) for reaching it; None: no deadline. Returns None on success, and the error if the server
#: cannot be reached; raises any other error.
TryServer = Callable[[Server, float | None], MailError | None]


class Failover:
    """The servers of a connection, in their order. Each hook has one; thread-safe.

    Args:
        manager: a connection manager with `fallback_hosts`.
    """

    def __init__(self, manager: SmtpConnectionManager) -> None:
        managers = manager.list_servers()
        authenticators: list[WindowsAuthenticator | None] = [None] * len(managers)
        if manager.auth_mode is AuthMode.WINDOWS:
            from airflow_provider_smtpcm.smtp.auth.negotiation import AccountState, WindowsAuthenticator

            account = AccountState()
            authenticators = [WindowsAuthenticator(one, account=account) for one in managers]
        #: The servers; the place of each is its `rank`.
        self.servers = tuple(map(Server, range(len(managers)), managers, authenticators))

    def connect(self, try_server: TryServer, give_up_at: float | None) -> dict[int, Outage]:
        """Try the servers until one can be reached: those that are down last.

        Args:
            try_server: opens the session.
            give_up_at: the deadline for all servers together, which share the time that is left; None: no deadline.

        Returns:
            Why each server that comes before the one in use is not used, by its rank.

        Raises:
            ConnectError: none can be reached; the message has the cause of each.
            MailError: one was reached, but no session could be opened.
        """
        order = self._list_in_order()
        passed_over = {server.rank: server.outage for server in order}
        errors: list[MailError] = []
        for position, server in enumerate(order):
            now = time.monotonic()
            reach_by = None if give_up_at is None else now + (give_up_at - now) / (len(order) - position)
            if errors and reach_by is not None and reach_by <= now:
                errors.append(ConnectError(f"No time was left to try {server.peer}."))
                continue
            try:
                error = try_server(server, reach_by)
            except BaseException as problem:
                server.retry_soon()  # if it was not reached, it was claimed in vain
                if isinstance(problem, MailError):
                    self._on_unusable(server, problem, errors)
                raise
            if error is None:
                return {rank: one for rank, one in passed_over.items() if one is not None and rank < server.rank}
            errors.append(error)
            failed_at = time.monotonic()
            outage = passed_over[server.rank] = _outage(error, failed_at - now)
            if reach_by is not None and failed_at >= reach_by and reach_by < now + _SLOW_SECONDS:
                continue  # it had too little time
            if server.mark_down(outage) and position + 1 < len(order):
                log.warning(
                    "%s Falling back to %s; %s is tried again in %g seconds.",
                    error.message,
                    order[position + 1].peer,
                    server.peer,
                    DOWN_SECONDS,
                )
        raise _unreachable_error(errors)

    def next_probe_at(self, rank: int) -> float:
        """Return when (`time.monotonic`) a server better than this rank may be tried again."""
        outages = [server.outage for server in self.servers[:rank]]
        return min((-math.inf if outage is None else outage.until for outage in outages), default=math.inf)

    def claim_probe(self, rank: int) -> Server | None:
        """Return a server that may be tried again, to be passed to `probe`; None if there is none.

        Args:
            rank: that of the server in use; only better ones are tried.
        """
        return next((server for server in self.servers[:rank] if server.outage is None or server.claim()), None)

    def probe(self, server: Server, try_server: TryServer) -> bool:
        """Try a server again; return whether a session was opened to it. Never raises."""
        began_at = time.monotonic()
        try:
            error = try_server(server, None)
        except Exception as problem:  # noqa: BLE001 - it must not end a batch whose other server does its work
            log.warning("Mail is still sent through a fallback host. %s", problem)
            error = problem if isinstance(problem, MailError) else MailError(repr(problem))
            server.mark_unusable(_outage(error, time.monotonic() - began_at))
            return False
        if error is not None:
            server.mark_down(_outage(error, time.monotonic() - began_at))
        return error is None

    def on_closed(self, server: Server, error: MailError) -> None:
        """Try a server last for a while: it has closed a session before the session was used."""
        log.warning("Mail is still sent through a fallback host. %s", error)
        server.mark_unusable(_outage(error, 0.0))

    def _list_in_order(self) -> list[Server]:
        """Return the servers that are not down, and then the others: those first of which that is known at once.

        A server that may be tried again keeps its place, for the session that gets this list.
        """
        up: list[Server] = []
        down: list[Server] = []
        for server in self.servers:
            # Nothing may come before a claimed server, or it might not be tried.
            (up if server.outage is None or (not up and server.claim()) else down).append(server)
        return [*up, *sorted(down, key=lambda server: server.outage is not None and server.outage.is_slow)]

    def _on_unusable(self, server: Server, problem: MailError, errors: list[MailError]) -> None:
        """Complete the error of a server that can be reached, and to which no session can be opened.

        Args:
            server: the server.
            problem: its error.
            errors: those of the servers tried before.
        """
        if errors:
            problem.message += f" ({server.peer} is a fallback host. {' '.join(error.message for error in errors)})"
        if server.rank:
            # The server before it may be back by then. A sign-in is not repeated: it may count towards a lockout.
            problem.retryable = problem.retryable or not isinstance(problem, AuthenticationError)
            for better in self.servers[: server.rank]:
                better.retry_soon()


def _outage(error: MailError, seconds: float) -> Outage:
    """Return the outage of a server that took so many seconds to fail."""
    is_slow = seconds >= _SLOW_SECONDS
    may_be_limit = error.reply is not None or not is_slow
    return Outage(error.message, is_slow=is_slow, until=time.monotonic() + DOWN_SECONDS, may_be_limit=may_be_limit)


_UNREACHABLE_REMEDY = (
    "Check 'SMTP server', 'Port' and 'Fallback hosts', that one of these servers runs, and that no firewall blocks "
    "this worker."
)


def _unreachable_error(errors: list[MailError]) -> ConnectError:
    # A server that was connected to may have a reason of its own, such as the client's certificate.
    remedies = [error.remedy for error in errors if error.reply is not None or not isinstance(error, ConnectError)]
    return ConnectError(
        f"None of the servers can be reached. {' '.join(error.message for error in errors)}",
        remedy=" ".join((_UNREACHABLE_REMEDY, *dict.fromkeys(remedies))),
        reply=next((error.reply for error in reversed(errors) if error.reply is not None), None),
        retryable=any(error.retryable for error in errors),
    )
