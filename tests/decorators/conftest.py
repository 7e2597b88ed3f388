"""The servers of the operators' tests, for the decorator of one of them."""

from __future__ import annotations

from tests.operators.conftest import behind, relay, running_relay

__all__ = ["behind", "relay", "running_relay"]
