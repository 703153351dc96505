"""Captions in any script: letters of this machine's fonts, or a number and a word about it."""

from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from imgalign.report import lettering
from imgalign.report.lettering import Letters, missing
from imgalign.report.sheets import before_after, wrapped

CAT = "猫"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing is remembered of other fonts; this machine has none until a test gives it some."""
    lettering.font_with.cache_clear()
    monkeypatch.setattr(lettering, "system_fonts", tuple)
    yield
    lettering.font_with.cache_clear()


@pytest.fixture
def font_of_squares(tmp_path: Path) -> Path:
    """A font with one glyph: for 猫 a square as wide as the font is high."""
    pen = TTGlyphPen(None)
    for corner in ((0, 0), (0, 1000), (1000, 1000), (1000, 0)):
        (pen.moveTo if corner == (0, 0) else pen.lineTo)(corner)
    pen.closePath()
    builder = FontBuilder(unitsPerEm=1000)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord(CAT): "cat"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    return tmp_path / "squares.ttf"


def drawn(text: str) -> Image.Image:
    image = Image.new("L", (200, 40))
    Letters(20).draw(ImageDraw.Draw(image), (4, 4), text, "white")
    return image


def test_a_character_that_dejavu_lacks_is_drawn_in_a_font_that_has_it(monkeypatch, font_of_squares):
    monkeypatch.setattr(lettering, "system_fonts", lambda: (font_of_squares,))
    assert missing(f"a {CAT}") == ""
    length = Letters(20).getlength("a ")
    assert Letters(20).getlength(f"a {CAT}") == pytest.approx(length + 20)
    square = drawn(CAT)
    assert square.getbbox() == (4, square.getbbox()[1], 24, square.getbbox()[1] + 20)
    assert square.crop(square.getbbox()).getextrema() == (255, 255)


def test_text_that_dejavu_has_looks_as_dejavu_draws_it(monkeypatch, font_of_squares):
    monkeypatch.setattr(lettering, "system_fonts", lambda: (font_of_squares,))
    plain = Image.new("L", (200, 40))
    font = lettering.opened(lettering.dejavu("Sans"), 20)
    ImageDraw.Draw(plain).text((4, 4), "größer, Привет", font=font, fill="white")
    assert drawn("größer, Привет") == plain


def test_a_damaged_font_is_passed_over(monkeypatch, font_of_squares, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    monkeypatch.setattr(
        lettering, "system_fonts", lambda: (tmp_path / "broken.ttf", font_of_squares)
    )
    assert missing(CAT) == ""


def test_a_caption_without_letters_is_numbered_and_said_once(caplog):
    red = Image.new("RGB", (64, 64), "red")
    prompts = ["a red cat", f"{CAT}と家", "a house", f"{CAT}"]
    sheet = before_after([red] * 4, [red] * 4, prompts)
    (record,) = caplog.records
    assert "2 captions" in record.getMessage()
    assert r"\u732b" in record.getMessage()
    assert "install a font" in record.getMessage()
    numbers = before_after([red] * 4, [red] * 4, ["a red cat", "prompt 2", "a house", "prompt 4"])
    assert sheet == numbers


def test_characters_without_a_shape_are_not_missed():
    assert missing("a\tcat\u200d \ufe0f\nand\u00a0e\u0301") == ""


def test_a_very_long_prompt_is_cut_and_does_not_take_long():
    lines = wrapped("word " * 20_000, Letters(21), 256)
    assert len(lines) == 4
    assert lines[-1].endswith("…")
