"""A mail with its place in a batch, and who of its recipients is still to be asked. Knows no socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from airflow_provider_smtpcm.errors import Reply
from airflow_provider_smtpcm.mail import Mail


@dataclass(slots=True)  # nobody changes one; to freeze it would double what it takes to make one
class Errand:
    """What is to be done about one mail.

    Args:
        index: its number in the batch, which its delivery bears.
        mail: what is said; its header names all recipients, whoever is still to be asked.
        recipients: the addresses that are still to be asked; None: all.
        accepted: who has it already.
        refused: who was refused for good.
    """

    index: int
    mail: Mail
    recipients: tuple[str, ...] | None = None
    accepted: tuple[str, ...] = ()
    refused: Mapping[str, Reply] = field(default_factory=dict)


def in_order(mails: Iterable[Mail]) -> Iterator[Errand]:
    """An errand for each mail, by its place."""
    return (Errand(index, mail) for index, mail in enumerate(mails))
