"""The rendered fields of an alert. A fault in one of them becomes a notice in the mail instead of an error."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_smtpcm.arguments import as_text, is_empty
from airflow_provider_smtpcm.errors import MessageError
from airflow_provider_smtpcm.notifications.redaction import quote_error

if TYPE_CHECKING:
    import jinja2

log = logging.getLogger(__name__)

#: The fields with addresses, of which one that is wrong loses only itself.
ADDRESS_FIELDS = ("from_address", "to", "cc", "bcc", "reply_to", "envelope_from")
# An expression, a statement or a comment of Jinja.
_TEMPLATE = r"(?s)\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}"


class RenderedFields:
    """A notifier's fields, rendered one by one, so that a broken template affects no other field.

    Args:
        fields: the fields by name, as the DAG's author wrote them.
        render: renders a field, given its name and value.
    """

    def __init__(self, fields: Mapping[str, Any], render: Callable[[str, Any], Any]) -> None:
        self.values: dict[str, Any] = {}
        #: One line for each fault, for the reader of the mail.
        self.notices: list[str] = []
        #: Whether a field other than an address is broken, so that the default page takes the place of the bodies.
        self.is_broken = False
        for name, value in fields.items():
            try:
                self.values[name] = value if is_empty(value) else render(name, value)
            except Exception as error:  # noqa: BLE001 - a template can raise anything
                if isinstance(value, str) and "{" not in value:
                    self.values[name] = value  # not a template: the value needs no rendering
                if name in ADDRESS_FIELDS:
                    self._render_each_address(name, value, render, error)
                else:
                    self._add_failure(name, error)

    def _render_each_address(
        self, name: str, value: Any, render: Callable[[str, Any], Any], failure: Exception
    ) -> None:
        """Render the parts of a field by themselves, since one that is broken must not lose the others."""
        from airflow_provider_smtpcm.mail.address_list import split_everywhere
        from airflow_provider_smtpcm.mail.tainted import DATA, TaintedStr

        parts = list(value) if isinstance(value, list | tuple | set) else [value]
        if isinstance(value, str):
            mask = re.sub(_TEMPLATE, lambda found: DATA * len(found[0]), value)
            parts = [str.__str__(part) for part in split_everywhere(TaintedStr(value, mask))[0]]
        if len(parts) == 1:
            self._add_failure(name, failure)
            return
        rendered: list[Any] = []
        for part in parts:
            try:
                rendered += render(name, [part])
            except Exception as error:  # noqa: BLE001 - as above
                self._add_failure(name, error)
        self.values[name] = rendered

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)

    @property
    def conn_id(self) -> str:
        """The id of the connection."""
        return str(self["smtpcm_conn_id"])

    def render_body(self, name: str, encoding: str, environment: jinja2.Environment, context: Any) -> str | None:
        """Return a body from its field or its file; None if it is empty or cannot be rendered.

        Args:
            name: `text` or `html`.
            encoding: the encoding of the file.
        """
        value, file = self[name], self[f"{name}_file"]
        try:
            if value and file:
                raise MessageError(f"'{name}' and '{name}_file' are both set.", remedy="Set only one of them.")
            if not file:
                from airflow_provider_smtpcm.arguments.body_files import read_body

                return as_text(read_body(name, value, encoding)) or None
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            self._add_failure(f"{name}_file" if file else name, error)
            return None
        return self.render_file(f"{name}_file", file, encoding, environment, context)

    def render_file(
        self,
        name: str,
        file: str,
        encoding: str,
        environment: jinja2.Environment,
        context: Any,
        *,
        of: str = "notifier",
    ) -> str | None:
        """Return the text of a template file; None if it is empty or cannot be rendered.

        Args:
            name: the argument or the setting that names the file.
            file: a path, or a name in `template_searchpath`.
            encoding: the encoding of the file.
            of: what has that argument or setting, for the notice.
        """
        from airflow_provider_smtpcm.arguments.body_files import render_body_file

        try:
            return render_body_file(name, file, encoding, environment, context) or None
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            self._add_failure(name, error, of=of)
            return None

    def add_omission(self, omitted: str, error: Exception) -> None:
        """Add a notice that something was left out of the mail.

        Args:
            omitted: the beginning of the notice, such as "The files were".
            error: the reason.
        """
        self.add_notice(f"{omitted} left out of this mail: {quote_error(error)}")

    def add_notice(self, notice: str) -> None:
        """Add one line for the reader of the mail and for the log."""
        if notice not in self.notices:
            self.notices.append(notice)
            log.warning("SendMailNotifier: %s", notice)

    def _add_failure(self, name: str, error: Exception, *, of: str = "notifier") -> None:
        self.is_broken |= name not in ADDRESS_FIELDS
        quoted = quote_error(error)
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        self.notices.append(f"The {of}'s '{name}' could not be rendered ({type(error).__name__}{where}: {quoted}).")
        log.warning(
            "SendMailNotifier: '%s' could not be rendered (%s%s: %s); %s. Fix the template in the %s; "
            "`| default('')` keeps it from failing if an attribute is missing.",
            name,
            type(error).__name__,
            where,
            quoted,
            "the mail is sent without it" if name in ADDRESS_FIELDS else "the default page is sent instead",
            "DAG" if of == "notifier" else of,
        )
