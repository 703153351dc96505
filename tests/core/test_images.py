"""Foreign image files: each means one image, or is refused in one line."""

import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from imgalign import images
from imgalign.errors import InputError
from imgalign.images import (
    PNG_SIGNATURE,
    UPRIGHT,
    as_tensor,
    decode_image,
    decode_plain_image,
    read_image_file,
    read_plain_file,
    read_tensor,
    to_image,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    *, size: tuple[int, int], depth: int, colour: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """A PNG from its samples, one filter byte before each row; `extra` chunks before them."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    return b"".join(
        [
            PNG_SIGNATURE,
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def with_chunk(content: bytes, name: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    end = len(PNG_SIGNATURE) + 25
    return content[:end] + chunk(name, data) + content[end:]


def pixels(content: bytes) -> list[tuple[int, int, int]]:
    image = decode_image(content)
    assert image.mode == "RGB"
    return list(map(tuple, np.asarray(image).reshape(-1, 3).tolist()))


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def corners() -> Image.Image:
    """Red, green over blue, white: no two ways to turn it look alike."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, WHITE])
    return image


def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white():
    rows = b"\0" + struct.pack(">4H", 0, 257 * 64, 257 * 128, 65535)
    values = [pixel[0] for pixel in pixels(png(size=(4, 1), depth=16, colour=0, rows=rows))]
    assert values == [0, 64, 128, 255]


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3)])
def test_sixteen_bits_mean_the_same_in_grey_and_in_colour(colour, channels):
    rows = b"\0" + struct.pack(">H", 0x80FF) * channels
    assert pixels(png(size=(1, 1), depth=16, colour=colour, rows=rows)) == [(0x80,) * 3]


@pytest.mark.parametrize(("depth", "row"), [(1, 0b01000000), (2, 0b00110000), (4, 0x0F)])
def test_grey_of_few_bits_is_scaled_to_the_whole_range(depth, row):
    found = pixels(png(size=(2, 1), depth=depth, colour=0, rows=bytes([0, row])))
    assert found == [(0, 0, 0), WHITE]


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(format):
    layer = Image.new("RGBA", (2, 1))
    layer.putdata([(255, 0, 0, 0), (255, 0, 0, 255)])
    assert pixels(encoded(layer, format, **({"lossless": True} if format == "WEBP" else {}))) == [
        WHITE,
        RED,
    ]


def test_a_transparent_colour_of_a_palette_is_laid_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    assert pixels(encoded(image, transparency=1)) == [RED, WHITE]


def test_sixteen_bits_with_a_transparent_colour_are_refused():
    rows = b"\0" + struct.pack(">H", 77)
    content = png(
        size=(1, 1), depth=16, colour=0, rows=rows, extra=chunk(b"tRNS", struct.pack(">H", 77))
    )
    with pytest.raises(InputError, match="16 bits and a transparent colour"):
        decode_image(content)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_exif_is_applied(format, orientation):
    upright = corners().resize((32, 16), Image.Resampling.NEAREST)
    # A camera stores what is turned upright again by the transposition of its orientation.
    stored = upright
    for _ in range(3):  # every transposition but a quarter turn undoes itself; four of these do
        if orientation in UPRIGHT:
            stored = stored.transpose(UPRIGHT[orientation])
    options: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
    }
    content = encoded(stored, format, exif=exif(orientation), **options.get(format, {}))
    found = np.asarray(decode_image(content), dtype=int)
    assert found.shape == (16, 32, 3)
    assert np.abs(found - np.asarray(upright, dtype=int)).max() < 40  # JPEG blurs the edges


def test_orientation_six_is_turned_as_the_standard_says():
    """EXIF 6: row 0 is the right side, so the stored left column is the top row."""
    content = encoded(corners(), exif=exif(6))
    assert pixels(content) == [BLUE, RED, WHITE, GREEN]


def test_exif_that_cannot_be_read_leaves_the_image_as_it_lies():
    for block in (b"", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", exif(9)):
        assert pixels(with_chunk(encoded(corners()), b"eXIf", block)) == [RED, GREEN, BLUE, WHITE]


def test_orientation_in_text_is_ignored_as_browsers_do():
    packet = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
    content = with_chunk(encoded(corners()), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    assert pixels(content) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_an_animation_is_refused(format):
    content = encoded(
        Image.new("RGB", (4, 4), "red"),
        format,
        save_all=True,
        append_images=[Image.new("RGB", (4, 4), "blue")],
    )
    with pytest.raises(InputError, match=r"animated|2 frames"):
        decode_image(content)


def test_print_colours_are_refused():
    with pytest.raises(InputError, match="got CMYK; save it as RGB"):
        decode_image(encoded(Image.new("CMYK", (4, 4)), "JPEG"))


def test_text_and_profiles_of_any_size_do_not_matter():
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    content = encoded(corners(), pnginfo=info)
    content = with_chunk(content, b"iCCP", b"icc\0\0" + zlib.compress(bytes(3_000_000)))
    assert pixels(content) == [RED, GREEN, BLUE, WHITE]


def test_a_profile_and_further_images_in_a_jpeg_do_not_matter():
    plain = encoded(Image.new("RGB", (8, 8), (90, 90, 90)), "JPEG")
    noise = b"".join(
        marker + struct.pack(">H", 60_002) + bytes(60_000) for marker in (b"\xff\xe2", b"\xff\xfe")
    )
    content = plain[:2] + noise * 30 + plain[2:]
    assert pixels(content) == pixels(plain)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "EPS", "ICO", "JPEG2000", "PPM"])
def test_other_formats_are_never_opened(format):
    with pytest.raises(InputError, match=r"expected a PNG, JPEG or WebP image, got bytes"):
        decode_image(encoded(Image.new("RGB", (16, 16)), format))
    with pytest.raises(InputError, match="got an empty file"):
        decode_image(b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_off_anywhere_is_refused_in_one_line(format):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format)
    for length in range(0, len(content) - 2, 7):
        with pytest.raises(InputError) as caught:
            decode_image(content[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_damage_gives_an_image_or_one_line_and_never_another_error(format):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), format, exif=exif(6))
    for _ in range(400):
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), 3).tolist():
            damaged[place] = int(generator.integers(0, 256))
        with suppress(InputError):
            assert decode_image(bytes(damaged)).mode == "RGB"


def test_a_flipped_bit_of_the_pixels_of_a_png_is_seen():
    content = bytearray(encoded(corners()))
    content[content.index(b"IDAT") + 8] ^= 4
    with pytest.raises(InputError, match="wrong checksum in 'IDAT'"):
        decode_image(bytes(content))


def test_an_image_bomb_is_refused_before_it_is_decoded():
    content = png(size=(100_000, 100_000), depth=8, colour=2, rows=b"\0")
    with pytest.raises(InputError, match=r"too large \(100000 x 100000, at most \d+ pixels\)"):
        decode_image(content)


def test_pipes_devices_and_folders_are_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to("nowhere")
    found = {}
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError) as caught:
            read_image_file(path)
        found[path.name] = str(caught.value).removeprefix(f"{path}: ")
    assert found == {
        "folder.png": "expected a file, got a folder",
        "gone.png": "no such file",
        "pipe.png": "expected a file, got a pipe",
        "zero.png": "expected a file, got a device",
    }


def test_a_path_that_no_file_can_have_is_one_line(tmp_path):
    for name in ("a\0b.png", "x" * 300):
        with pytest.raises(InputError, match="cannot be read"):
            read_image_file(tmp_path / name)


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path):
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(InputError, match=r"sparse.png: expected at most 268435456 bytes"):
        read_image_file(tmp_path / "sparse.png")
    (tmp_path / "four").write_bytes(b"1234")
    assert read_plain_file(tmp_path / "four", limit=4) == b"1234"


def test_an_original_must_look_the_same_to_every_program():
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    with pytest.raises(InputError, match="has transparent parts"):
        decode_plain_image(encoded(half))
    with pytest.raises(InputError, match="turned by its EXIF orientation"):
        decode_plain_image(encoded(corners(), exif=exif(3)))
    opaque = encoded(corners().convert("RGBA"), exif=exif(1))
    assert decode_plain_image(opaque).tobytes() == corners().tobytes()


def test_pixels_as_a_tensor_are_channels_first_and_from_0_to_1():
    image = Image.new("RGB", (3, 2), RED)
    image.putpixel((2, 1), (0, 51, 255))
    pixels = as_tensor(image)
    assert pixels.shape == (3, 2, 3)
    assert pixels[:, 0, 0].tolist() == [1, 0, 0]
    assert pixels[:, 1, 2].tolist() == pytest.approx([0, 0.2, 1])
    assert pixels.is_contiguous()
    assert as_tensor(Image.new("L", (3, 2), 255)).tolist() == [[[1.0] * 3] * 2] * 3


def test_eight_bit_pixels_survive_writing_and_reading(tmp_path):
    pixels = torch.arange(192).reshape(3, 8, 8) / 255
    (tmp_path / "image.png").write_bytes(images.png(to_image(pixels)))
    assert torch.equal(read_tensor(tmp_path / "image.png"), pixels)


def test_pixels_beyond_the_range_are_its_ends():
    pixels = torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1)
    assert to_image(pixels).getpixel((0, 0)) == (0, 128, 255)


def test_pixels_of_a_damaged_file_name_it(tmp_path):
    (tmp_path / "cut.png").write_bytes(images.png(to_image(torch.rand(3, 64, 64)))[:200])
    with pytest.raises(InputError, match=r"cut.png: damaged image \(it is cut off\)"):
        read_tensor(tmp_path / "cut.png")


def test_reading_images_for_a_store_loads_no_torch():
    program = "import sys, imgalign.preferences.originals; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"
