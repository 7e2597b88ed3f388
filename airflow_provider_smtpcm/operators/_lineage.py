"""What a task reads and writes, told to Airflow's lineage; and what it did, to its assets' events. Fails no task.

Airflow collects lineage only where something reads it, such as its OpenLineage provider; elsewhere nothing is done. A
path that is an ObjectStoragePath reports itself when it is read or written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_smtpcm.hooks.smtpcm import SmtpConnectionManagerHook
    from airflow_provider_smtpcm.mail import Mail
    from airflow_provider_smtpcm.smtp.delivery import Delivery


log = logging.getLogger(__name__)

#: Of so many files a task tells at the most; Airflow keeps a hundred, unless its configuration says otherwise.
MOST = 1000
# Whatever takes part in lineage is somebody else's, and may raise anything.
_UNTOLD = "The lineage of this task is not complete: %s: %s"


class Lineage:
    """The files of one task.

    Args:
        hook: that what is told is told for.
    """

    def __init__(self, hook: SmtpConnectionManagerHook) -> None:
        self._hook = hook
        self._told: set[tuple[bool, str]] = set()

    def sent(self, mail: Mail, delivery: Delivery) -> None:
        """A mail was handed over whole, and its files were read for that; otherwise this tells nothing."""
        if not (mail.attachments or mail.inline_images) or self._collector is None:
            return
        if delivery.accepted or delivery.outcome == "unknown":
            for file in (*mail.attachments, *mail.inline_images):
                if file.path is not None:
                    self.read(file.path)

    def read(self, path: object) -> None:
        """A file was read."""
        self._tell(path, written=False)

    def written(self, path: object) -> None:
        """A file was written; one that was named by its URL has said so itself."""
        if not (isinstance(path, str) and "://" in path):
            self._tell(path, written=True)

    @cached_property
    def _collector(self) -> Any:
        """What collects lineage; None where nobody reads it. Not asked for before there is something to tell."""
        try:
            return _collector()
        except Exception as error:  # noqa: BLE001 - see _UNTOLD
            log.warning(_UNTOLD, type(error).__name__, error)
            return None

    def _tell(self, path: object, *, written: bool) -> None:
        if self._collector is None or len(self._told) >= MOST:
            return
        try:
            uri = _uri(path)
            if uri is None or (written, uri) in self._told:
                return
            self._told.add((written, uri))
            add: Callable[..., None] = self._collector.add_output_asset if written else self._collector.add_input_asset
            # Airflow's ObjectStoragePath, which may have reported itself, did so in its own name.
            add(context=path if type(path).__module__.startswith("airflow.") else self._hook, uri=uri)
        except Exception as error:  # noqa: BLE001 - see _UNTOLD
            log.warning(_UNTOLD, type(error).__name__, error)


def tell_outlets(context: Context, outlets: Sequence[Any], extra: Mapping[str, Any]) -> None:
    """Put what became of the mail into the events of the task's assets, for the DAGs that they start.

    Args:
        context: of the try.
        outlets: of the task.
        extra: numbers and names, and no addresses; what the DAG has put there itself stays.
    """
    if not outlets:
        return
    from airflow.sdk import Asset

    for outlet in outlets:
        try:
            if isinstance(outlet, Asset):
                event = context["outlet_events"][outlet]
                event.extra = {**extra, **event.extra}
        except Exception as error:  # noqa: BLE001 - the mail is out, and another try would send it again
            log.warning("The event of %r does not tell of the mail: %s: %s", outlet, type(error).__name__, error)


def _collector() -> Any:
    """What collects lineage; None where nobody reads it."""
    try:
        from airflow.sdk import lineage
    except ImportError:  # Airflow 3.1
        from airflow.lineage import hook as lineage  # type: ignore[attr-defined,no-redef]
    collector = lineage.get_hook_lineage_collector()
    return None if isinstance(collector, lineage.NoOpCollector) else collector


def _uri(path: object) -> str | None:
    """How the lineage names a file, which is how Airflow's own `file` assets and ObjectStoragePath do; None: not."""
    text = str(path)
    scheme, separator, rest = text.partition("://")
    if separator:  # as ObjectStoragePath writes it: without the connection id, or whatever else stands before an `@`
        netloc, slash, below = rest.partition("/")
        return f"{scheme}://{netloc.rpartition('@')[2]}{slash}{below}"
    if not isinstance(path, str | os.PathLike):
        return None
    # As it is, but for what would end the path in a URI.
    text = os.path.abspath(os.fspath(path))  # noqa: PTH100 - a Path keeps its `..`
    return f"file://{text.replace('?', '%3F').replace('#', '%23')}"
