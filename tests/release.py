"""Checks of what `make dist` has built: the README on the package index, the changelog, and the tag of a release.

`twine check` does not render the README: to twine, Markdown cannot fail.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
import zipfile
from email import message_from_string
from html.parser import HTMLParser
from pathlib import Path

from readme_renderer import markdown

from airflow_provider_smtpcm import __version__

ROOT = Path(__file__).resolve().parent.parent
#: What is Markdown or HTML, and not text.
_SOURCE = re.compile(r"```.*|\]\(.*|\*\*.*|\|[ :]*-{3}.*|</?[a-z].*")


class _Page(HTMLParser):
    """Collects the ids, the links, the pictures, and the text outside of code."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.text = ""
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._code += tag in ("code", "pre")
        if "id" in found:
            self.ids.add(found["id"] or "")
        if tag == "a" and "href" in found:
            self.links.append(found["href"] or "")
        if tag == "img":
            self.pictures.append(found)

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre")

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text += data


def render(description: str) -> str:
    """Return the HTML of a description in Markdown.

    Raises:
        ValueError: the index would show the source, as text.
    """
    html = markdown.render(description)
    if html is None:
        raise ValueError("The description is not rendered: is `readme_renderer[md]` installed?")
    return html


def find_faults(html: str) -> list[str]:
    """Return what a reader would stumble over: dead links, pictures without alt, Markdown that is shown as source."""
    page = _Page()
    page.feed(html)
    addresses = [*page.links, *(picture.get("src") or "" for picture in page.pictures)]
    dead = [
        address
        for address in addresses
        if not address.startswith(("https://", "mailto:")) and address not in {f"#{name}" for name in page.ids}
    ]
    return [
        *(f"leads nowhere on the index: {address!r}" for address in dead),
        *(f"a picture without alt: {picture.get('src')}" for picture in page.pictures if not picture.get("alt")),
        *(f"shown as source: {text}" for text in _SOURCE.findall(page.text)),
    ]


def description_of(built: Path) -> str:
    """Return the description in a wheel or an sdist.

    Raises:
        ValueError: it is not declared as Markdown.
    """
    if built.suffix == ".whl":
        with zipfile.ZipFile(built) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = message_from_string(wheel.read(name).decode())
    else:
        with tarfile.open(built) as sdist:
            file = sdist.extractfile(f"{built.name.removesuffix('.tar.gz')}/PKG-INFO")
            assert file is not None
            metadata = message_from_string(file.read().decode())
    if metadata["Description-Content-Type"] != "text/markdown":
        raise ValueError(f"{built.name}: the description is {metadata['Description-Content-Type']}, not text/markdown")
    return str(metadata.get_payload())


def find_mismatches(*, version: str, changelog: str, tag: str) -> list[str]:
    """Return why this state of the project is not the release that the tag names."""
    newest = next(iter(re.findall(r"^## (.*)$", changelog, re.MULTILINE)), "empty")
    faults = []
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", newest):
        faults.append(f"CHANGELOG.md begins with {newest!r}, not with '[{version}] - ' and a date.")
    if tag != f"v{version}":
        faults.append(f"The tag is {tag!r}, and the version {version!r}.")
    return faults


def main() -> int:
    """Check the files that the command line names; return 1 if any has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    parser.add_argument("built", nargs="+", type=Path, help="wheels and sdists")
    parser.add_argument("--tag", help="the tag of the release; without it, only the files are checked")
    arguments = parser.parse_args()
    faults = [
        f"{path.name}: {fault}" for path in arguments.built for fault in find_faults(render(description_of(path)))
    ]
    if arguments.tag is not None:
        changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        faults += find_mismatches(version=__version__, changelog=changelog, tag=arguments.tag)
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
