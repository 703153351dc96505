"""Reading and writing of image files, by one set of rules for every caller.

PNG, JPEG and WebP files are decoded to 8-bit RGB:
- the orientation in EXIF is applied, that in XMP or in text is not (as browsers do);
- transparency is laid on white;
- of 16-bit samples the high byte is kept, in grey as in colour;
- colour profiles and gamma are ignored: all values are taken as sRGB;
- text, profiles and other chunks that do not change the image are never read, whatever their size.

Images that decoders read differently are refused: several frames, CMYK, a 16-bit image with a
transparent colour. So are files that are damaged, truncated, too large, or not plain files. Every
refusal is an InputError of one line. imgalign writes PNG files, atomically, with its name in their
text. Importing this module does not load torch, which the store and its pages do not need.
"""

import io
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.WebPImagePlugin import WebPImageFile

from imgalign.errors import InputError
from imgalign.files import reporting_full_disk, write_atomically

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MAX_BYTES = 2**28
"""Larger files are refused unread."""
MAX_PIXELS = 2**26
"""Larger images are refused before they are decoded; 67 million, 200 MB of RGB."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""The chunks that determine pixels; the decoder gets no others."""
JPEG_SCAN = b"\xff\xda"
EXIF_HEADER = b"Exif\0\0"
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns an image of this EXIF orientation upright; others are upright."""
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""Exceptions of PIL for damaged files."""


def read_image_file(path: Path, *, cure: str = "") -> Image.Image:
    """Decode an image file; InputError begins with the path and ends with the `cure`, if any."""
    try:
        return decode_image(read_plain_file(path, limit=MAX_BYTES))
    except InputError as error:
        raise InputError(f"{path}: {error}{f'; {cure}' if cure else ''}") from None


def decode_image(content: bytes) -> Image.Image:
    """The pixels of an encoded image as 8-bit RGB, by the rules of this module."""
    upright, layer = _decode(content)
    return _on_white(layer).transpose(UPRIGHT[upright]) if upright in UPRIGHT else _on_white(layer)


def as_tensor(image: Image.Image) -> "Float[Tensor, '3 h w']":
    """The pixels of an image as RGB in [0, 1]."""
    import torch

    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_image(pixels: "Float[Tensor, '3 h w']") -> Image.Image:
    """RGB pixels in [0, 1] as an image of 8 bits per channel, rounded as diffusers does."""
    import torch

    bytes_ = (pixels.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(bytes_.permute(1, 2, 0).numpy())


def read_tensor(path: Path) -> "Float[Tensor, '3 h w']":
    """The pixels of an image file in [0, 1]; InputError begins with the path."""
    return as_tensor(read_image_file(path))


def decode_plain_image(content: bytes) -> Image.Image:
    """`decode_image` for an image that every program displays alike.

    For originals that annotators see unchanged: transparency, which takes the colour behind it, and
    an orientation in EXIF, which not every program applies, are refused.
    """
    upright, layer = _decode(content)
    if layer.mode == "RGBA" and layer.getchannel("A").getextrema() != (255, 255):
        raise InputError("has transparent parts; lay it on a background and save it without alpha")
    if upright in UPRIGHT:
        raise InputError("is turned by its EXIF orientation; turn its pixels and save it again")
    return _on_white(layer)


def read_plain_file(path: Path, *, limit: int) -> bytes:
    """The bytes of a plain file of at most `limit` bytes.

    InputError, without the path, for anything else; folders, pipes and devices are not opened.
    """
    if "\0" in str(path):  # which Python refuses with a ValueError
        raise InputError("cannot be read (its path holds a NUL character)")
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"expected a file, got {_kind(facts.st_mode)}")
        if facts.st_size > limit:
            raise InputError(f"expected at most {limit} bytes, got {facts.st_size}")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from None
    if len(content) > limit:  # of a file that grew, or one of /proc, whose size is 0
        raise InputError(f"expected at most {limit} bytes, got more")
    return content


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of each chunk of a PNG to its end, checked against their checksums.

    The bytes are those of the whole chunk: length, name, data and checksum.
    """
    position = len(PNG_SIGNATURE)
    name = b""
    while name != b"IEND":
        (length,) = struct.unpack(">I", content[position : position + 4].rjust(4, b"\0"))
        name, end = content[position + 4 : position + 8], position + 12 + length
        if end > len(content):
            raise InputError("damaged image (it is cut off); restore the file")
        (checksum,) = struct.unpack(">I", content[end - 4 : end])
        if zlib.crc32(content[position + 4 : end - 4]) != checksum:
            shown = name.decode("ascii", "replace")
            raise InputError(f"damaged image (wrong checksum in {shown!r}); restore the file")
        yield name, content[position:end]
        position = end


def _decode(content: bytes) -> tuple[int, Image.Image]:
    """EXIF orientation, and the pixels before it is applied: RGB, or RGBA if transparent."""
    if len(content) > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES} bytes, got {len(content)}")
    try:
        image, exif = _open(content)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise InputError(
                f"image too large ({width} x {height}, at most {MAX_PIXELS} pixels); scale it down"
            )
        image.load()
        return _orientation(exif), _eight_bit(image)
    except InputError:  # which is a ValueError as well
        raise
    except DAMAGED as error:
        raise InputError(f"damaged image ({_one_line(error)}); restore the file") from None


def _open(content: bytes) -> tuple[Image.Image, bytes]:
    """The image, not yet decoded, and its EXIF block.

    Uses the plugins directly: `Image.open` would try other formats, and its limits are global.
    """
    if content.startswith(PNG_SIGNATURE):
        return _open_png(content)
    if content.startswith(b"\xff\xd8\xff"):
        return _open_jpeg(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        webp = WebPImageFile(io.BytesIO(content))
        if webp.n_frames > 1:
            raise InputError(f"has {webp.n_frames} frames; save the one that is meant")
        return webp, webp.info.get("exif", b"")
    found = f"bytes {content[:4]!r}" if content else "an empty file"
    raise InputError(f"expected a PNG, JPEG or WebP image, got {found}; save it as PNG")


def _open_png(content: bytes) -> tuple[Image.Image, bytes]:
    kept, exif, sixteen_bit, see_through = [PNG_SIGNATURE], b"", False, False
    for number, (name, chunk) in enumerate(png_chunks(content)):
        if (name == b"IHDR") != (number == 0):
            raise InputError("damaged image (IHDR is not its first chunk); restore the file")
        if name == b"IHDR":
            sixteen_bit = chunk[16] == 16
        elif name == b"tRNS":
            see_through = True
        elif name == b"eXIf":
            exif = chunk[8:-4]
        elif name == b"fdAT" or (name == b"acTL" and chunk[8:12] != b"\0\0\0\1"):
            raise InputError("is animated; save the frame that is meant")
        if name in PNG_PIXELS:
            kept.append(chunk)
    if sixteen_bit and see_through:
        raise InputError("has 16 bits and a transparent colour; save it as 8-bit RGB")
    return PngImageFile(io.BytesIO(b"".join(kept))), exif


def _open_jpeg(content: bytes) -> tuple[Image.Image, bytes]:
    """Without its EXIF, profiles, further images and comments, which the decoder would parse."""
    kept, exif, position = [content[:2]], b"", 2
    while (marker := content[position : position + 2]) != JPEG_SCAN:
        if marker == b"\xff\xff":  # padding
            position += 1
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if not marker.startswith(b"\xff") or length < 2:
            raise InputError("damaged image (a JPEG without pixels); restore the file")
        segment = content[position : position + 2 + length]
        if marker == b"\xff\xe1" and segment[4:10] == EXIF_HEADER:
            exif = exif or segment[4:]
        if not b"\xff\xe1" <= marker <= b"\xff\xed" and marker != b"\xff\xfe":
            kept.append(segment)
        position += len(segment)
    return JpegImageFile(io.BytesIO(b"".join([*kept, content[position:]]))), exif


def _orientation(exif: bytes) -> int:
    """Orientation in EXIF, 1 to 8; 1, upright, where it is missing or cannot be read.

    Browsers too ignore the orientation of a damaged EXIF block.
    """
    tiff = exif.removeprefix(EXIF_HEADER)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for number in range(count):
            entry = start + 2 + 12 * number
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == ORIENTATION:
                return value if value in UPRIGHT else 1
    except struct.error:
        return 1
    return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where the file may have transparent parts."""
    if image.mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)
        return Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise InputError(f"expected grey, palette or RGB colours, got {image.mode}; save it as RGB")
    see_through = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if see_through else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG file of high quality: levels differ by a few, and colours are whole."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


MADE_BY = ("Software", "imgalign")


def png(image: Image.Image) -> bytes:
    """The image as a PNG file, pixel for pixel."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file atomically, with a text chunk by which `check_png` recognises it.

    StorageFullError when no space is left.
    """
    made_by = PngInfo()
    made_by.add_text(*MADE_BY)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=made_by)
    with reporting_full_disk(path, "saving the image"):
        write_atomically(path, buffer.getvalue())


def check_png(path: Path) -> None:
    """Check that a PNG file can be written there, replacing at most one that imgalign wrote.

    InputError if not.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: expected the name of a PNG file, such as {path.stem}.png")
    if path.is_dir():
        raise InputError(f"{path}: expected a file, got a folder; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it, or choose another")
    if path.exists():
        with path.open("rb") as file:
            if "\0".join(MADE_BY).encode() not in file.read(1024):
                raise InputError(f"{path}: was not made by imgalign; choose another name")
