"""The sheet to share: whole pixels, captions that fit, beside its evaluation."""

import pytest
from PIL import Image

from imgalign.errors import InputError
from imgalign.evaluate.evaluation import FOLDER
from imgalign.report.lettering import Letters
from imgalign.report.sheets import before_after, data_uri, magnified, wrapped


def test_before_and_after_shows_pixels_as_whole_squares():
    base, aligned = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    base.putpixel((3, 5), (0, 255, 0))
    sheet = before_after([base] * 5, [aligned] * 5, ["a red cat"] * 5)
    colours = {colour: count for count, colour in sheet.getcolors(1 << 20)}
    assert colours[(0, 255, 0)] == 5 * 4 * 4
    assert colours[(255, 0, 0)] == 5 * (64 * 64 - 1) * 4 * 4
    assert colours[(0, 0, 255)] == 5 * 64 * 64 * 4 * 4


def test_before_and_after_wants_as_many_images_as_prompts():
    with pytest.raises(InputError, match="got 1 and 0 for 1 prompts"):
        before_after([Image.new("RGB", (4, 4))], [], ["a"])
    with pytest.raises(InputError, match="at least one"):
        before_after([], [], [])


def test_before_and_after_lies_beside_the_evaluation(finished):
    with Image.open(finished / FOLDER / "before_after.png") as sheet:
        assert min(sheet.size) > 500


def test_large_images_are_made_smaller():
    assert magnified(Image.new("RGB", (1024, 512))).size == (256, 128)
    assert magnified(Image.new("RGB", (64, 32))).size == (256, 128)
    assert data_uri(Image.new("RGB", (64, 64))).startswith("data:image/png;base64,")
    assert data_uri(Image.new("RGB", (1024, 1024))).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("text", ["a cat", "Donaudampfschifffahrtsgesellschaft", "word " * 60])
def test_captions_fit_under_their_image(text):
    letters = Letters(21)
    lines = wrapped(text, letters, 256)
    assert 1 <= len(lines) <= 4
    assert all(letters.getlength(line) <= 256 for line in lines)
