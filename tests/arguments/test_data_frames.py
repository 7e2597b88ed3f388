"""Addresses in pandas' containers, of which an Airflow takes some versions only."""

from __future__ import annotations

import pytest

from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.mail.address_list import parse_addresses


def to(value: object) -> list[str]:
    return [str(address) for address in parse_addresses(value, field="To")]  # type: ignore[arg-type]


def test_a_data_frame_is_explained_and_its_column_is_taken() -> None:
    """Iterating over a frame yields the names of its columns."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"email": ["a@x.example", None, float("nan")]})
    with pytest.raises(MessageError, match=r"frame\['email'\]\.tolist\(\)"):
        to(frame)
    assert to(frame["email"]) == to(frame["email"].tolist()) == to(frame["email"].to_numpy()) == ["a@x.example"]
