"""Batches of two prompts for the contract suite, from every kind of source, and cuts of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from random_walk import Brightness

from imgalign.algorithms.batches import Demonstrations, Rollout
from imgalign.algorithms.rankings import RankedBatch
from imgalign.images import read_tensor
from imgalign.policy import concatenate, join_data
from imgalign.preferences.foreign.records import GivenRanking
from imgalign.train.data.encoded import EncodedSamples
from imgalign.train.data.rankings import GivenRankings, RankingsConfig
from imgalign.train.data.rollouts import collect
from imgalign.train.world import Alone

PROMPTS = ["a red house", "a blue boat"]
Batch: TypeAlias = Rollout | Demonstrations | RankedBatch


def batch_of(policy: Any, *, images: int = 8, first: int = 0) -> Rollout:
    """Images of two prompts in turn, with their brightness as the reward."""
    seeds = range(first, first + images)
    prompts = [PROMPTS[seed % 2] for seed in seeds]
    rollout = collect(policy, Brightness(), prompts, seeds=seeds, world=Alone())
    # Examples count only where an algorithm has a weight for them.
    examples = policy.given(policy.sample(PROMPTS, seeds=[900, 901]))
    return replace(rollout, examples=examples)


def rankings_of(policy: Any, folder: Path, *, images: int) -> RankedBatch:
    """One ranking for each of two prompts, in the order of the files."""
    files = [[f"{number}.png" for number in range(start, images, 2)] for start in range(2)]
    judged = [
        GivenRanking(prompt=prompt, images=tuple(own), ranks=tuple(range(len(own))))
        for prompt, own in zip(PROMPTS, files, strict=True)
    ]
    source = GivenRankings(
        RankingsConfig(),
        judged,
        lambda file: read_tensor(folder / file)[None],
        policy=policy,
        reward=None,
        encoded=EncodedSamples(None),
        held_out=(),
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


def cut(batch: Batch, parts: Sequence[Sequence[int]]) -> Batch:
    """Images of a batch by their places, in parts as if they had been made together."""
    if isinstance(batch, Demonstrations):
        given = join_data(batch.batch)
        return Demonstrations(batch=[given.select(part) for part in parts])
    if isinstance(batch, RankedBatch):
        return cut_rankings(batch, [place for part in parts for place in part])
    whole, places = concatenate(batch.batch), [place for part in parts for place in part]
    parted = [whole.select(part) for part in parts]
    return replace(batch, batch=parted, rewards=batch.rewards[places])


def regroup(batch: Batch, sizes: Sequence[int]) -> Batch:
    """The same images and rewards in forward passes of other sizes."""
    return cut(
        batch, [part.tolist() for part in torch.split(torch.arange(len(batch)), list(sizes))]
    )
