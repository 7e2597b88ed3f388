"""The one place where pyspnego's security contexts are made, which keeps their tokens out of every log."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spnego import ContextProxy, ContextReq
    from spnego.channel_bindings import GssChannelBindings

_deciding = threading.Lock()


def _keep_tokens_out_of_logs() -> None:
    """Raise pyspnego's loggers to INFO where they would log more, and lower none.

    At DEBUG it logs every token, and with an NTLM token the password can be guessed off-line. Each of its modules has a
    logger of its own, which may have been given a level of its own.
    """
    with _deciding:
        known = logging.Logger.manager.loggerDict
        below = [name for name in list(known) if name.startswith("spnego.")]
        for name in ("spnego", *below):
            logger = logging.getLogger(name)
            if logger.getEffectiveLevel() < logging.INFO:
                logger.setLevel(logging.INFO)


def spnego_client(
    credential: Any,
    *,
    protocol: str,
    service: str,
    host: str,
    wanted: ContextReq,
    bindings: GssChannelBindings | None,
) -> ContextProxy:
    """A client's context before its first step.

    Args:
        credential: one of pyspnego's credential objects; None for the worker's own identity.
        protocol: `kerberos`, `ntlm`, or `negotiate` for SPNEGO.
        service: the first half of the server's name in Kerberos.
        host: the second half.
        wanted: what the context must be able to do.
        bindings: what ties it to the TLS line.
    """
    import spnego

    _keep_tokens_out_of_logs()
    return spnego.client(
        credential,
        hostname=host,
        service=service,
        protocol=protocol,
        context_req=wanted,
        channel_bindings=bindings,
    )
