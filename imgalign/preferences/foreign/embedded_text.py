"""The text that generators write into image files: text chunks of PNG, EXIF of JPEG and WebP.

Pixels are not decoded here, and nothing is trusted: sizes are bounded, and what is damaged is as if
it were not there.
"""

import struct
import zlib
from collections.abc import Iterator

from imgalign.errors import InputError
from imgalign.images import DAMAGED, PNG_SIGNATURE, png_chunks

LARGEST_TEXT = 4 * 2**20
"""Bytes of one text; workflows take some hundred kilobytes."""
MOST_TEXTS = 64

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
NAMED_TAGS = (0x010E, 0x010F, 0x0110)
"""Description, maker and model: ComfyUI writes "prompt:{...}" and "workflow:{...}" there."""
TAGS = frozenset({EXIF_IFD, USER_COMMENT, *NAMED_TAGS})
SIZES = {1: 1, 2: 1, 4: 4, 7: 1}
"""Bytes of one value of the types of these tags: byte, text, long, undefined."""


def embedded_texts(content: bytes) -> dict[str, str]:
    """Texts by their keyword in the file; the comment of EXIF is under "parameters".

    Empty for what is no image, or has no text.
    """
    try:
        if content.startswith(PNG_SIGNATURE):
            return _png_texts(content)
        return _exif_texts(_exif_block(content))
    except (InputError, *DAMAGED):
        return {}


def _png_texts(content: bytes) -> dict[str, str]:
    texts: dict[str, str] = {}
    exif = b""
    for name, chunk in png_chunks(content):
        data = chunk[8:-4]
        if name == b"eXIf":
            exif = data
        if name not in (b"tEXt", b"zTXt", b"iTXt") or len(texts) >= MOST_TEXTS:
            continue
        keyword, _, rest = data.partition(b"\0")
        text = _chunk_text(name, rest)
        if text is not None:
            texts.setdefault(keyword.decode("latin-1"), text)
    return _exif_texts(exif) | texts


def _chunk_text(name: bytes, data: bytes) -> str | None:
    """What follows the keyword of a text chunk; None where it is damaged or too long."""
    compressed = name == b"zTXt"
    if name == b"zTXt":
        data = data[1:]
    elif name == b"iTXt":
        compressed = data[:1] == b"\1"
        _, _, data = data[2:].partition(b"\0")
        _, _, data = data.partition(b"\0")
    try:
        if compressed:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, LARGEST_TEXT + 1)
        return None if len(data) > LARGEST_TEXT else _decoded(data)
    except zlib.error:
        return None


def _exif_block(content: bytes) -> bytes:
    """The EXIF of a JPEG or WebP file, empty without one."""
    if content.startswith(b"\xff\xd8"):
        segments = _jpeg_segments(content)
        return next((each for each in segments if each.startswith(b"Exif\0\0")), b"")
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return next((data for name, data in _riff_chunks(content) if name == b"EXIF"), b"")
    return b""


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    """The APP1 segments before the pixels."""
    position = 2
    while (marker := content[position : position + 2]) != b"\xff\xda":
        if marker == b"\xff\xff":
            position += 1
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if not marker.startswith(b"\xff") or length < 2:
            return
        if marker == b"\xff\xe1":
            yield content[position + 4 : position + 2 + length]
        position += 2 + length


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, position)
        yield name, content[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _exif_texts(block: bytes) -> dict[str, str]:
    tiff = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) > 4 * LARGEST_TEXT:
        return {}
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    entries = dict(_entries(tiff, start, order))
    texts = {}
    for tag in NAMED_TAGS:
        keyword, colon, text = _decoded(entries.get(tag, b"")).partition(":")
        if colon and text.lstrip().startswith("{"):
            texts[keyword.strip().lower()] = text.rstrip("\0")
    if EXIF_IFD in entries:
        (start,) = struct.unpack(f"{order}I", entries[EXIF_IFD])
        comment = _user_comment(dict(_entries(tiff, start, order)).get(USER_COMMENT, b""))
        if comment.strip("\0 "):
            texts["parameters"] = comment.strip("\0")
    return texts


def _entries(tiff: bytes, start: int, order: str) -> Iterator[tuple[int, bytes]]:
    """Tag and bytes of each entry of a directory that are `TAGS`."""
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for number in range(count):
        tag, kind, length = struct.unpack_from(f"{order}HHI", tiff, start + 2 + 12 * number)
        place = start + 10 + 12 * number
        size = length * SIZES.get(kind, 0)
        if tag not in TAGS or size > LARGEST_TEXT:
            continue
        if size > 4:
            (place,) = struct.unpack_from(f"{order}I", tiff, place)
        yield tag, tiff[place : place + size]


def _user_comment(data: bytes) -> str:
    """Text after one of the eight-byte codes of EXIF.

    "UNICODE" means UTF-16 in either order of bytes, which nothing in the file tells: in text that
    is mostly Latin, the high bytes are the ones that are zero.
    """
    code, text = data[:8], data[8:]
    if code == b"UNICODE\0":
        if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return text.decode("utf-16", "replace")
        little = text[1::2].count(0) > text[0::2].count(0)
        return text.decode("utf-16-le" if little else "utf-16-be", "replace")
    return _decoded(text if code in (b"ASCII\0\0\0", bytes(8)) else data)


def _decoded(data: bytes) -> str:
    """UTF-8, which most programs write whatever the chunk says, else Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
