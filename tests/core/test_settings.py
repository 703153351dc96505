"""Claims: the table of settings has each one once, with its default, its meaning, what there is to
choose from, and the kinds of a section that have it."""

from typing import Literal

import pytest
from pydantic import Field

from imgalign.config import REQUIRED, Config, explained, load_config, settings_of
from imgalign.train.config import TrainConfig


class Round(Config):
    """A circle."""

    shape: Literal["round"] = "round"
    """round, or square."""
    radius: float = 1.0
    """In metres."""


class Square(Config):
    """Four equal sides."""

    shape: Literal["square"] = "square"
    """round, or square."""
    side: float
    """In metres."""
    corners: Literal["sharp", "soft"] = "sharp"
    """How they
    look."""


class Garden(Config):
    """Settings of a garden."""

    pond: Round | Square = Field(Round(), discriminator="shape")
    """Where the fish live."""
    fish: int = 3
    """How many."""


ALL = {
    # path: (default, meaning, only with)
    "pond.shape": ("round", "Where the fish live. One of `round`, `square`.", ()),
    "pond.radius": (1.0, "In metres.", ("pond.shape: round",)),
    "pond.side": (REQUIRED, "In metres.", ("pond.shape: square",)),
    "pond.corners": ("sharp", "How they look. One of `sharp`, `soft`.", ("pond.shape: square",)),
    "fish": (3, "How many.", ()),
}


def test_a_model_has_the_settings_of_all_kinds_of_a_section_each_once():
    found = {
        each.path: (each.default, each.meaning, each.only_with) for each in settings_of(Garden)
    }
    assert found == ALL
    assert len(list(settings_of(Garden))) == len(ALL)


def test_a_config_has_the_settings_of_the_kind_it_chose_beside_their_defaults():
    garden = load_config(Garden, None, ["pond={shape: square, side: 2.5}"])
    found = {each.path: each.value for each in settings_of(Garden, garden)}
    assert found == {"pond.shape": "square", "pond.side": 2.5, "pond.corners": "sharp", "fish": 3}
    for each in settings_of(Garden, garden):
        assert (each.default, each.meaning, each.only_with) == ALL[each.path]


def test_a_setting_is_explained_with_its_value_its_default_and_its_meaning():
    garden = load_config(Garden, None, ["pond={shape: square, side: 2.5}"])
    assert list(explained(garden)) == [
        "pond.shape: square (default round)",
        "    Where the fish live. One of `round`, `square`.",
        "pond.side: 2.5 (required)",
        "    In metres.",
        "pond.corners: sharp",
        "    How they look. One of `sharp`, `soft`.",
        "fish: 3",
        "    How many.",
    ]


@pytest.mark.parametrize("kind", ["grpo", "ppo", "supervised"])
def test_a_recipe_that_says_nothing_has_the_defaults_that_the_table_names(kind):
    settings = load_config(TrainConfig, None, [f"algorithm.name={kind}"])
    for each in settings_of(TrainConfig, settings):
        if each.path != "algorithm.name":
            assert each.value == each.default, each.path
