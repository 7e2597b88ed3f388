"""A real server for hostile mails, and what the tests of the operators share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.system_packages import skip_for_want_of, skip_unless_root
from tests.operators.servers import behind
from tests.torture.anonymous_postfix import AnonymousPostfix

__all__ = ["anonymous_postfix", "behind"]


@pytest.fixture(scope="session")
def anonymous_postfix() -> Iterator[AnonymousPostfix]:
    """One for all tests."""
    if missing := AnonymousPostfix.missing():
        skip_for_want_of(missing)
    skip_unless_root("Postfix")
    with AnonymousPostfix() as server:
        yield server
