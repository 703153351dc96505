"""Small copies of what is ranked, for lists: an image in 160 pixels, a text in its first words.

As blind as the originals: pixels or words, and nothing else of their files.
"""

import io

from PIL import Image

from imgalign.images import decode_image

SIDE = 160
"""Pixels of the longer side: a list shows some 64, on screens of up to two and a half for one."""
MOST_CHARACTERS = 200


def small_png(png: bytes) -> bytes:
    """The image as a PNG of at most `SIDE` pixels a side; never larger than it is."""
    image = decode_image(png)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    bare = Image.frombytes("RGB", image.size, image.tobytes())  # without its chunks and profile
    bare.save(out, "PNG")
    return out.getvalue()


def small_text(text: str) -> str:
    """The first `MOST_CHARACTERS` of a text, with an ellipsis where there are more."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
