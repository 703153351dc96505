"""Claims: the table of settings has each one once, with its default, its meaning, what there is to
choose from, and the kinds of a section that have it."""

from typing import Annotated, Literal, TypeAlias

import pytest
from pydantic import Field

from imgalign.config import REQUIRED, Config, explained, load_config, settings_of
from imgalign.errors import ConfigError
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


class Salt(Round):
    """Round, and salty."""

    water: Literal["salt"] = "salt"
    """fresh, or salt."""
    tide: float = 0.0
    """In metres."""


class Fresh(Round):
    """Round, and not salty."""

    water: Literal["fresh"] = "fresh"
    """fresh, or salt."""


class Basin(Square):
    """A square one, which is always fresh."""

    water: Literal["fresh"] = "fresh"
    """fresh, or salt."""


Rounds: TypeAlias = Annotated[Fresh | Salt, Field(discriminator="water")]


class Park(Config):
    """Settings of a park, whose pond has a shape, and then a kind of water."""

    pond: Rounds | Annotated[Basin, Field(discriminator="water")] = Field(
        Fresh(), discriminator="shape"
    )
    """Where the fish live."""


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


def test_a_union_of_unions_has_a_key_for_each_and_knows_its_members_by_both():
    found = {each.path: (each.default, each.only_with) for each in settings_of(Park)}
    assert found["pond.shape"] == ("round", ())
    assert found["pond.water"] == ("fresh", ())
    assert found["pond.tide"] == (0.0, ("pond.shape: round", "pond.water: salt"))
    assert found["pond.side"] == (REQUIRED, ("pond.shape: square", "pond.water: fresh"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Fresh()),
        (["pond.water=salt"], Salt()),
        (["pond.shape=round", "pond.radius=2.0"], Fresh(radius=2.0)),
        (["pond.shape=square", "pond.side=3.0"], Basin(side=3.0)),
    ],
)
def test_a_key_that_is_not_given_is_the_defaults_or_the_only_one_that_there_is(overrides, expected):
    assert load_config(Park, None, overrides).pond == expected


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pond.shape=oval", "pond.shape: expected one of 'round', 'square', got 'oval'"),
        ("pond.water=brackish", "pond.water: expected one of 'fresh', 'salt', got 'brackish'"),
        (
            "pond.tide=1.0",
            "pond.tide: has no effect with pond.water=fresh, only with pond.water=salt",
        ),
        (
            "pond.side=1.0",
            "pond.side: has no effect with pond.shape=round, only with pond.shape=square",
        ),
        ("pond.radius=wide", "pond.radius: expected a number, got 'wide'"),
    ],
)
def test_what_is_wrong_in_a_union_of_unions_is_said_without_its_inside(override, said):
    with pytest.raises(ConfigError) as caught:
        load_config(Park, None, [override])
    assert str(caught.value) == said


def test_an_override_of_an_inner_kind_keeps_what_both_kinds_have(tmp_path):
    file = tmp_path / "park.yaml"
    file.write_text("pond: {water: salt, radius: 2.0, tide: 1.0}\n")
    said = []
    park = load_config(Park, file, ["pond.water=fresh"], say=said.append)
    assert park.pond == Fresh(radius=2.0)
    assert said == ["pond.water=fresh: replaces the pond section; kept: radius; dropped: tide"]
