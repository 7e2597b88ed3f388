"""Calls that ask a KDC: each has a timeout, and proves a password once. No Kerberos library.

A KDC counts a wrong password, and so does a server to which it is proved by NTLM. So before NTLM replaces a KDC that is
silent, it has to be known whether the KDC was sent a proof.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from airflow_provider_smtpcm.errors import AuthenticationError
from airflow_provider_smtpcm.smtp.auth.sasl import AccountRefusedError

#: After this many seconds, a call that still runs no longer prevents the next one. By then, the Kerberos library would
#: have given up on a silent KDC, so the call hangs for another reason.
STUCK_SECONDS = 90.0
#: A KDC that answers usually does so within a fraction of this many seconds. Once it was silent, sign-ins wait no
#: longer for it, until it has answered.
RECHECK_SECONDS = 0.5

T = TypeVar("T")


class TimedCalls:
    """Runs calls into the Kerberos library with a timeout, each in a thread. Thread-safe.

    The library has no timeout of its own and cannot be interrupted: a call that timed out continues in its thread.
    MIT's library gives up on a silent KDC after about half a minute.

    Args:
        credential_source: the source of the tickets, for the error.
    """

    def __init__(self, credential_source: str) -> None:
        self._credential_source = credential_source
        # The thread of the last call, and of the last one that timed out; and when it started (`time.monotonic`).
        self._last: tuple[threading.Thread, float] | None = None
        self._timed_out: tuple[threading.Thread, float] | None = None
        # The thread of the call that has proved the password to a KDC, until it is known that the password is right.
        self._proving: threading.Thread | None = None
        # Why the account was refused, as a call has found after it had timed out.
        self._late_refusal: AccountRefusedError | None = None
        # Held to decide whether a call has timed out, and whether it may prove the password.
        self._lock = threading.Lock()
        # The failure of the last call if it waited for a silent KDC; None: the last call got an answer.
        self._silence: AuthenticationError | None = None

    def run(self, function: Callable[[], T], *, timeout: float, proof_timeout: float = 0.0) -> T:
        """Return the result of a call.

        While a call that timed out still runs, the next one fails at once, since it would wait for the same KDC. After
        it has failed too, the next ones wait only for `RECHECK_SECONDS`. So all sessions wait for a silent KDC once,
        not one after another, and a KDC that answers again is used again.

        Args:
            function: makes the call.
            timeout: how long to wait, in seconds.
            proof_timeout: how long to wait in all, if that is longer, once the call has proved the password to a KDC,
                which counts a wrong one: nobody may prove it again before it is known to be right.

        Raises:
            AuthenticationError: it timed out; `AccountRefusedError` if it has proved the password and got no answer to
                that, or if a call that timed out was refused later. An error of the call itself is raised unchanged.
        """
        if self._late_refusal is not None:
            raise copy.copy(self._late_refusal)
        self._raise_if_running(self._timed_out)
        timeout = timeout if self._silence is None else min(timeout, RECHECK_SECONDS)
        start = time.monotonic()
        outcome: list[Any] = []

        def call() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = function()
            except BaseException as problem:  # noqa: BLE001 - raised in the caller's thread
                error = problem
            if not (isinstance(error, AuthenticationError) and error.retryable):
                self._silence = None
            elif time.monotonic() - start > RECHECK_SECONDS:
                self._silence = copy.copy(error)
            with self._lock:
                outcome.append((result, error))
                if self.is_proving():
                    self._proving = None
                if self.has_timed_out() and isinstance(error, AccountRefusedError):
                    self._late_refusal = copy.copy(error)

        thread = threading.Thread(target=call, daemon=True, name="smtpcm-kerberos")
        self._last = thread, start
        thread.start()
        self._wait_for(outcome, (thread, start), timeout, max(timeout, proof_timeout))
        result, error = outcome[0]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _wait_for(
        self, outcome: list[Any], call: tuple[threading.Thread, float], timeout: float, longest: float
    ) -> None:
        """Wait until a call has ended: for the timeout, or longer if the call has proved the password by then."""
        thread, start = call
        for seconds in (timeout, longest):
            thread.join(max(0.0, start + seconds - time.monotonic()))
            with self._lock:
                is_unanswered = self._proving is thread
                if outcome:
                    return
                if not is_unanswered or seconds == longest:
                    self._timed_out = call
                    break
        error = self._timeout_error(seconds)
        if is_unanswered:
            raise unanswered_proof_error(self._credential_source, error) from error
        self._silence = self._silence or error
        raise copy.copy(self._silence)

    def has_timed_out(self) -> bool:
        """Return whether this thread's call has timed out: its result is no longer waited for."""
        return self._timed_out is not None and self._timed_out[0] is threading.current_thread()

    def begin_proof(self, *, is_awaited: bool) -> bool:
        """Record that this thread's call is about to prove the password to a KDC.

        Args:
            is_awaited: whether it may do so only if its result is still waited for.

        Returns:
            Whether it may.
        """
        with self._lock:
            if is_awaited and self.has_timed_out():
                return False
            self._proving = threading.current_thread()
            return True

    def is_proving(self) -> bool:
        """Return whether this thread's call has proved the password, and the password is not known to be right."""
        return self._proving is threading.current_thread()

    def end_proof(self) -> None:
        """Record that the password of this thread's call is right."""
        with self._lock:
            if self.is_proving():
                self._proving = None

    def raise_if_silent(self) -> None:
        """Raise the error for a KDC that has not answered, if a call waits for one.

        Raises:
            AuthenticationError: the last call, or the last one that timed out, still runs.
        """
        self._raise_if_running(self._timed_out)
        self._raise_if_running(self._last)

    def _raise_if_running(self, call: tuple[threading.Thread, float] | None) -> None:
        if call is not None and call[0].is_alive() and (seconds := time.monotonic() - call[1]) < STUCK_SECONDS:
            silence = self._silence  # the call may end meanwhile
            raise copy.copy(silence) if silence is not None else self._timeout_error(seconds)

    def _timeout_error(self, seconds: float) -> AuthenticationError:
        return AuthenticationError(
            f"Kerberos ({self._credential_source}): no KDC answered within {round(seconds, 1):g} seconds.",
            remedy="Check krb5.conf, the network and the firewall between this worker and the KDC (port 88).",
            retryable=True,
        )


def unanswered_proof_error(credential_source: str, cause: AuthenticationError) -> AccountRefusedError:
    """Return the error for a KDC that has not said whether the password is right, which it may have counted as wrong.

    Args:
        credential_source: the source of the ticket.
        cause: why there is no answer.
    """
    return AccountRefusedError(
        f"Kerberos ({credential_source}): a KDC was sent proof of the password, and has not said whether it is right. "
        f"{cause.message}",
        remedy="Check 'User name' and 'Password', and the network and the firewall between this worker and the KDC "
        "(port 88); then run the task again. The password was not sent again, to avoid locking the account.",
    )
