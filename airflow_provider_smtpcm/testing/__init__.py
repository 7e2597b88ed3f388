r"""`Relay`: an embedded SMTP server for demos and for tests of your own DAGs. Needs the `testing` extra, not Airflow.

>>> with Relay(users={r"CORP\alice": "secret"}) as relay:          # doctest: +SKIP
...     connection = relay.airflow_connection()
...     ...                                                        # send a mail through it
...     [mail] = relay.messages
...     assert mail.authenticated_as == r"CORP\alice"
"""

from __future__ import annotations

from airflow_provider_smtpcm.testing.exchange import Exchange
from airflow_provider_smtpcm.testing.relay import ReceivedMail, Relay, RelayError

__all__ = ["Exchange", "ReceivedMail", "Relay", "RelayError"]
