import pytest
import torch

from imgalign.errors import InputError
from reward_models.images import encode_image, read_image


def test_eight_bit_images_survive_writing_and_reading(tmp_path):
    pixels = torch.arange(192).reshape(3, 8, 8) / 255
    (tmp_path / "image.png").write_bytes(encode_image(pixels))
    torch.testing.assert_close(read_image(tmp_path / "image.png"), pixels, rtol=0, atol=0)


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "cut.png").write_bytes(encode_image(torch.rand(3, 64, 64))[:200])
    with pytest.raises(InputError, match=r"cut.png: damaged image \(it is cut off\)"):
        read_image(tmp_path / "cut.png")
