"""Images that were generated on the Generate page and are not in the store: in bounded memory.

The same settings generate them again. Those that are sent to ranking go to the store.
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
    """One image as a PNG file, and its provenance."""

    png: bytes
    provenance: Provenance


class Shelf:
    """The newest images by opaque id; the oldest are dropped when full. Thread-safe."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, image: Image.Image, provenance: Provenance) -> str:
        """Keep an image, lossless, and return its id."""
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        image_id = secrets.token_urlsafe(15)
        with self._lock:
            self._kept[image_id] = Kept(buffer.getvalue(), provenance)
            size = sum(len(kept.png) for kept in self._kept.values())
            while size > self._most_bytes and len(self._kept) > 1:
                size -= len(self._kept.popitem(last=False)[1].png)
        return image_id

    def get(self, image_id: str) -> Kept:
        """An image; InputError when it is gone."""
        with self._lock:
            kept = self._kept.get(image_id)
        if kept is None:
            raise InputError("this image is not kept any more; generate it again")
        return kept

    def has(self, image_id: str) -> bool:
        """Whether an image is still there."""
        with self._lock:
            return image_id in self._kept
