"""Claims: a caption is one line, wherever images with captions are read."""

from pathlib import Path

import pytest

from imgalign.errors import InputError
from imgalign.preferences.foreign.image_files import (
    LARGEST_CAPTION,
    find_caption,
    read_caption,
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a red fox", ("a red fox", False)),
        (b"a red fox\n", ("a red fox", False)),
        (b"\xef\xbb\xbf\r\n \t\r\n a  red\tfox \r\n\r\n", ("a red fox", False)),
        (b"a red fox\nfox, red, forest\n", ("a red fox", True)),
        (b"a red fox\rfox\r", ("a red fox", True)),
        ("ein roter Fuchs, übermütig".encode(), ("ein roter Fuchs, übermütig", False)),
    ],
)
def test_a_caption_is_the_first_line_that_is_not_empty(tmp_path: Path, content: bytes, expected):
    (tmp_path / "a.txt").write_bytes(content)
    assert find_caption(tmp_path / "a.png") == read_caption(tmp_path / "a.png") == expected


@pytest.mark.parametrize(
    ("content", "why"), [(None, "missing"), (b"", "empty"), (b" \n\n", "empty")]
)
def test_an_image_without_a_caption_is_told_from_one_that_has_it(tmp_path: Path, content, why):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    assert find_caption(tmp_path / "a.png") is None
    with pytest.raises(InputError, match=rf"^a\.txt is {why}$"):
        read_caption(tmp_path / "a.png")


def test_a_file_that_is_no_caption_is_an_error_and_not_a_missing_one(tmp_path: Path):
    path = tmp_path / "a.txt"
    for content, why in [
        (b"\xff\xfea\0", r"a\.txt is not text in utf-8"),
        (b"a" * (LARGEST_CAPTION + 1), r"a\.txt: expected at most 65536 bytes"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=why):
            find_caption(tmp_path / "a.png")
