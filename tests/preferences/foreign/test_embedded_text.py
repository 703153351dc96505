"""Text in PNG chunks and EXIF, bounded and undamaged."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from image_folders import image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imgalign.preferences.foreign.embedded_text import LARGEST_TEXT, embedded_texts
from imgalign.preferences.foreign.generation_facts import GenerationFacts
from imgalign.preferences.foreign.image_metadata import generation_of

USER_COMMENT = 0x9286


def png_with(info: PngInfo) -> bytes:
    out = io.BytesIO()
    image(1).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def with_exif(kind: str, exif: Image.Exif) -> bytes:
    out = io.BytesIO()
    image(1).save(out, kind, exif=exif.tobytes())
    return out.getvalue()


def test_text_chunks_of_every_kind_are_read():
    info = PngInfo()
    info.add_text("parameters", "café")
    info.add_text("prompt", "compressed", zip=True)
    info.add_itxt("workflow", "naïve 🦊")
    info.add_itxt("Comment", "both 🦊", zip=True)
    assert embedded_texts(png_with(info)) == {
        "parameters": "café",
        "prompt": "compressed",
        "workflow": "naïve 🦊",
        "Comment": "both 🦊",
    }


def test_a_chunk_that_holds_utf_8_is_read_as_such_whatever_the_standard_says():
    info = PngInfo()
    info.add(b"tEXt", b"parameters\0" + "日本".encode())
    assert embedded_texts(png_with(info)) == {"parameters": "日本"}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + "a cat 日本".encode("utf-16-be"),
        b"UNICODE\0" + "a cat 日本".encode("utf-16-le"),
        b"UNICODE\0" + "a cat 日本".encode("utf-16"),
        b"ASCII\0\0\0" + "a cat 日本".encode(),
        bytes(8) + "a cat 日本".encode(),
        "a cat 日本".encode(),
    ],
)
def test_the_comment_in_exif_is_read_in_every_encoding(kind: str, comment: bytes):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[USER_COMMENT] = comment
    assert embedded_texts(with_exif(kind, exif)) == {"parameters": "a cat 日本"}


def test_comfyui_keeps_its_graph_in_the_exif_of_webp():
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = 'prompt:{"3": {}}', 'workflow:{"nodes": []}'
    exif[0x010E] = "a description: of nothing"
    assert embedded_texts(with_exif("WEBP", exif)) == {
        "prompt": '{"3": {}}',
        "workflow": '{"nodes": []}',
    }


def test_text_that_is_too_long_or_damaged_is_as_if_it_were_not_there():
    info = PngInfo()
    info.add(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(100 * LARGEST_TEXT)))
    info.add(b"zTXt", b"damaged\0\0xxxx")
    info.add(b"tEXt", b"")
    info.add_text("kept", "text")
    assert embedded_texts(png_with(info)) == {"kept": "text", "": ""}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0\xff\xff\xff\xff",
        b"\xff\xd8\xff\xe1\0\x20Exif\0\0garbage" + bytes(100),
        b"RIFF\xff\xff\xff\xffWEBPEXIF\xff\xff\xff\xffII*\0" + struct.pack("<I", 8) + b"\xff\xff",
    ],
)
def test_what_is_no_image_or_has_damaged_exif_has_no_text(content: bytes, tmp_path: Path):
    assert embedded_texts(content) == {}


def test_a_script_around_diffusers_may_write_a_text_for_each_fact():
    info = PngInfo()
    info.add_text("prompt", "a red fox")
    info.add_text("Seed", "7")
    info.add_text("num_inference_steps", "20")
    info.add_text("guidance_scale", "5.5")
    expected = GenerationFacts(prompt="a red fox", seed=7, steps=20, guidance_scale=5.5)
    assert generation_of(png_with(info)) == expected


@pytest.mark.parametrize("graph", ['{"3": {"inputs": {"text": "a fox"}', "{}"])
def test_a_damaged_or_empty_graph_is_no_prompt(graph: str):
    info = PngInfo()
    info.add_text("prompt", graph)
    assert generation_of(png_with(info)).prompt is None


def test_a_plain_prompt_may_begin_with_a_brace():
    info = PngInfo()
    info.add_text("prompt", "{red|blue} fox")
    assert generation_of(png_with(info)).prompt == "{red|blue} fox"
