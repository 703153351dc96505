"""Files that a browser sends: bodies of requests, written to disk as they come in."""

from pathlib import Path

import fastapi

from imgalign.errors import InputError
from imgalign.files import reporting_full_disk
from ui.uploads import shown_name


async def receive(sent: fastapi.Request, part: Path, name: str, *, most: int, cure: str) -> None:
    """Write a body to a new file; InputError, with a `cure`, for one of over `most` bytes."""
    left = most
    with reporting_full_disk(part, "saving the upload"), part.open("xb") as file:
        async for block in sent.stream():
            left -= len(block)
            if left < 0:
                raise InputError(
                    f"{shown_name(name)}: expected at most {most >> 20} MB, got more; {cure}"
                )
            file.write(block)
