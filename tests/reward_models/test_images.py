import io

import numpy as np
import pytest
import torch
from PIL import Image

from imgalign.errors import InputError
from reward_models.images import decode_image, encode_image, read_image


def test_eight_bit_images_survive_writing_and_reading():
    pixels = torch.arange(192).reshape(3, 8, 8) / 255
    torch.testing.assert_close(decode_image(encode_image(pixels)), pixels, rtol=0, atol=0)


def test_transparency_is_shown_on_white():
    layer = Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 255]]], dtype=np.uint8), "RGBA")
    buffer = io.BytesIO()
    layer.save(buffer, format="PNG")
    assert decode_image(buffer.getvalue())[:, 0].T.tolist() == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]


def test_a_missing_file_a_folder_and_a_truncated_one_are_input_errors(tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(encode_image(torch.rand(3, 64, 64))[:200])
    with pytest.raises(InputError, match=r"absent.png: no such image"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="expected an image, got a folder"):
        read_image(tmp_path)
    with pytest.raises(InputError, match=r"cut.png: not a readable image"):
        read_image(cut)


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = tmp_path / "big.png"
    path.write_bytes(encode_image(torch.rand(3, 4, 4)))
    with pytest.raises(InputError, match="too large"):
        read_image(path)
