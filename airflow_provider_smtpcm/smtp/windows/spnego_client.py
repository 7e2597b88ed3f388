"""The one door to pyspnego's security contexts, which keeps their tokens out of every log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spnego import ContextProxy, ContextReq
    from spnego.channel_bindings import GssChannelBindings


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

    # It logs every token at DEBUG, and with an NTLM token the password can be guessed off-line.
    logging.getLogger("spnego").setLevel(logging.INFO)
    return spnego.client(
        credential,
        hostname=host,
        service=service,
        protocol=protocol,
        context_req=wanted,
        channel_bindings=bindings,
    )
