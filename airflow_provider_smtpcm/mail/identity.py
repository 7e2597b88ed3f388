"""Message-IDs (RFC 5322 3.6.4): a random one, and one that every try of the same mail bears."""

from __future__ import annotations

import os
from functools import cache
from itertools import count

from airflow_provider_smtpcm.mail.domain import ascii_domain

_made = count()


def new_message_id(domain: str) -> str:
    """A Message-ID that nobody has used.

    Args:
        domain: the sender's, as `Address.domain` has it.
    """
    # The system is asked for random octets once for each process: for each mail it would cost a tenth of sending it.
    return f"<{_of_this_process()}{next(_made):08x}@{ascii_domain(domain)}>"


def stable_message_id(domain: str, *parts: str | int) -> str:
    """The Message-ID that these parts, in this order, always have.

    Args:
        domain: the sender's, as `Address.domain` has it.
        parts: what makes the mail this one and no other, such as the DAG, the run, the task and the map index.
    """
    import hashlib

    if not parts:
        raise ValueError("Without parts every mail would have the same Message-ID.")
    octets = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    # With its length before it, ("a", "bc") is not ("ab", "c").
    digest = hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in octets]))
    return f"<{digest.hexdigest()[:32]}@{ascii_domain(domain)}>"


@cache
def _of_this_process() -> str:
    return os.urandom(12).hex()


os.register_at_fork(after_in_child=_of_this_process.cache_clear)
