"""Reading settings that somebody else wrote, as JSON: bounded in size and depth, an object."""

import json
from pathlib import Path
from typing import Any

from imgalign.errors import InputError

LARGEST_BYTES = 4 * 2**20
"""Settings take a few kilobytes."""


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file; InputError, in one line, for anything else."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_BYTES:
        raise InputError(f"{path}: expected settings, got more than {LARGEST_BYTES:,} bytes")
    return parse_object(data, str(path))


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """The object that the text is; InputError, which begins with `where`, if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # a decoding error is a ValueError
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: expected json: {reason}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object, got {type(value).__name__}")
    return value
