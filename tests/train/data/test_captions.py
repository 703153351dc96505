"""Claims: a folder that cannot be learned from is refused, with the file that is wrong; a run goes
on with the images that it began with, wherever they lie."""

import logging

import pytest
from algorithm_rows import ALGORITHMS, GIVEN
from random_walk import walk_settings
from walk_runs import start

from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.train.data.images import ImagesConfig, captioned_images


def test_every_image_has_the_caption_of_the_text_beside_it(folder):
    pairs = captioned_images(folder)
    assert [path.relative_to(folder).as_posix() for path, _ in pairs] == sorted(
        ["red.png", "blue.png", "green.png", "white.png", "more/black.png"]
    )
    assert all(caption == (f"a {path.stem} house", False) for path, caption in pairs)


def test_a_new_run_says_of_which_captions_it_uses_the_first_line_only(folder, tmp_path, caplog):
    (folder / "more" / "black.txt").write_text("a black house\nhouse, black, night\n")
    config = ImagesConfig.model_validate({"folder": str(folder), "held_out": {"num_prompts": 0}})
    assert "a black house" in config.load_prompts().training
    with caplog.at_level(logging.INFO, logger="imgalign"):
        config.keep(tmp_path)
    assert caplog.messages == [
        f"{folder}: only the first line of the caption is used: 1 (more/black.png)"
    ]


def test_hidden_files_are_passed_over_and_formats_that_cannot_be_read_are_not(folder):
    for name in (".hidden.png", "._red.png", "more/.DS_Store"):
        (folder / name).write_bytes(b"not an image")
    assert len(captioned_images(folder)) == 5
    (folder / "moving.gif").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"moving.gif: no caption"):
        captioned_images(folder)


def test_a_folder_that_cannot_be_learned_from_is_one_line(folder, tmp_path):
    with pytest.raises(InputError, match=r"nowhere: expected a folder of images, got nothing"):
        captioned_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: expected images with captions, got none"):
        captioned_images(tmp_path / "empty")
    (folder / "red.txt").write_text(" \n")
    told = r"red.png: no caption \(red.txt is {}\); write its prompt into red.txt"
    with pytest.raises(InputError, match=told.format("empty")):
        captioned_images(folder)
    (folder / "red.txt").unlink()
    with pytest.raises(InputError, match=told.format("missing")):
        captioned_images(folder)


def test_other_images_are_refused_on_resuming_and_the_same_elsewhere_are_taken(folder, tmp_path):
    def settings(place, iterations):
        images = {"from": "images", "folder": str(place), "held_out": {"num_prompts": 1}}
        return walk_settings(algorithm=ALGORITHMS[GIVEN[0]], data=images, iterations=iterations)

    start(tmp_path / "run", settings=settings(folder, 2))
    moved = folder.rename(tmp_path / "moved")
    start(tmp_path / "run", settings=settings(moved, 4), resume=True)
    (moved / "red.txt").write_text("a pink house")
    with pytest.raises(ConfigError, match=r"data.folder: .*moved holds other images or captions"):
        start(tmp_path / "run", settings=settings(moved, 6), resume=True)
    (tmp_path / "run" / "images.json").unlink()
    with pytest.raises(CheckpointError, match=r"images.json: missing"):
        start(tmp_path / "run", settings=settings(moved, 6), resume=True)
