"""Batches of the random walk, and one update of PPO on them."""

import torch
from random_walk import Brightness, RandomWalk
from torch import Tensor
from torch.optim import Optimizer

from imgalign.algorithms.batches import MicroBatch, Tally
from imgalign.algorithms.ppo import PPO
from imgalign.policy import Trajectory

PROMPTS = ["a red fox", "a blue boat"]


def sample(
    policy: RandomWalk, *, images: int = 8, chunk: int = 4, first: int = 0
) -> tuple[list[Trajectory], Tensor]:
    seeds = range(first, first + images)
    prompts = [PROMPTS[seed % 2] for seed in seeds]
    batch = [
        policy.sample(prompts[start : start + chunk], seeds=seeds[start : start + chunk])
        for start in range(0, images, chunk)
    ]
    score = Brightness().score
    rewards = torch.cat([score(prompts=each.prompts, samples=each.samples) for each in batch])
    return batch, rewards


def micros(ppo: PPO, policy: RandomWalk, **sizes: int) -> list[list[MicroBatch]]:
    batch, rewards = sample(policy, **sizes)
    assessment = ppo.assess(policy, batch, rewards)
    return list(ppo.minibatches(assessment, generator=torch.Generator().manual_seed(0)))


def run_update(
    ppo: PPO, policy: RandomWalk, optimizer: Optimizer, *, first: int
) -> tuple[float, Tally]:
    batch, rewards = sample(policy, first=first, images=32, chunk=16)
    assessment = ppo.assess(policy, batch, rewards)
    tally = assessment.tally()
    for minibatch in ppo.minibatches(assessment, generator=torch.Generator().manual_seed(first)):
        optimizer.zero_grad()
        for micro in minibatch:
            loss, stats = ppo.loss(policy, micro)
            torch.autograd.backward(loss)
            tally.add(stats, micro)
        optimizer.step()
    return rewards.mean().item(), tally
