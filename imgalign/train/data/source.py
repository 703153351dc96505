"""What a source of training data is: a section of the settings that builds it.

A source is a function of seed and iteration, so a resumed run goes on with exactly the prompts,
seeds and samples that an uninterrupted one would have used. To add one, write its file beside this
and name its section in choice.py.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from pydantic import Field, PositiveInt, model_validator

from imgalign.algorithms.choice import AlgorithmConfig
from imgalign.algorithms.interface import BatchKind
from imgalign.config import Config, refuse_ineffective
from imgalign.errors import ConfigError, InputError
from imgalign.policy import LikelihoodPolicy, Policy, RewardModel
from imgalign.preferences.records import Samples
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import Prompts, read_prompts, stable_hash
from imgalign.runs.world import World
from imgalign.train.watcher import SILENT, Watcher

USUAL_PROMPTS = 16


@runtime_checkable
class Source(Protocol):
    """Gives the batch of an iteration."""

    def batch(self, iteration: int, *, watcher: Watcher = SILENT) -> Any:
        """What to learn from in this iteration, counted from 0.

        `Interrupted` where a stop was requested meanwhile.
        """
        ...

    def held_out(self, *, watcher: Watcher = SILENT) -> Any:
        """The share of this process in what is only measured; None where there is no such batch."""
        ...


class HeldOutConfig(Config):
    """Prompts and seeds that are only ever measured, never learned from."""

    file: Path | None = None
    """Text file of prompts. Null chooses some of those to train on by their hash; of the storybook
    world, combinations that neither the shipped model nor this run trains on."""

    num_prompts: Annotated[int, Field(ge=0)] | None = None
    """How many prompts are held out, without a file. Null is 16, or a quarter of them where there
    are few; 0 measures nothing held out."""

    images_per_prompt: PositiveInt = 2
    """Samples per held-out prompt; always of the same seeds."""

    @property
    def asked_for(self) -> bool:
        """Whether anything is to be held out."""
        return self.file is not None or self.num_prompts != 0

    def count(self, available: int) -> int:
        """How many of the available prompts are held out."""
        usual = min(USUAL_PROMPTS, available // 4)
        return usual if self.num_prompts is None else self.num_prompts

    @model_validator(mode="after")
    def _a_file_is_used_as_a_whole(self) -> "HeldOutConfig":
        if self.file is not None:
            refuse_ineffective(self, ["num_prompts"], "with held-out prompts from a file")
        return self


class Known(NamedTuple):
    """The prompts of a source. Example: (("a fox", "a boat"), ("a tree",), "prompts.txt")."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]
    """Some of those in `training`, or others."""
    where: str
    """For messages."""


class Amount(NamedTuple):
    """How much an iteration takes. Example: ("prompts_per_iteration", 8, 200, "...")."""

    name: str
    asked: int
    available: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a source needs of its run."""

    policy: Policy
    reward: RewardModel | None
    prompts: Prompts
    run: Path
    """The run's folder, in which `DataSection.keep` has been."""
    seed: int
    world: World

    def scoring_policy(self) -> LikelihoodPolicy:
        """The policy, of a kind that scores given samples; ConfigError for another."""
        if not isinstance(self.policy, LikelihoodPolicy):
            raise ConfigError("data.from: this kind of policy cannot score given samples")
        return self.policy


class DataSection(Config):
    """What every section `data` of the settings can do."""

    gives: ClassVar[BatchKind]
    """What an algorithm gets."""

    held_out: HeldOutConfig = HeldOutConfig()
    """Held-out prompts, which are measured only. What there is of them is left out of training."""

    @property
    def given_samples(self) -> Samples | None:
        """What is given; None where the policy samples itself."""
        return None

    @property
    def images_of_a_prompt(self) -> int:
        """Made together in an iteration; 0 where samples are given."""
        return 0

    @property
    def penalty(self) -> float:
        """Subtracted from the reward of a sample that did not come to its end."""
        return 0.0

    @property
    def groups(self) -> int | None:
        """Prompts or rankings in an iteration; None where samples are given one by one."""
        return None

    @abstractmethod
    def known_prompts(self) -> Known:
        """The prompts that there are now; InputError for a missing or empty file."""

    @abstractmethod
    def amount(self, prompts: Prompts) -> Amount | None:
        """What an iteration takes; None for a source that counts when it is read."""

    @abstractmethod
    def build(self, parts: Parts) -> Source:
        """The source, for a run with these parts; ConfigError for a policy that it cannot serve."""

    def keep(self, run: Path) -> None:
        """Write into the folder of a new run what a resumed one needs to have the same data."""

    def moved(self, run: Path) -> frozenset[str]:
        """Settings, below `data`, that may differ on resuming, because `run` has what is there.

        ConfigError where the data is another, CheckpointError where nobody knows what it was.
        """
        return frozenset()

    def load_prompts(self) -> Prompts:
        """The prompts as they are now, held-out ones apart.

        InputError for a missing or empty file, or when nothing is left to train on.
        """
        training, apart, where = self.known_prompts()
        if self.held_out.file is not None:
            apart = read_prompts(self.held_out.file)
        keys = set(map(prompt_key, apart))
        training = tuple(prompt for prompt in training if prompt_key(prompt) not in keys)
        if not training:
            raise InputError(
                f"{where}: no prompt is left to train on after {len(apart)} were held out; "
                "add prompts or lower data.held_out.num_prompts"
            )
        return Prompts(training, apart)

    def refuse_rankings(
        self, algorithm: AlgorithmConfig, prompts: Prompts, *, num_processes: int
    ) -> None:
        """InputError or ConfigError where a new run could not learn from the rankings that it has.

        Nothing for a source without rankings.
        """

    def refuse_model(self, model: str) -> None:
        """ConfigError where what a new run reads of its data is true of another model only.

        Nothing for a source that says nothing of models.
        """

    def refuse_samples(self, samples: Samples) -> None:
        """ConfigError for data beside the batches that is of another kind than the policy makes."""

    def refuse_size(self, width: int, height: int) -> None:
        """Likewise for what is true of another size than that of the model, in pixels."""

    def refuse_amounts(self, prompts: Prompts, *, num_processes: int) -> None:
        """ConfigError for iterations larger than the data, or too small for so many processes."""
        amount = self.amount(prompts)
        if amount is None:
            return
        name, asked, available, what = amount
        if asked > available:
            raise ConfigError(
                f"data.{name}: expected at most {available}, the number of {what}, got {asked}"
            )
        if asked < num_processes:
            raise ConfigError(
                f"data.{name}: expected at least {num_processes}, one for each process, got {asked}"
            )


def some_of(prompts: Sequence[str], config: HeldOutConfig) -> tuple[str, ...]:
    """Those of a list that are held out: chosen by their hash, so the order does not count."""
    return tuple(sorted(prompts, key=stable_hash)[: config.count(len(prompts))])
