"""The README as a package index shows it: there, a link to a file of the repository needs the whole address.

Each leads to the release's own tag, so that an old release goes on showing its own pictures and files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: What is shown as it was written: a fenced block, or `code` within a paragraph.
CODE = re.compile(
    r"(^[ ]*(?P<fence>```+|~~~+).*?^[ ]*(?P=fence)[ ]*$|(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=ticks)(?!`))",
    re.MULTILINE | re.DOTALL,
)
#: The address of a link or of a picture, in Markdown or HTML, that is neither another site's nor a heading of the page.
PLACE = re.compile(
    r"""(?P<before>\]\(<?|^\[[^\]\n]+\]:[ ]+|\b(?:src|srcset|href)=["'])"""
    r"""(?![a-z][a-z0-9+.-]*:|[#/])(?P<place>[^\s)"'>]+)""",
    re.MULTILINE | re.IGNORECASE,
)
PICTURES = (".png", ".svg", ".gif", ".jpg", ".jpeg", ".webp")


class ReadmeOfTheIndex(MetadataHookInterface):
    """Makes the relative links of README.md absolute."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Hatchling calls this with the project's table, whose version it knows already."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = with_whole_addresses(text, metadata["urls"]["Repository"], f"v{metadata['version']}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def with_whole_addresses(text: str, repository: str, tag: str) -> str:
    """The same Markdown, with its relative links leading to that tag of the repository."""

    def whole(link: re.Match[str]) -> str:
        place = link["place"].removeprefix("./")
        view = "raw" if place.partition("#")[0].lower().endswith(PICTURES) else "blob"
        return f"{link['before']}{repository}/{view}/{tag}/{place}"

    parts: list[str] = []
    end = 0
    for code in CODE.finditer(text):
        parts += PLACE.sub(whole, text[end : code.start()]), code[0]
        end = code.end()
    return "".join((*parts, PLACE.sub(whole, text[end:])))
