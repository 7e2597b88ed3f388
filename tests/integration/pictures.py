"""The documents' pictures, which `make screenshots` takes in the browser: with a company's names, and small files."""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Locator, Page

IMAGES = Path(__file__).parents[2] / "docs/images"
MARGIN = 12
SETTLE_MS = 700  # an answer slides in
MAX_COLORS = 256  # of a PNG with a palette

_PUT_NAMES = """names => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode())
        for (const [ours, theirs] of Object.entries(names))
            texts.currentNode.data = texts.currentNode.data.replaceAll(ours, theirs)
}"""

_READ_PIXELS = """async png => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob())
    const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d")
    canvas.drawImage(image, 0, 0)
    const {data} = canvas.getImageData(0, 0, image.width, image.height)
    return [image.width, image.height, new Uint8Array(data.buffer).toBase64()]
}"""


def save_picture(page: Page, name: str, png: bytes) -> None:
    """Write a picture for the documents, with a palette: a third of what the browser's PNG takes.

    Args:
        page: of the browser that decodes the PNG.
        name: of the file.
        png: the screenshot.
    """
    assert page.context.browser is not None
    blank = page.context.browser.new_page()
    width, height, data = blank.evaluate(_READ_PIXELS, b64encode(png).decode())
    blank.close()
    pixels = memoryview(b64decode(data)).cast("I")
    palette, index = _choose_palette(Counter(pixels))
    rows = (bytes(map(index.__getitem__, pixels[start : start + width])) for start in range(0, len(pixels), width))
    (IMAGES / name).write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + _make_chunk(b"PLTE", b"".join(palette))
        + _make_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9))
        + _make_chunk(b"IEND", b"")
    )


def _choose_palette(counts: Counter[int]) -> tuple[list[bytes], dict[int, int]]:
    """Return at most 256 colors, and for each color of a picture the index of the nearest one.

    The next color is always the one that is missed most: by its pixels, and by how far the nearest color is from it.
    """
    channels = {color: color.to_bytes(4, "little")[:3] for color, _ in counts.most_common()}
    distance = dict.fromkeys(channels, 3 * 256**2)
    palette: list[bytes] = []
    index: dict[int, int] = {}
    while len(palette) < MAX_COLORS and any(distance.values()):
        red, green, blue = added = channels[max(channels, key=lambda color: counts[color] * distance[color])]
        for color, (r, g, b) in channels.items():
            squared = (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2
            if squared < distance[color]:
                distance[color], index[color] = squared, len(palette)
        palette.append(added)
    return palette, index


def _make_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def put_names(page: Page, names: Mapping[str, str]) -> None:
    """Replace this machine's names in the page with a company's."""
    page.evaluate(_PUT_NAMES, dict(names))


def picture_of_answer(page: Page, row: Locator, answer: Locator) -> bytes:
    """Return a picture of the answer of a test, and of the connection's row above it."""
    page.wait_for_timeout(SETTLE_MS)
    first, last = row.bounding_box(), answer.bounding_box()
    assert first is not None
    assert last is not None
    bottom = last["y"] + last["height"] + MARGIN
    return page.screenshot(clip={**first, "height": bottom - first["y"]})


def stacked(page: Page, *pictures: bytes) -> bytes:
    """Stack PNGs, since the form shows one section at a time."""
    images = "".join(
        f'<img style="display: block" src="data:image/png;base64,{b64encode(png).decode()}">' for png in pictures
    )
    scale = page.evaluate("devicePixelRatio")
    page.set_content(f'<div style="position: absolute; top: 0; left: 0; zoom: {1 / scale}">{images}</div>')
    return page.locator("div").screenshot()
