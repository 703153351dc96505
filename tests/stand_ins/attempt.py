"""One request of a scripted attacker, and what makes some. The attempts are in `attempts.py`."""

import io
import zipfile
from copy import copy
from dataclasses import dataclass, field
from typing import Any

JSON = {"Content-Type": "application/json"}
SCRIPT = "<img src=x onerror=alert(1)><script>alert(1)</script>"
IMPORT = b'{"kind": "imgalign-rankings", "version": 1}\n'


@dataclass(frozen=True)
class Attempt:
    """One request; `{own}` and `{theirs}` are tokens, `{item}` and `{their_item}` names of items,
    `{item_id}` and `{never}` ids, and `{invitation}` and `{reset}` tokens of links.
    """

    name: str
    method: str
    path: str
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: tuple[int, ...] = (400, 403, 404, 405, 409, 410, 413, 415, 422)


def submit(name: str, **changes: Any) -> Attempt:
    body = {
        "annotator": "Mallory",
        "key": "mallorys-key",
        "item": "{item}",
        "ranking": [[0], [1], [2], [3]],
        "verdict": "ranked",
    }
    return Attempt(name, "POST", "/api/rank/submit", body | changes)


def archive(
    member: str, size: int, *, says: int | None = None, times: int = 1, beside: str | None = None
) -> bytes:
    """A zip of zeros; it `says` of its file another size than it has.

    The file is in its table so many `times`. `beside` is a second file, of an export without
    rankings.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr(member, bytes(size))
        one = content.filelist[0]
        one.file_size = size if says is None else says
        for number in range(times - 1):
            again = copy(one)
            again.filename = f"{number}-{member}"
            content.filelist.append(again)
        if beside is not None:
            content.writestr(beside, IMPORT)
    return packed.getvalue()


def raw(name: str, content: bytes, path: str = "/api/rank/next") -> Attempt:
    return Attempt(name, "POST", path, content=content, headers=JSON)
