"""What is left out of pages that are sent to others: folders and servers of this machine.

A path is reduced to its last part, an address of a server to the name of the protocol. Commands
name what lies below the working folder by its path from there, so that they still work in it.
"""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from imgalign.runs.model_names import public_name

PLACE = re.compile(
    r"""(?<![\w./~-])  # not inside of a relative path
    (?: [A-Za-z][\w+]*://[^\s'"]* | (?:~|\.\.)?(?:/[^\s/,;'"(){}\[\]<>|]*)+ )""",
    re.VERBOSE,
)
"""A URL, or a path that leads out of the working folder, in a text."""


def without_folders(value: Any) -> Any:
    """A setting's value; of a path, its last part, and of a server's address, the protocol.

    Likewise all values in a list or in a section. Example: "imgalign.db" for
    "sqlite:////home/ann/imgalign.db", and "postgresql" for any server.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each) for each in value]
    if isinstance(value, Path):
        return value.name
    if not isinstance(value, str):
        return value
    scheme, is_url, rest = value.partition("://")
    kind = scheme.partition("+")[0]
    if is_url and kind not in ("sqlite", "file"):
        return kind  # a user, a password or a host may stand anywhere in what follows
    return public_name(unquote(rest) if is_url else value)


def text_without_folders(text: str) -> str:
    """A text whose paths and addresses are shown like those of settings.

    Example: "step-000010: damaged" for "/home/ann/runs/a/step-000010: damaged".
    """
    return PLACE.sub(lambda found: str(without_folders(found[0])), text)


def command_without_folders(command: str) -> str:
    """A command for a shell, whose words name no folder outside of the working folder."""
    return shlex.join(map(_word, shlex.split(command)))


def from_here(path: Path) -> Path:
    """The path from the working folder where it lies below that, else its last part."""
    here, place = Path.cwd(), Path(os.path.normpath(path.absolute()))
    return place.relative_to(here) if place.is_relative_to(here) else Path(place.name)


def _word(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and re.fullmatch(r"[\w.-]+", key):
        return f"{key}={_word(value)}"
    return str(from_here(Path(word))) if os.path.isabs(word) else text_without_folders(word)
