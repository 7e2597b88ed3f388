"""The settings of `BindingServer` and what it reports, shared by both of its processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BindingSettings:
    """How the server behaves.

    Args:
        channel_binding: `require` right bindings; `allow` none or right ones; `none` ignores them.
        binding_type: which bindings are the right ones. `tls-unique` needs `max_tls="TLSv1_2"`.
        ssl_mode: as in a connection.
        signature: of the certificate; for Ed25519 no binding to it is defined.
        min_tls: a name of `ssl.TLSVersion`, as is `max_tls`.
        mechanisms: what is offered. `X-BIG` accepts a single token, whatever it is.
        spnego_layer: GSS-SPNEGO ends with the layer round of RFC 4752, as Dovecot's does and Cyrus' does not.
        token_line_limit: the longest line of base64, without CRLF. A command ends at 512 octets in any case.
        clock_offset: seconds by which the server's clock is ahead.
    """

    channel_binding: Literal["require", "allow", "none"] = "require"
    binding_type: Literal["tls-server-end-point", "tls-unique"] = "tls-server-end-point"
    ssl_mode: Literal["starttls", "implicit", "none"] = "starttls"
    signature: Literal["ECDSA", "Ed25519"] = "ECDSA"
    min_tls: str = "TLSv1_2"
    max_tls: str = "TLSv1_3"
    mechanisms: tuple[str, ...] = ("GSSAPI", "GSS-SPNEGO", "NTLM", "X-BIG")
    spnego_layer: bool = False
    token_line_limit: int = 12288
    clock_offset: int = 0


@dataclass(kw_only=True)
class Attempt:
    """One AUTH command and its result.

    Args:
        reply: the last line of the server's reply.
        user: None unless the sign-in succeeded.
        protocol: `kerberos` or `ntlm`, whichever mechanism carried it.
        bindings: `right`, `wrong` (NTLM does not distinguish that from another bad token), `absent`, `unchecked`, or
            None if it failed before.
        service: the service name that a Kerberos client asked for.
        flags: of the context, by GSSAPI's names.
        line_lengths: of each of the client's lines after the command, in octets without CRLF.
        initial_response: whether the client sent one, which is always refused.
        why: the acceptor's reason for a refusal, which the client never sees.
    """

    mechanism: str
    reply: str = ""
    user: str | None = None
    protocol: str | None = None
    bindings: str | None = None
    service: str | None = None
    flags: tuple[str, ...] = ()
    line_lengths: list[int] = field(default_factory=list)
    initial_response: bool = False
    why: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredMail:
    """A received mail.

    Args:
        authenticated_as: None for a client that did not sign in, which only a server without mechanisms allows.
    """

    authenticated_as: str | None
    mail_from: str
    recipients: tuple[str, ...]
    content: str
