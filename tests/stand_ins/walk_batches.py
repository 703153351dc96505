"""Batches of the random walk, and one update of a policy gradient on them."""

import torch
from random_walk import Brightness, RandomWalk
from torch.optim import Optimizer

from imgalign.algorithms.batches import MicroBatch, Rollout, Tally
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient, PPOConfig
from imgalign.runs.world import Alone

PROMPTS = ["a red fox", "a blue boat"]


def algorithm_with(
    baseline: str, *, min_count: int = 4, seed: int = 0, **settings: object
) -> PolicyGradient:
    """PPO or GRPO, whichever has this kind of baseline."""
    section: dict[str, object] = {"kind": baseline}
    if baseline == "running":
        section["min_count"] = min_count
    kind = GRPOConfig if baseline in ("group", "rank") else PPOConfig
    return PolicyGradient(kind.model_validate(settings | {"baseline": section}), seed=seed)


def sample(policy: RandomWalk, *, images: int = 8, chunk: int = 4, first: int = 0) -> Rollout:
    seeds = range(first, first + images)
    prompts = [PROMPTS[seed % 2] for seed in seeds]
    batch = [
        policy.sample(prompts[start : start + chunk], seeds=seeds[start : start + chunk])
        for start in range(0, images, chunk)
    ]
    score = Brightness().score
    rewards = [score(prompts=each.prompts, samples=policy.decode(each)) for each in batch]
    return Rollout(batch=batch, rewards=torch.cat(rewards))


def micros(
    algorithm: PolicyGradient, policy: RandomWalk, *, seed: int = 0, **sizes: int
) -> list[list[MicroBatch]]:
    assessment = algorithm.assess(policy, sample(policy, **sizes), world=Alone())
    generator = torch.Generator().manual_seed(seed)
    return list(algorithm.minibatches(policy, assessment, world=Alone(), generator=generator))


def run_update(
    algorithm: PolicyGradient, policy: RandomWalk, optimizer: Optimizer, *, first: int
) -> tuple[float, Tally]:
    rollout = sample(policy, first=first, images=32, chunk=16)
    assessment = algorithm.assess(policy, rollout, world=Alone())
    tally = assessment.tally()
    generator = torch.Generator().manual_seed(first)
    for minibatch in algorithm.minibatches(policy, assessment, world=Alone(), generator=generator):
        optimizer.zero_grad()
        for micro in minibatch:
            loss, stats = algorithm.loss(policy, micro)
            torch.autograd.backward(loss)
            tally.add(stats, micro)
        optimizer.step()
    return rollout.rewards.mean().item(), tally
