"""Sources of training batches: images that the policy samples, and given images.

A source is a function of seed and iteration, so a resumed run goes on with exactly the prompts,
seeds and images that an uninterrupted one would have used.

Shapes: n = images of an iteration, b = images sampled together.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.algorithms.batches import Demonstrations, Rollout
from imgalign.algorithms.interface import World
from imgalign.errors import ConfigError, InputError, NumericsError
from imgalign.images import as_tensor, read_image_file
from imgalign.policy import (
    Data,
    LikelihoodPolicy,
    Policy,
    RewardModel,
    Trajectory,
    join_data,
)
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import (
    Prompts,
    epoch_positions,
    iteration_prompts,
    read_prompts,
    stable_hash,
    training_seed,
)
from imgalign.storybook import scenes
from imgalign.train.captions import captioned_images
from imgalign.train.config import DataConfig, HeldOutConfig, ImagesConfig, RolloutsConfig

log = logging.getLogger(__name__)


class Interrupted(Exception):  # noqa: N818  not an error: someone asked to stop
    """A stop was requested while a batch was sampled; nothing has been learned from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Callbacks of long work: progress, and whether a stop was requested."""

    stop_requested: Callable[[], bool] = lambda: False
    on_progress: Callable[[int, int], None] = lambda done, total: None
    """Called with how many images are done, of how many."""


SILENT = Watcher()


@runtime_checkable
class Source(Protocol):
    """Gives the batch of an iteration."""

    def batch(self, iteration: int, *, watcher: Watcher = SILENT) -> Any:
        """What to learn from in this iteration, counted from 0.

        `Interrupted` where a stop was requested meanwhile.
        """
        ...


class Rollouts:
    """Images that the policy samples, with their rewards."""

    def __init__(
        self,
        config: RolloutsConfig,
        *,
        policy: Policy,
        reward: RewardModel,
        prompts: Sequence[str],
        seed: int,
        world: World,
    ) -> None:
        self.config = config
        self.policy = policy
        self.reward = reward
        self.prompts = prompts
        self.seed = seed
        self.world = world

    def batch(self, iteration: int, *, watcher: Watcher = SILENT) -> Rollout:
        """`group_size` images of each prompt of the iteration; seeds are numbered over the run.

        A prompt's group is sampled by one process, so that groups stay together.
        """
        config, size = self.config, self.config.group_size
        chosen = iteration_prompts(
            self.prompts, iteration, count=config.prompts_per_iteration, seed=self.seed
        )
        mine = self.world.deal(len(chosen))
        first = iteration * config.images_per_iteration
        numbers = [first + place * size + each for place in mine for each in range(size)]
        return collect(
            self.policy,
            self.reward,
            [chosen[place] for place in mine for _ in range(size)],
            seeds=[training_seed(self.seed, number) for number in numbers],
            world=self.world,
            watcher=watcher,
        )


class GivenImages:
    """Images of a folder with their captions; each is encoded once, when it is first needed."""

    def __init__(
        self,
        config: ImagesConfig,
        *,
        policy: LikelihoodPolicy,
        held_out: Sequence[str],
        seed: int,
        world: World,
    ) -> None:
        self.config = config
        self.policy = policy
        self.seed = seed
        self.world = world
        self.pairs = training_images(config, held_out)
        self._encoded: dict[Path, Data] = {}

    def batch(self, iteration: int, *, watcher: Watcher = SILENT) -> Demonstrations:
        """The next images, in an order that is new each time all have come once."""
        start = time.perf_counter()
        count = self.config.images_taken(len(self.pairs))
        places = epoch_positions(len(self.pairs), iteration, count=count, seed=self.seed)
        chosen = [self.pairs[places[place]] for place in self.world.deal(count)]
        size = self.policy.batch_size
        parts = [
            join_data([self._data(*each) for each in chosen[part]])
            for part in cut(len(chosen), size, world=self.world, watcher=watcher)
        ]
        return Demonstrations(batch=parts, seconds_loading=time.perf_counter() - start)

    def _data(self, path: Path, prompt: str) -> Data:
        if path not in self._encoded:
            image = as_tensor(read_image_file(path))
            self._encoded[path] = self.policy.encode([prompt], image[None])
        return self._encoded[path]


def training_images(config: ImagesConfig, held_out: Sequence[str]) -> list[tuple[Path, str]]:
    """The given images with their prompts, without those of held-out prompts."""
    apart = set(map(prompt_key, held_out))
    pairs = captioned_images(config.folder)
    return [(path, prompt) for path, prompt in pairs if prompt_key(prompt) not in apart]


def refuse_amounts(config: DataConfig, prompts: Prompts, *, num_processes: int) -> None:
    """ConfigError for iterations larger than the data, or too small for so many processes."""
    match config:
        case RolloutsConfig():
            name, asked = "prompts_per_iteration", config.prompts_per_iteration
            available, what = len(prompts.training), "training prompts"
        case ImagesConfig():
            available = len(training_images(config, prompts.held_out))
            name, asked = "images_per_iteration", config.images_taken(available)
            what = f"images in {config.folder} whose prompts are not held out"
    if asked > available:
        raise ConfigError(
            f"data.{name}: expected at most {available}, the number of {what}, got {asked}"
        )
    if asked < num_processes:
        raise ConfigError(
            f"data.{name}: expected at least {num_processes}, one for each process, got {asked}"
        )


def build_source(
    config: DataConfig,
    *,
    policy: Policy,
    reward: RewardModel | None,
    prompts: Prompts,
    seed: int,
    world: World,
) -> Source:
    """The source that the settings describe; ConfigError for one that this policy cannot serve."""
    match config:
        case RolloutsConfig():
            assert reward is not None, "train/run.py refuses a run without one"
            return Rollouts(
                config,
                policy=policy,
                reward=reward,
                prompts=prompts.training,
                seed=seed,
                world=world,
            )
        case ImagesConfig():
            if not isinstance(policy, LikelihoodPolicy):
                raise ConfigError("data.from: this kind of policy cannot score given images")
            return GivenImages(
                config, policy=policy, held_out=prompts.held_out, seed=seed, world=world
            )


def collect(
    policy: Policy,
    reward: RewardModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    world: World,
    watcher: Watcher = SILENT,
) -> Rollout:
    """Sample one image per prompt and seed and score it.

    Images go through the policy in batches of its size and stay in them: a network's rounding
    depends on its batch. A reward that is not finite drops its image with a warning; none finite
    in any process is a NumericsError. `Interrupted` where a stop is requested between batches.
    """
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise InputError(f"prompts: number {number} of {len(prompts)} is empty")
    batch, rewards = [], []
    sampling = scoring = 0.0
    for part in cut(len(prompts), policy.batch_size, world=world, watcher=watcher):
        begin = time.perf_counter()
        with torch.no_grad():
            trajectory = policy.sample(prompts[part], seeds=seeds[part])
            samples = policy.decode(trajectory)
        between = time.perf_counter()
        rewards.append(score(reward, trajectory, samples))
        batch.append(trajectory)
        sampling += between - begin
        scoring += time.perf_counter() - between
    own = torch.cat([*rewards, torch.zeros(0)])
    everybody = torch.cat(world.gather(own))
    if not everybody.isfinite().any():
        raise NumericsError(
            f"reward: none of {len(everybody)} scores is a finite number; "
            "score a few images with the reward model alone to see why"
        )
    return Rollout(batch=batch, rewards=own, seconds_sampling=sampling, seconds_scoring=scoring)


def cut(count: int, size: int, *, world: World, watcher: Watcher) -> Iterator[slice]:
    """The `count` images of this process in parts of at most `size`.

    Before each part all processes agree whether any of them was asked to stop, and then all raise
    `Interrupted`. A process with fewer parts than another stays for its rounds.
    """
    parts = range(0, count, size)
    for number in range(int(world.largest(len(parts)))):
        if world.agree(watcher.stop_requested()):
            raise Interrupted
        if number < len(parts):
            watcher.on_progress(parts[number], count)
            yield slice(parts[number], parts[number] + size)
    watcher.on_progress(count, count)


def score(
    reward: RewardModel, trajectory: Trajectory, samples: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """Float32 rewards on the CPU, NaN for every image whose score is not a finite number."""
    with torch.no_grad():
        scores = reward.score(prompts=trajectory.prompts, samples=samples)
    if scores.shape != (len(trajectory),):
        raise NumericsError(
            f"reward: expected one score for each of {len(trajectory)} images, "
            f"got shape {list(scores.shape)}"
        )
    scores = scores.detach().float().cpu()
    for index in (~scores.isfinite()).nonzero().flatten().tolist():
        log.warning(
            "reward is %s for seed %s, prompt %r: image left out of this update",
            scores[index].item(),
            trajectory.seeds[index],
            trajectory.prompts[index],
        )
    return torch.where(scores.isfinite(), scores, math.nan)


def load_prompts(config: DataConfig) -> Prompts:
    """The prompts that the settings name, as they are now.

    InputError for a missing or empty file, or when nothing is left to train on.
    """
    held_out = config.held_out
    match config:
        case RolloutsConfig() if config.prompts.file is None:
            asked = config.prompts
            drawn = [
                scenes.evaluation_prompts(count, seed=asked.seed, held_out=unseen)
                for count, unseen in [(asked.num_storybook, False), (held_out.num_prompts, True)]
            ]
            training, apart = drawn
            source = "the storybook's prompts"
        case RolloutsConfig():
            assert config.prompts.file is not None
            training, source = read_prompts(config.prompts.file), str(config.prompts.file)
            apart = some_of(training, held_out)
        case ImagesConfig():
            captions = (prompt for _, prompt in captioned_images(config.folder))
            training, source = tuple(dict.fromkeys(captions)), str(config.folder)
            apart = some_of(training, held_out)
    if held_out.file is not None:
        apart = read_prompts(held_out.file)
    keys = set(map(prompt_key, apart))
    training = tuple(prompt for prompt in training if prompt_key(prompt) not in keys)
    if not training:
        raise InputError(
            f"{source}: no prompt is left to train on after {len(apart)} were held out; "
            "add prompts or lower data.held_out.num_prompts"
        )
    return Prompts(training, apart)


def some_of(prompts: Sequence[str], config: HeldOutConfig) -> tuple[str, ...]:
    """Those of a list that are held out: chosen by their hash, so the order does not count."""
    return tuple(sorted(prompts, key=stable_hash)[: config.num_prompts])
