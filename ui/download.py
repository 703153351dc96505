"""Files to take home: images of the Generate page, by names that tell no model, and zips.

A zip of images has a `provenance.json` that says of each file how to make it again; the PNG files
say nothing.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from ui.shelf import Kept

LONGEST_PROMPT = 48
"""Characters of a prompt in the name of a file."""
NOT_NAMED = re.compile(r"[^\w]+")


def file_name(kept: Kept) -> str:
    """Example: "a-red-house-seed5-3fa9c1.png", which ends with the start of the file's SHA-256."""
    made = kept.provenance
    prompt = made.original_prompt or made.prompt
    words = NOT_NAMED.sub("-", prompt).strip("-_")[:LONGEST_PROMPT].rstrip("-_") or "image"
    return f"{words}-seed{made.seed}-{hashlib.sha256(kept.png).hexdigest()[:6]}.png"


def zipped(images: Iterable[Kept]) -> bytes:
    """A zip of the images and `provenance.json`, by name; equal images are one file."""
    named = sorted(((file_name(kept), kept) for kept in images), key=lambda each: each[0])
    facts = [{"file": name, **asdict(kept.provenance)} for name, kept in named]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, kept in dict(named).items():
            file.writestr(name, kept.png)
        file.writestr("provenance.json", f"{json.dumps(facts, default=str, indent=2)}\n")
    return buffer.getvalue()


def zip_folder(path: Path, folder: Path) -> None:
    """Write a zip of a folder. Weights and images hardly become smaller: they are stored as is."""
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                file.write(each, each.relative_to(folder))
