"""What is decided before the first round: settings of the training, prompts and seeds."""

import json
from dataclasses import dataclass
from pathlib import Path

from imgalign.config import dump_config, load_config
from imgalign.errors import ConfigError, InputError
from imgalign.files import reporting_full_disk, write_atomically
from imgalign.loop.config import MOST_ROUNDS, SEEDS_PER_ROUND, LoopConfig, SimulatedConfig
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import read_prompts
from imgalign.storybook.scenes import CANDIDATE_PROMPTS, evaluation_prompts, parse_prompt
from imgalign.train.config import TrainConfig
from imgalign.train.data.rankings import RankingsConfig

SETTINGS, TRAINING, PROMPTS = "loop.yaml", "align.yaml", "comparison_prompts.txt"
COMPARED = 9001
"""Seed of the comparison's prompts, that of `imgalign evaluate`."""
FIRST_COMPARED, FIRST_CANDIDATE = 1_000_000, 1_100_000_000
SEEDS_OF_A_LOOP = MOST_ROUNDS * SEEDS_PER_ROUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of a loop, and what follows from them."""

    settings: LoopConfig
    training: TrainConfig
    """The recipe, before a round adds its seed, its start and its data."""
    prompts: tuple[str, ...]
    """Of the candidates of all rounds, in order."""
    compared: tuple[str, ...]
    """Of every comparison; none is among `prompts`."""

    @property
    def learns_from_rankings(self) -> bool:
        """Whether training reads the rankings, and not a reward model that was fitted to them."""
        return isinstance(self.training.data, RankingsConfig)

    def prompts_of(self, number: int) -> tuple[str, ...]:
        """Those of the candidates of a round, counted from 1."""
        count = self.settings.candidates.num_prompts
        return self.prompts[count * (number - 1) : count * number]

    def first_candidate_seed(self, number: int) -> int:
        """Candidates of a round count up from here; no other round or loop seed has one of them."""
        block = self.settings.seed * SEEDS_OF_A_LOOP + (number - 1) * SEEDS_PER_ROUND
        return FIRST_CANDIDATE + block

    def first_compared_seed(self, number: int) -> int:
        """Likewise for the images of a comparison, so that no noise is compared twice."""
        block = self.settings.seed * SEEDS_OF_A_LOOP + (number - 1) * SEEDS_PER_ROUND
        return FIRST_COMPARED + block

    def training_seed(self, number: int) -> int:
        """Of a round's training, so that a repeated round is not the same again."""
        return 1000 * self.settings.seed + number

    def write(self, folder: Path) -> None:
        """Write what a person may want to read, and what the comparison reads."""
        with reporting_full_disk(folder, "writing the settings"):
            dump_config(self.settings, folder / SETTINGS)
            dump_config(self.training, folder / TRAINING)
            lines = (f"\\{each}" if each.startswith("#") else each for each in self.compared)
            write_atomically(folder / PROMPTS, "".join(f"{line}\n" for line in lines))


def make_plan(settings: LoopConfig) -> Plan:
    """Resolve the recipe and the prompts; ConfigError or InputError where the loop cannot run."""
    align = settings.align
    training = load_config(TrainConfig, Path(align.recipe), align.overrides)
    refuse_training(settings, training)
    compared = compared_prompts(settings)
    prompts = candidate_prompts(settings, compared)
    refuse_few(settings, training)
    if isinstance(settings.ask, SimulatedConfig):
        refuse_free_text((*prompts, *compared))
    return Plan(settings=settings, training=training, prompts=prompts, compared=compared)


def refuse_training(settings: LoopConfig, training: TrainConfig) -> None:
    """ConfigError for a recipe that rounds cannot be made of."""
    name = settings.align.recipe
    policy, data = training.policy, training.data
    if policy.samples != "images":
        raise ConfigError(
            f"align.recipe: {name} has policy.kind: {policy.kind}, and the loop makes and compares "
            "images; use a recipe with policy.kind: diffusion"
        )
    if not isinstance(data, RankingsConfig) and data.gives != "rollouts":
        raise ConfigError(
            f"align.recipe: {name} has data.from: {data.source}, which rounds add nothing to; use "
            "a recipe with data.from: rankings or rollouts"
        )
    if data.gives == "rollouts" and settings.reward == "none":
        raise ConfigError(
            f"reward: expected fit, since {name} learns from its own samples and a reward model; "
            "or use a recipe that learns from rankings, such as storybook_dpo"
        )
    if getattr(policy, "adapter", None) is not None:
        raise ConfigError(
            f"align.recipe: {name} has policy.adapter, which the loop sets itself; merge that LoRA "
            "into a model (imgalign export LORA --format merged) and name it in policy.model"
        )
    if policy.train == "full" and settings.reference == "before":
        raise ConfigError(
            f"reference: expected base, since {name} trains all weights (policy.train: full), and "
            "only a LoRA can be started from; or train a LoRA"
        )


def refuse_few(settings: LoopConfig, training: TrainConfig) -> None:
    """ConfigError where a round asks for fewer rankings than its training wants.

    Before anybody has ranked anything, and not after.
    """
    data, num_prompts = training.data, settings.candidates.num_prompts
    if not isinstance(data, RankingsConfig):
        return
    inside = data.held_out.asked_for and data.held_out.file is None
    num_held_out = data.held_out.count(num_prompts) if inside else 0
    if inside and num_held_out == 0:
        raise ConfigError(
            f"candidates.num_prompts: expected at least 4, a quarter of which is held out of "
            f"training, got {num_prompts}; or data.held_out.num_prompts=0 in align.overrides"
        )
    available = (num_prompts - num_held_out) * settings.ask.annotators
    wanted = data.taken(max(available, 1))
    if wanted > available:
        raise ConfigError(
            f"candidates.num_prompts: expected enough for {wanted} rankings in each iteration of "
            f"training, got {available} ({num_prompts} prompts less {num_held_out} held out, "
            f"ask.annotators {settings.ask.annotators}); raise it, or lower "
            "data.rankings_per_iteration in align.overrides"
        )


def compared_prompts(settings: LoopConfig) -> tuple[str, ...]:
    """The prompts of every comparison."""
    compare = settings.compare
    if compare.prompts is not None:
        return read_prompts(compare.prompts)
    return evaluation_prompts(compare.num_prompts, seed=COMPARED, held_out=True)


def candidate_prompts(settings: LoopConfig, compared: tuple[str, ...]) -> tuple[str, ...]:
    """The prompts of all rounds; a file without as many, the compared ones aside, is InputError."""
    config, rounds = settings.candidates, settings.stop.max_rounds
    if config.prompts is None:
        seed = CANDIDATE_PROMPTS + settings.seed
        return evaluation_prompts(rounds * config.num_prompts, seed=seed, held_out=False)
    apart = set(map(prompt_key, compared))
    found = [each for each in read_prompts(config.prompts) if prompt_key(each) not in apart]
    wanted = rounds * config.num_prompts
    if len(found) < wanted:
        raise InputError(
            f"{config.prompts}: expected at least {wanted} prompts for {rounds} rounds of "
            f"{config.num_prompts}, got {len(found)} that are not compared; add some, or lower "
            "candidates.num_prompts or stop.max_rounds"
        )
    return tuple(found[:wanted])


def refuse_free_text(prompts: tuple[str, ...]) -> None:
    """InputError for a prompt that simulated annotators cannot judge."""
    for prompt in prompts:
        try:
            parse_prompt(prompt)
        except ValueError as error:
            raise InputError(
                f"ask.kind: simulated annotators judge prompts of the storybook alone; {error}; "
                "ask people, or leave out the files of prompts"
            ) from None


def quoted(text: str | Path) -> str:
    """A text or path as the value of an override: YAML, which any JSON text is."""
    return json.dumps(str(text))
