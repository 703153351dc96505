"""Claims: a damaged image is refused by an InputError of one line or decoded, and what its text
says of its making is read or left out, whatever it says."""

import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from fault_counts import LONG, check_line, examples
from hypothesis import given
from hypothesis import strategies as st
from mutations import TEXTS, VALUES, as_json, changed, damaged
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imgalign.errors import InputError
from imgalign.images import decode_image, decode_plain_image
from imgalign.preferences.foreign.embedded_text import embedded_texts
from imgalign.preferences.foreign.image_metadata import PARSERS, generation_of

pytestmark = LONG

PARAMETERS = (
    'a red fox, <lora:cosy:0.8>\nNegative prompt: blurry, "text"\n'
    'Steps: 20, Sampler: DPM++ 2M, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: "a, b", '
    'Lora hashes: "cosy: 1234", Version: v1.10'
)
GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 42,
            "steps": 20,
            "cfg": 7.5,
            "sampler_name": "euler",
            "denoise": 1.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["4", 1]}},
    "8": {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": ["8", 0]}},
}
WORKFLOW: dict[str, Any] = {
    "nodes": [
        {"id": 3, "type": "KSampler", "widgets_values": [42, "fixed", 20, 7.5, "euler", "normal"]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a red fox"], "inputs": []},
    ],
    "links": [[1, 6, 0, 3, 1, "CONDITIONING"]],
}
INVOKE: dict[str, Any] = {
    "positive_prompt": "a red fox",
    "negative_prompt": "",
    "seed": 42,
    "steps": 20,
    "cfg_scale": 7.5,
    "model": {"name": "sd15"},
    "width": 512,
    "height": 512,
}
NOVEL: dict[str, Any] = {"prompt": "a red fox", "seed": 42, "steps": 28, "scale": 5.0, "uc": "bad"}
DESCRIPTIONS: dict[str, Any] = {
    "prompt": GRAPH,
    "workflow": WORKFLOW,
    "invokeai_metadata": INVOKE,
    "Comment": NOVEL,
}


def encoded(kind: str, mode: str = "RGB", **texts: str) -> bytes:
    """A small image with some text in it."""
    image = Image.linear_gradient("L").resize((16, 12)).convert(mode)
    out = io.BytesIO()
    if kind == "PNG":
        info = PngInfo()
        for key, value in texts.items():
            info.add_itxt(key, value, zip=len(value) > 20)
        image.save(out, kind, pnginfo=info)
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        exif[0x9286] = b"UNICODE\0" + texts.get("parameters", "").encode("utf-16-be")
        image.save(out, kind, exif=exif.tobytes())
    return out.getvalue()


IMAGES = [
    encoded("PNG", parameters=PARAMETERS, prompt=json.dumps(GRAPH)),
    encoded("PNG", "RGBA", Comment=json.dumps(NOVEL)),
    encoded("PNG", "P"),
    encoded("PNG", "1"),
    encoded("JPEG", parameters=PARAMETERS),
    encoded("JPEG", "L"),
    encoded("WEBP", parameters=PARAMETERS),
    encoded("WEBP", "RGBA"),
]


def with_right_checksums(png: bytes) -> bytes:
    """A damaged PNG as its writer would have sealed it: else checksums tell most damage."""
    found, position = bytearray(png), 8
    while position + 12 <= len(found):
        (length,) = struct.unpack(">I", found[position : position + 4])
        end = min(position + 12 + length, len(found))
        found[end - 4 : end] = struct.pack(">I", zlib.crc32(found[position + 4 : end - 4]))
        position = end
    return bytes(found)


DAMAGED = st.sampled_from(IMAGES).flatmap(damaged)
SEALED = st.sampled_from(IMAGES[:4]).flatmap(damaged).map(with_right_checksums)


def read_or_refuse(content: bytes) -> None:
    """Decode it both ways, and read what it says of its making."""
    for decode in (decode_image, decode_plain_image):
        try:
            image = decode(content)
        except InputError as error:
            check_line(error)
        else:
            assert image.mode == "RGB"
            assert len(image.tobytes()) == 3 * image.width * image.height
    try:
        read_texts(embedded_texts(content))
        generation_of(content)
    except InputError as error:
        check_line(error)


def read_texts(texts: Mapping[str, str]) -> None:
    for key, text in texts.items():
        assert isinstance(key, str)
        text.encode("utf-8")


@examples(150)
@given(content=DAMAGED | SEALED)
def test_an_image_whose_bytes_are_damaged_is_decoded_or_refused(faults, content):
    with faults.inject("images with damaged bytes"):
        read_or_refuse(content)


JSON_TEXTS = st.sampled_from(sorted(DESCRIPTIONS)).flatmap(
    lambda key: st.tuples(
        st.just(key), changed(DESCRIPTIONS[key]).map(lambda each: as_json(each[0]))
    )
)
OTHER_TEXTS = st.tuples(
    st.sampled_from([keyword for keyword, _ in PARSERS]),
    TEXTS
    | VALUES.map(as_json)
    | damaged(PARAMETERS.encode()).map(lambda each: each.decode("utf-8", "replace")),
)


def described(key: str, text: str) -> None:
    """Read a description from an image that has it, and by each parser itself."""
    out = io.BytesIO()
    info = PngInfo()
    info.add_itxt(key, text)
    Image.new("L", (4, 4)).save(out, "PNG", pnginfo=info)
    facts = [generation_of(out.getvalue()), *(parse(text) for _, parse in PARSERS)]
    for found in facts:
        assert found.prompt is None or found.prompt.strip()
        assert found.seed is None or 0 <= found.seed < 2**64
        json.dumps(found.prompt, allow_nan=False).encode("utf-8")


@examples(100)
@given(given=JSON_TEXTS | OTHER_TEXTS)
def test_whatever_the_text_of_an_image_says_is_read_or_left_out(faults, given):
    with faults.inject("texts of images"):
        described(*given)
