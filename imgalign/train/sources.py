"""Where the prompts of a run come from."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from imgalign.config import Config
from imgalign.errors import InputError
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import Prompts, read_prompts, stable_hash
from imgalign.storybook import scenes


class PromptsConfig(Config):
    """Where the prompts of a run come from."""

    file: Path | None = None
    """Text file with one prompt per line; null takes prompts of the storybook world."""

    num_storybook: PositiveInt = 200
    """How many, without a file."""

    held_out_file: Path | None = None
    """Prompts that are only ever scored, never learned from. Null, with a file: `num_held_out` of
    its lines, chosen by their hash. Null, without one: storybook combinations that neither the
    shipped model nor this run trains on."""

    num_held_out: Annotated[int, Field(ge=0)] = 16
    """How many prompts are held out, where no file says which. 0 measures nothing on the side."""

    seed: NonNegativeInt = 7001
    """Draws the storybook prompts. Differs from the seeds that evaluation draws its own with."""


def load_prompts(config: PromptsConfig) -> Prompts:
    """The prompts that the settings name, as they are now.

    InputError for a missing or empty file, or when nothing is left to train on.
    """
    if config.file is None:
        drawn = [
            scenes.evaluation_prompts(count, seed=config.seed, held_out=held_out)
            for count, held_out in [(config.num_storybook, False), (config.num_held_out, True)]
        ]
        training, held_out = drawn
    else:
        training = read_prompts(config.file)
        by_hash = sorted(training, key=stable_hash)
        held_out = tuple(by_hash[: config.num_held_out])
    if config.held_out_file is not None:
        held_out = read_prompts(config.held_out_file)
    apart = set(map(prompt_key, held_out))
    training = tuple(prompt for prompt in training if prompt_key(prompt) not in apart)
    if not training:
        raise InputError(
            f"{config.file}: no prompt is left to train on after {len(held_out)} were held out; "
            "add prompts or lower prompts.num_held_out"
        )
    return Prompts(training, held_out)
