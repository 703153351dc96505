"""Which steps of which trajectories an optimizer step learns from, drawn alike in all processes.

Everything here is drawn over the trajectories of all processes, in their order, by a generator that
is in the same state in each. So a process that has a share of them makes its part of what one
process would make of all, as long as the samples were cut into trajectories alike.

Shapes: b = samples made together, t = steps of their trajectory, n = those chosen of them, s =
steps in one forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from imgalign.runs.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenSteps:
    """Some steps of one trajectory of a batch, as they are scored in one pass."""

    number: int
    """Of the trajectory, among those of all processes."""
    steps: Int[Tensor, " s"]
    weights: Float[Tensor, " s"]
    kl_weight: float = 1.0
    """The last two as in `batches.MicroBatch`."""


class Steps(NamedTuple):
    """The steps of one trajectory that can be learned from, on the CPU."""

    with_density: Int[Tensor, " t"]
    """For some sample, in order."""
    units: list[Int[Tensor, " _s"]]
    """Which of all steps are scored in one pass."""

    @classmethod
    def of(cls, mask: Bool[Tensor, "b t"], units: Sequence[Int[Tensor, " _s"]]) -> "Steps":
        """Those under a mask."""
        there = mask.any(dim=0).nonzero().squeeze(1).cpu()
        return cls(there, [unit.cpu() for unit in units])


def dealt(count: int, hands: int, *, generator: torch.Generator) -> list[Int[Tensor, " _n"]]:
    """Places 0 to `count` - 1, dealt out at random: for each hand its own, in order.

    They go round by round: of any `hands` that begin a round, each hand gets one. So hands differ
    by one at most, each has its share of every stretch of places, and all processes, which take
    stretches of them, have about as much to do for each.
    """
    if not hands:
        return []
    rounds = [torch.randperm(hands, generator=generator) for _ in range(0, count, hands)]
    hand = torch.cat([*rounds, torch.zeros(0, dtype=torch.long)])[:count]
    return [(hand == each).nonzero().squeeze(1) for each in range(hands)]


def drawn_passes(
    own: Sequence[Steps],
    *,
    timesteps_per_update: int | None,
    credited_steps: int | None,
    kl_steps: int | None,
    reference_passes: int | None,
    world: World,
    generator: torch.Generator,
) -> list[ChosenSteps]:
    """All passes of one epoch in all processes, of the steps that are drawn.

    `own` are those of this process, in their order; settings as in `PolicyGradientConfig`.
    """
    everybodys = [each for of_one in world.gather(list(own)) for each in of_one]
    chosen = [
        choose_steps(each.with_density, timesteps_per_update, generator=generator)
        for each in everybodys
    ]
    weighted = [(steps, torch.ones(len(steps))) for steps in chosen]
    if credited_steps is not None and kl_steps is not None:
        weighted = deal_steps(
            chosen, credited_steps=credited_steps, kl_steps=kl_steps, generator=generator
        )
    units = [each.units for each in everybodys]
    return passes_over(weighted, units, num_asked=reference_passes, generator=generator)


def choose_steps(
    steps: Int[Tensor, " t"], num_steps: int | None, *, generator: torch.Generator
) -> Int[Tensor, " _s"]:
    """Some steps: all, or `num_steps` at random, in order."""
    if num_steps is None or num_steps >= len(steps):
        return steps
    picked = torch.randperm(len(steps), generator=generator)[:num_steps]
    return steps[picked.sort().values]


def deal_steps(
    each: Sequence[Int[Tensor, " s"]],
    *,
    credited_steps: int,
    kl_steps: int,
    generator: torch.Generator,
) -> list[tuple[Int[Tensor, " n"], Float[Tensor, " n"]]]:
    """All credited steps of each trajectory and a sample of `kl_steps` others, with weights.

    The weight of a credited step is 1, that of another is (number of others) / `kl_steps`, so that
    a weighted sum is an unbiased estimate of the sum over all steps. Over consecutive trajectories
    the others are sampled without replacement: none comes twice before all have come once.
    """
    orders: dict[int, Tensor] = {}
    dealt, cards = [], 0
    for steps in each:
        first, rest = steps[steps < credited_steps], steps[steps >= credited_steps]
        count, num_rest = min(kl_steps, len(rest)), len(rest)
        if num_rest and num_rest not in orders:
            orders[num_rest] = torch.randperm(num_rest, generator=generator)
        if num_rest:
            hand = orders[num_rest][(cards + torch.arange(count)) % num_rest].sort().values
            rest = rest[hand]
            cards += count
        weights = torch.ones(len(first) + count)
        weights[len(first) :] = num_rest / max(count, 1)
        dealt.append((torch.cat([first, rest]), weights))
    return dealt


def reference_weights(
    num_passes: int, num_asked: int | None, *, generator: torch.Generator
) -> list[float]:
    """`MicroBatch.kl_weight` of each pass over a trajectory, where the reference makes some.

    `num_asked` of them, drawn without replacement, count as num_passes / num_asked and the others
    as 0, so that a weighted sum is an unbiased estimate of the sum over all. None is all; with all
    or 0 nothing is drawn.
    """
    if num_asked is None or num_asked >= num_passes:
        return [1.0] * num_passes
    if not num_asked:
        return [0.0] * num_passes
    weights = torch.zeros(num_passes)
    weights[torch.randperm(num_passes, generator=generator)[:num_asked]] = num_passes / num_asked
    return weights.tolist()


def in_units(
    steps: Int[Tensor, " n"], weights: Float[Tensor, " n"], units: Sequence[Int[Tensor, " _s"]]
) -> list[tuple[Int[Tensor, " _m"], Float[Tensor, " _m"]]]:
    """Chosen steps with their weights, cut into the units that are scored in one pass."""
    cut = []
    for unit in units:
        inside = torch.isin(steps, unit.cpu())
        if inside.any():
            cut.append((steps[inside], weights[inside]))
    return cut


def passes_over(
    weighted: Sequence[tuple[Int[Tensor, " _n"], Float[Tensor, " _n"]]],
    units: Sequence[Sequence[Int[Tensor, " _s"]]],
    *,
    num_asked: int | None,
    generator: torch.Generator,
) -> list[ChosenSteps]:
    """All passes over chosen steps of each trajectory, `num_asked` of them by the reference too."""
    passes = []
    for number, (each, own) in enumerate(zip(weighted, units, strict=True)):
        cut = in_units(*each, own)
        kl_weights = reference_weights(len(cut), num_asked, generator=generator)
        passes += [
            ChosenSteps(number=number, steps=steps, weights=weights, kl_weight=kl_weight)
            for (steps, weights), kl_weight in zip(cut, kl_weights, strict=True)
        ]
    return passes
