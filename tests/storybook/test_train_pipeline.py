"""Opening a trained storybook pipeline for what is trained after it."""

from pathlib import Path

import pytest
from diffusers import StableDiffusionImg2ImgPipeline

from imgalign.errors import InputError
from imgalign.storybook.train.pipeline import open_pipeline


def test_a_pipeline_that_is_not_there_is_one_line_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"absent: expected a trained pipeline .* storybook train pipeline"
    ):
        open_pipeline(tmp_path / "absent")


def test_a_pipeline_opens_as_the_kind_asked_for(tiny_pipeline_folder: Path) -> None:
    opened = open_pipeline(tiny_pipeline_folder, StableDiffusionImg2ImgPipeline)
    assert type(opened) is StableDiffusionImg2ImgPipeline
