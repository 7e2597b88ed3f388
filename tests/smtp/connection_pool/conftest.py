"""What the tests of many mails share, as fixtures."""

from __future__ import annotations

import ssl

import pytest
import trustme


@pytest.fixture
def tls(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], authority: trustme.CA) -> tuple[ssl.SSLContext, str]:
    """A server's context, and the certificate of its authority."""
    return tls_contexts[0], authority.cert_pem.bytes().decode()
