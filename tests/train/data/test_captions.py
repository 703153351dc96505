"""Claims: a folder that cannot be learned from is refused, with the file that is wrong; a run goes
on with the images that it began with, wherever they lie."""

import pytest
from algorithms import ALGORITHMS, GIVEN
from random_walk import walk_settings
from walk_runs import start

from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.train.data.images import captioned_images


def test_every_image_has_the_one_line_of_the_text_beside_it(folder):
    pairs = captioned_images(folder)
    assert [path.relative_to(folder).as_posix() for path, _ in pairs] == sorted(
        ["red.png", "blue.png", "green.png", "white.png", "more/black.png"]
    )
    assert all(prompt == f"a {path.stem} house" for path, prompt in pairs)


def test_a_folder_that_cannot_be_learned_from_is_one_line(folder, tmp_path):
    with pytest.raises(InputError, match=r"data.folder: expected a folder of images, got"):
        captioned_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: expected images \(.*\) with captions, got none"):
        captioned_images(tmp_path / "empty")
    (folder / "red.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"red.txt: expected the prompt of red.png, got an empty"):
        captioned_images(folder)
    (folder / "red.txt").unlink()
    with pytest.raises(InputError, match=r"red.png: no caption; write its prompt into red.txt"):
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
