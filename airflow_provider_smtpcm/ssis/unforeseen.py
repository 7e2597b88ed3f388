"""What to say of an error that nobody foresaw: one line with its place, instead of a page of traceback."""

from __future__ import annotations

import traceback
from pathlib import Path

REPORT_IT = "Please report it, with the package if you can: nothing of it is needed but what concerns the mail."
_HERE = Path(__file__).parent


def told(error: Exception) -> str:
    """The error and the line of ours that it came from: all that somebody needs who mends it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_HERE)
    ]
    place = f" ({Path(frames[-1].filename).relative_to(_HERE)}, line {frames[-1].lineno})" if frames else ""
    return f"The importer itself failed here: {type(error).__name__}: {error}{place}."
