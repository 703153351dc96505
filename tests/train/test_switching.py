"""Claims: an override may name another kind of a section. What the file has for that section stays
where the new kind has it too, else it is dropped with a word; what was typed is never dropped."""

import logging
from typing import get_args

import pytest

from imgalign.algorithms.choice import AlgorithmConfig
from imgalign.config import dump_config, load_config
from imgalign.errors import ConfigError
from imgalign.train.config import TrainConfig

GRPO = """
algorithm:
  name: grpo
  baseline: {kind: group, normalise: none}
  clip_nats: 1.0
  credited_steps: 3
  minibatches: 2
  kl: {kind: fixed, coefficient: 0.2}
data:
  prompts: {num_storybook: 30}
  group_size: 4
  held_out: {num_prompts: 5}
"""


NAMES = ", ".join(repr(kind.model_fields["name"].default) for kind in get_args(AlgorithmConfig))


@pytest.fixture
def loaded(tmp_path, caplog):
    """Loads a recipe with overrides; gives the settings and the lines that were said."""

    def load(text, *overrides):
        (tmp_path / "recipe.yaml").write_text(text)
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="imgalign"):
            settings = load_config(TrainConfig, tmp_path / "recipe.yaml", overrides)
        return settings, [record.getMessage() for record in caplog.records]

    return load


def test_another_algorithm_keeps_what_both_have_and_names_what_is_dropped(loaded):
    settings, said = loaded(GRPO, "algorithm.name=ppo")
    assert said == [
        "algorithm.name=ppo: replaces the algorithm section; "
        "kept: clip_nats, credited_steps, minibatches, kl; dropped: baseline"
    ]
    algorithm = settings.algorithm
    assert (algorithm.name, algorithm.clip_nats, algorithm.credited_steps) == ("ppo", 1.0, 3)
    assert (algorithm.kl.coefficient, algorithm.baseline.kind) == (0.2, "value")
    assert algorithm.baseline.normalise == "std"  # its own default: the group's none is dropped


def test_an_algorithm_that_shares_little_keeps_that(loaded):
    settings, said = loaded(GRPO, "algorithm.name=supervised")
    assert settings.algorithm.minibatches == 2
    assert said == [
        "algorithm.name=supervised: replaces the algorithm section; "
        "kept: minibatches; dropped: baseline, clip_nats, credited_steps, kl"
    ]


def test_data_of_another_kind_keep_the_held_out_prompts(loaded):
    settings, said = loaded(
        GRPO,
        "data.from=images",
        "data.folder=x",
        "algorithm={name: supervised, weighting: {kind: equal}}",
    )
    assert settings.data.held_out.num_prompts == 5
    assert said == [
        "data.from=images: replaces the data section; kept: held_out; dropped: prompts, group_size"
    ]


def test_another_kind_inside_a_section_leaves_the_rest_of_it(loaded):
    changes = ["algorithm.kl.kind=adaptive", "algorithm.kl.target_nats=5"]
    settings, said = loaded(GRPO, *changes)
    assert (settings.algorithm.kl.coefficient, settings.algorithm.kl.target_nats) == (0.2, 5)
    assert settings.algorithm.baseline.normalise == "none"
    assert said == [
        "algorithm.kl.kind=adaptive: replaces the algorithm.kl section; kept: coefficient"
    ]


def test_the_order_of_two_switches_does_not_matter(loaded):
    changes = ["algorithm.name=ppo", "algorithm.baseline.kind=running"]
    one, said = loaded(GRPO, *changes)
    assert "algorithm.baseline.kind=running: replaces the algorithm.baseline section; " in said[1]
    assert said[1].endswith("dropped: normalise")
    assert loaded(GRPO, *reversed(changes)) == (one, said)


def test_naming_the_kind_that_the_file_has_says_and_changes_nothing(loaded):
    assert loaded(GRPO, "algorithm.name=grpo", "data.from=rollouts") == loaded(GRPO)
    assert loaded(GRPO)[1] == []


def test_a_section_given_as_a_whole_replaces_the_files_without_a_word(loaded):
    settings, said = loaded(GRPO, "algorithm={name: ppo}")
    assert (settings.algorithm.clip_nats, said) == (None, [])


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm.credited_steps=2", "algorithm.name=supervised"],
        ["algorithm.name=supervised", "algorithm.credited_steps=2"],
    ],
)
def test_what_was_typed_is_refused_and_never_dropped(loaded, overrides):
    said = r"^algorithm\.credited_steps: has no effect with algorithm\.name=supervised, only"
    with pytest.raises(ConfigError, match=said):
        loaded(GRPO, *overrides)


def test_what_was_typed_of_a_section_stays_when_the_rest_of_it_goes(loaded):
    settings, _ = loaded(
        GRPO.replace("normalise: none", "normalise: std"),
        "algorithm.name=ppo",
        "algorithm.baseline.normalise=none",
    )
    assert (settings.algorithm.baseline.kind, settings.algorithm.baseline.normalise) == (
        "value",
        "none",
    )


def test_a_misspelt_key_of_the_file_is_refused_and_not_dropped(loaded):
    with pytest.raises(ConfigError, match=r"recipe\.yaml: algorithm\.clip_nat: unknown key"):
        loaded(GRPO.replace("clip_nats", "clip_nat"), "algorithm.name=ppo")


KINDS = {
    "algorithm.name": ("grpo", "ppo", "supervised"),
    "data.from": ("rollouts", "images"),
    "algorithm.kl.kind": ("fixed", "adaptive"),
    "algorithm.baseline.kind": ("group", "rank"),
    "algorithm.name=ppo algorithm.baseline.kind": ("value", "running"),
    "algorithm.name=supervised algorithm.weighting.kind": ("best", "reward", "equal"),
}
NEEDED = {
    "data.from=images": "data.folder=x algorithm.name=supervised algorithm.weighting.kind=equal",
    "data.from=rollouts": "algorithm.name=supervised algorithm.weighting.kind=equal",
    "algorithm.kl.kind=adaptive": "algorithm.kl.target_nats=5",
}
SWITCHES = [
    (f"{union}={one}", f"{union}={other}")
    for union, kinds in KINDS.items()
    for one in kinds
    for other in kinds
    if one != other
]


@pytest.mark.parametrize(("one", "other"), SWITCHES)
def test_every_kind_can_follow_every_other_in_the_config_of_a_run(tmp_path, one, other):
    """A run's config has every setting written out, so whatever does not fit would be refused."""
    begun = load_config(TrainConfig, None, [*one.split(), *NEEDED.get(one, "").split()])
    dump_config(begun, tmp_path / "config.yaml")
    overrides = [*other.split(), *NEEDED.get(other, "").split()]
    settings = load_config(TrainConfig, tmp_path / "config.yaml", overrides)
    fresh = load_config(TrainConfig, None, overrides)
    assert settings == fresh


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "algorithm.baseline.kind=value",
            "algorithm.baseline.kind: expected one of 'group', 'rank', got 'value'; "
            "'value' is of algorithm.name=ppo",
        ),
        (
            "algorithm.baseline.hidden=64",
            "algorithm.baseline.hidden: has no effect with algorithm.baseline.kind=group, only "
            "with algorithm.baseline.kind=value; 'value' is of algorithm.name=ppo",
        ),
        (
            "algorithm.kl.target_nats=5",
            "algorithm.kl.target_nats: has no effect with algorithm.kl.kind=fixed, only with "
            "algorithm.kl.kind=adaptive",
        ),
        (
            "algorithm.kl.kind=adaptive",
            "algorithm.kl.target_nats: required, but not given; add algorithm.kl.target_nats=VALUE",
        ),
        (
            "algorithm=ppo",
            "algorithm: expected a section of 'key: value' lines, got 'ppo' "
            "(did you mean algorithm.name=ppo?)",
        ),
        (
            "algorithm.kl=adaptive",
            "algorithm.kl: expected a section of 'key: value' lines, got 'adaptive' "
            "(did you mean algorithm.kl.kind=adaptive?)",
        ),
        (
            "algorithm.name=null",
            f"algorithm.name: expected one of {NAMES}, got nothing",
        ),
    ],
)
def test_a_kind_that_cannot_be_is_refused_with_what_to_write(loaded, override, said):
    with pytest.raises(ConfigError) as caught:
        loaded(GRPO, override)
    assert str(caught.value) == said
