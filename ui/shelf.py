"""Pictures that were made on the Generate page and are not in the store: kept in memory, bounded.

They are worth little: the same settings make them again. What is sent to ranking goes to the store.
"""

import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

from imgalign.errors import InputError
from imgalign.preferences.records import Provenance

MOST_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Kept:
    """One picture as a PNG file, and how it was made."""

    png: bytes
    provenance: Provenance


class Shelf:
    """The newest pictures by opaque id; the oldest go when there is no room. Thread-safe."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, image: Image.Image, provenance: Provenance) -> str:
        """Keep a picture, lossless, and return its id."""
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        picture_id = secrets.token_urlsafe(15)
        with self._lock:
            self._kept[picture_id] = Kept(buffer.getvalue(), provenance)
            size = sum(len(kept.png) for kept in self._kept.values())
            while size > self._most_bytes and len(self._kept) > 1:
                size -= len(self._kept.popitem(last=False)[1].png)
        return picture_id

    def get(self, picture_id: str) -> Kept:
        """A picture; InputError when it is gone."""
        with self._lock:
            kept = self._kept.get(picture_id)
        if kept is None:
            raise InputError("this picture is not kept any more; generate it again")
        return kept

    def has(self, picture_id: str) -> bool:
        """Whether a picture is still there."""
        with self._lock:
            return picture_id in self._kept
