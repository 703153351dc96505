"""Reading settings that somebody else wrote, as JSON: bounded in size and depth, an object."""

from pathlib import Path
from typing import Any

from imgalign.errors import InputError
from imgalign.files import parse_json
from imgalign.images import read_plain_file

LARGEST_BYTES = 4 * 2**20
"""Settings take a few kilobytes."""


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file; InputError, in one line, for anything else."""
    try:
        data = read_plain_file(path, limit=LARGEST_BYTES)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return parse_object(data, str(path))


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """The object that the text is; InputError, which begins with `where`, if it is none."""
    try:
        value = parse_json(text)
    except ValueError as error:  # a decoding error is one too
        reason = str(error).splitlines()[0]
        raise InputError(f"{where}: expected json: {reason}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object, got {type(value).__name__}")
    return value
