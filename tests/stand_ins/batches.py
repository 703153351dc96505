"""Batches of two prompts for the contract suite, from every kind of source, and cuts of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from algorithm_rows import GIVEN
from PIL import Image
from random_walk import Brightness
from torch import Tensor

from imgalign.algorithms.batches import Demonstrations, Rollout
from imgalign.algorithms.rankings import RankedBatch
from imgalign.images import read_tensor
from imgalign.language.policy import LanguagePolicy
from imgalign.policy import Policy, RewardModel, Texts, concatenate, join_data
from imgalign.preferences.foreign.records import GivenRanking
from imgalign.prompts import Prompts
from imgalign.runs.world import Alone
from imgalign.train.data.demonstrations import Example, GivenSamples
from imgalign.train.data.encoded import EncodedSamples
from imgalign.train.data.given_rankings import GivenRankings
from imgalign.train.data.images import ImagesConfig
from imgalign.train.data.rankings import RankingsConfig
from imgalign.train.data.rollouts import collect
from imgalign.train.data.source import Parts

PROMPTS = ["a red house", "a blue boat"]
TEXTS = ["on", "red", "too", "", "tab", "so", "hut", "s o"]
"""With their end as long as the longest that the suite's policies write."""

Batch: TypeAlias = Rollout | Demonstrations | RankedBatch


class Lateness:
    """Reward: how late in the alphabet the letters of a text are, between 0 and 1."""

    def score(self, *, prompts: Sequence[str], samples: Texts) -> Tensor:
        codes = [list(text.encode()) or [0] for text in samples]
        return torch.tensor([sum(each) / (128 * len(each)) for each in codes])


def reward_for(policy: Policy) -> RewardModel:
    """Of what it samples."""
    return Lateness() if isinstance(policy, LanguagePolicy) else Brightness()


def batch_of(policy: Any, *, images: int = 8, first: int = 0) -> Rollout:
    """Images or texts of two prompts in turn, with a simple reward."""
    seeds = range(first, first + images)
    prompts = [PROMPTS[seed % 2] for seed in seeds]
    rollout = collect(policy, reward_for(policy), prompts, seeds=seeds, world=Alone())
    # Examples count only where an algorithm has a weight for them.
    examples = policy.given(policy.sample(PROMPTS, seeds=[900, 901]))
    return replace(rollout, examples=examples)


def write_given_images(out: Path) -> Path:
    """A folder of eight images of the two prompts."""
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(out / f"{number}.png")
        (out / f"{number}.txt").write_text(PROMPTS[number % 2])
    return out


def batch_for(name: str, folder: Path, policy: Any, *, images: int = 8, first: int = 0) -> Batch:
    """A batch for a row of the table of algorithms, from its source; `folder` has images."""
    if name not in GIVEN:
        return batch_of(policy, images=images, first=first)
    if name == "dpo, given rankings":
        return rankings_of(policy, folder, images=images)
    return demonstrations_of(policy, folder, images=images, first=first)


def given_to(policy: Any, folder: Path) -> Callable[[str], Any]:
    """Loads the sample of a number: an image of the folder, or a text."""
    if isinstance(policy, LanguagePolicy):
        return lambda number: [TEXTS[int(number)]]
    return lambda number: read_tensor(folder / f"{number}.png")[None]


def demonstrations_of(policy: Any, folder: Path, *, images: int, first: int) -> Demonstrations:
    """Images of the folder, or texts."""
    if isinstance(policy, LanguagePolicy):
        load = given_to(policy, folder)
        examples = [
            Example(PROMPTS[number % 2], partial(load, str(number))) for number in range(len(TEXTS))
        ]
        source = GivenSamples(
            examples, asked=images, usual=images, policy=policy, run=folder, seed=0, world=Alone()
        )
    else:
        parts = Parts(
            policy=policy, reward=None, prompts=Prompts((), ()), run=folder, seed=0, world=Alone()
        )
        source = ImagesConfig(folder=folder, images_per_iteration=images).build(parts)
    return source.batch(first // images)


def rankings_of(policy: Any, folder: Path, *, images: int) -> RankedBatch:
    """One ranking for each of two prompts, in the order of the numbers."""
    numbers = [[str(number) for number in range(start, images, 2)] for start in range(2)]
    judged = [
        GivenRanking(prompt=prompt, images=tuple(own), ranks=tuple(range(len(own))))
        for prompt, own in zip(PROMPTS, numbers, strict=True)
    ]
    source = GivenRankings(
        RankingsConfig(),
        judged,
        given_to(policy, folder),
        policy=policy,
        reward=None,
        encoded=EncodedSamples(None),
        held_out=(),
        run=folder,
        seed=0,
        world=Alone(),
    )
    return source.batch(0)


def cut_rankings(batch: RankedBatch, places: Sequence[int]) -> RankedBatch:
    """What is left of rankings when only some of their images are there.

    Images are numbered as by `batch_of`: those of the first prompt are even.
    """
    rows = sorted(
        range(batch.num_rankings), key=lambda row: batch.data.prompts[batch.index[row, 0]]
    )
    number = {
        int(batch.index[row, place]): 2 * place + prompt
        for prompt, row in enumerate(reversed(rows))
        for place in range(batch.index.shape[1])
    }
    kept = torch.tensor([[number[int(i)] in places for i in row] for row in batch.index])
    return replace(
        batch,
        index=torch.where(kept, batch.index, -1),
        ranks=torch.where(kept, batch.ranks, -1),
    )


def cut(
    batch: Batch, parts: Sequence[Sequence[int]], *, examples: Sequence[int] | None = None
) -> Batch:
    """Images of a batch by their places, in parts as if they had been made together.

    Of what is given beside them, `examples`, or all.
    """
    if isinstance(batch, Demonstrations):
        given = join_data(batch.batch)
        return Demonstrations(batch=[given.select(part) for part in parts])
    if isinstance(batch, RankedBatch):
        return cut_rankings(batch, [place for part in parts for place in part])
    whole, places = concatenate(batch.batch), [place for part in parts for place in part]
    parted = [whole.select(part) for part in parts]
    finished = None if batch.finished is None else batch.finished[places]
    beside = batch.examples
    if beside is not None and examples is not None:
        beside = beside.select(examples)
    return replace(
        batch, batch=parted, rewards=batch.rewards[places], finished=finished, examples=beside
    )


def regroup(batch: Batch, sizes: Sequence[int]) -> Batch:
    """The same images and rewards in forward passes of other sizes."""
    return cut(
        batch, [part.tolist() for part in torch.split(torch.arange(len(batch)), list(sizes))]
    )
