"""Correctness checks of an algorithm on the policy that is about to be trained.

Each check returns what it measured, what it expected, and the cure; a run makes them at its start
and ends when one fails. Left out: rules that only a test can check (resume, export, losses), and
those of one kind of policy (`Policy.checks`).

Units: log-probabilities and KL in nats, summed over the elements of a latent.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn import Parameter

from imgalign.advantages import group_advantages
from imgalign.algorithms.batches import masked, with_density
from imgalign.algorithms.kl import measure_kl
from imgalign.errors import NumericsError
from imgalign.policy import Check, LikelihoodPolicy, StepPolicy, Trajectory

ROUNDINGS = 8
"""How many float32 roundings of a log-probability may separate two scores of one step."""

NUDGE = 0.02
"""Size of the random change that moves weights, and is taken back: of a tensor's root mean square,
or itself for a tensor of zeros, which a fresh adapter has."""


def check_steps(
    policy: StepPolicy, trajectory: Trajectory, *, clip: Callable[[int], float], fresh: bool
) -> list[Check]:
    """The checks of policy gradients, on a small trajectory that was just sampled in one batch.

    `clip` gives the limit of a step's log-ratio, in nats, for so many latent elements. `fresh`: the
    weights are untrained, so that the policy must equal the pretrained model. Weights and gradients
    are as before when it returns.
    """
    return [
        *check_ratio(policy, trajectory, clip=clip),
        *([check_kl_at_start(policy, trajectory)] if fresh else []),
        *check_step_gradients(policy, trajectory),
        check_group_advantages(trajectory),
        check_masked_steps(policy, trajectory),
    ]


def check_likelihood(
    policy: LikelihoodPolicy, trajectory: Trajectory, *, fresh: bool
) -> list[Check]:
    """The checks of scoring given samples, on samples that the policy has just made."""
    data = policy.given(trajectory)
    draws = policy.draw(data, seeds=trajectory.seeds)
    with torch.no_grad():
        first, again = (policy.log_prob(data, draws).values for _ in range(2))
        with policy.using("reference"):
            pretrained = policy.log_prob(data, draws).values
    parameters = list(policy.trainable_parameters())
    with nudged(parameters):
        learned = gradients(policy.log_prob(data, draws).values.mean(), parameters)
    repeated = (first - again).abs().max().item()
    apart = (first - pretrained).abs().max().item()
    return [
        Check(
            name="the same draws give the same log-probability",
            measured=f"{repeated:.3g} nats apart",
            expected="0",
            passed=repeated == 0,
            cure="something random is not part of the draws: look for dropout",
        ),
        *(
            [
                Check(
                    name="log-probability of the pretrained model at the start",
                    measured=f"{apart:.3g} nats apart",
                    expected="0",
                    passed=apart == 0,
                    cure="the trained weights must start as the reference, which "
                    "using('reference') must put in their place",
                )
            ]
            if fresh
            else []
        ),
        coverage(learned),
    ]


def require(checks: Iterable[Check]) -> None:
    """NumericsError for the first check that failed."""
    for check in checks:
        if not check.passed:
            raise NumericsError(
                f"{check.name}: expected {check.expected}, measured {check.measured}; {check.cure}"
            )


def check_ratio(
    policy: StepPolicy, trajectory: Trajectory, *, clip: Callable[[int], float]
) -> list[Check]:
    """Rules 1 and 2: scoring again without an update gives the same, and the clip is well above."""
    units = policy.units(trajectory)
    floor = exact = rescored_difference(policy, trajectory, units)
    # A unit may be as it was sampled, or several steps that were sampled one by one.
    if exact and any(len(unit) > 1 for unit in units):
        one_by_one = torch.cat(units).view(-1, 1)
        exact = min(exact, rescored_difference(policy, trajectory, one_by_one))
    with torch.no_grad():
        first = policy.step_distributions(trajectory, torch.tensor([0]))
    limit_of_ratio = clip(first.event_shape.numel())
    counted = trajectory.log_probs[trajectory.mask & trajectory.log_probs.isfinite()]
    largest = counted.abs().max().item() if len(counted) else 0.0
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps * largest
    # A GPU may choose other kernels when gradients are on; there the rule is the noise floor's.
    limit = rounding if trajectory.log_probs.device.type == "cpu" else limit_of_ratio / 3
    return [
        Check(
            name="ratio is 1 before the first update",
            measured=f"log-ratio up to {exact:.3g} nats",
            expected=f"0 (float32 rounding: {limit:.1g})",
            passed=exact <= limit,
            cure="sampling and scoring differ: look for dropout, another guidance scale, number "
            "type or batch size between the two",
        ),
        Check(
            name="noise floor of the log-ratio",
            measured=f"{floor:.3g} nats",
            expected=f"at most a third of the clip, {limit_of_ratio:.3g} nats",
            passed=3 * floor <= limit_of_ratio,
            cure="raise algorithm.clip_nats, score one step in a pass (policy.steps_per_pass: 1), "
            "or use float32",
        ),
    ]


def rescored_difference(
    policy: StepPolicy, trajectory: Trajectory, passes: Iterable[Tensor]
) -> float:
    """Largest change of a step's log-probability when it is scored again; infinite for NaN.

    Gradients are on, as they are in training.
    """
    largest = 0.0
    for each in passes:
        steps = with_density(each, trajectory.mask)
        if not len(steps):
            continue
        again = policy.step_distributions(trajectory, steps).log_prob(
            policy.actions(trajectory, steps)
        )
        change = masked(again.detach() - trajectory.log_probs[:, steps], trajectory.mask[:, steps])
        largest = max(largest, change.abs().nan_to_num(nan=torch.inf).max().item())
    return largest


def check_kl_at_start(policy: StepPolicy, trajectory: Trajectory) -> Check:
    """Rule 3, first half: an untrained policy is the pretrained model."""
    kl = measure_kl(policy, [trajectory])
    return Check(
        name="kl to the pretrained model at the start",
        measured=f"{kl:.3g} nats",
        expected="0",
        passed=abs(kl) <= 1e-6,
        cure="the trained weights must start as the reference, which using('reference') must put "
        "in their place",
    )


def check_step_gradients(policy: StepPolicy, trajectory: Trajectory) -> list[Check]:
    """Rules 3, second half, and 4: once weights have moved, the KL pulls; all of them learn.

    A fresh LoRA has exact zeros in one of each pair of matrices, so the weights are nudged first.
    """
    parameters = list(policy.trainable_parameters())
    step = trajectory.mask.any(dim=0).nonzero()[:1].squeeze(1)
    with nudged(parameters):
        with torch.no_grad(), policy.using("reference"):
            pretrained = policy.step_distributions(trajectory, step)
        current = policy.step_distributions(trajectory, step)
        kl = masked(kl_divergence(current, pretrained), trajectory.mask[:, step]).mean()
        pull = norm_of(gradients(kl, parameters))
        current = policy.step_distributions(trajectory, step)
        log_prob = current.log_prob(policy.actions(trajectory, step)).mean()
        learned = gradients(log_prob, parameters)
    return [
        Check(
            name="gradient of the kl once weights have moved",
            measured=f"norm {pull:.3g} at a kl of {kl.item():.3g} nats",
            expected="a norm above 0",
            # Not the KL itself: of so small a change float32 may leave nothing.
            passed=pull > 0,
            cure="the kl must not be computed under no_grad, and using('reference') must put the "
            "trained weights back",
        ),
        coverage(learned),
    ]


def coverage(learned: Sequence[Tensor | None]) -> Check:
    """Rule 4: each trainable tensor has a gradient that is not zero."""
    still = sum(each is None or not each.any() for each in learned)
    return Check(
        name="every trainable tensor gets a gradient",
        measured=f"{len(learned) - still} of {len(learned)}",
        expected=f"{len(learned)} of {len(learned)}",
        passed=len(learned) > 0 and still == 0,
        cure="a tensor that is frozen, detached or unused is listed as trainable",
    )


@contextmanager
def nudged(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Inside, the weights are a little off; afterwards they are what they were, bit for bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator("cpu").manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                size = parameter.square().mean().sqrt()
                parameter.add_(NUDGE * torch.where(size > 0, size, 1.0) * noise)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def norm_of(found: Sequence[Tensor | None]) -> float:
    """Sum of the norms of gradients."""
    return sum(0.0 if each is None else each.norm().item() for each in found)


def gradients(loss: Tensor, parameters: Sequence[Parameter]) -> list[Tensor | None]:
    """Gradient of each parameter; None where the loss does not depend on it."""
    learnable = [parameter for parameter in parameters if parameter.requires_grad]
    if not loss.requires_grad or not learnable:
        return [None] * len(parameters)
    found = iter(torch.autograd.grad(loss, learnable, allow_unused=True))
    return [next(found) if parameter.requires_grad else None for parameter in parameters]


def check_group_advantages(trajectory: Trajectory) -> Check:
    """Rule 5: within a prompt, advantages have mean 0; equal rewards give 0."""
    group = torch.tensor([0, 1, 0, 1, 2, 2, 0])
    rewards = torch.tensor([0.1, -3.0, 0.7, 5.0, 0.3, 0.3, 1e3])
    advantages = group_advantages(rewards, group)
    means = [advantages[group == each].mean().abs().item() for each in (0, 1, 2)]
    silent = not advantages[group == 2].any()
    named = len(trajectory.prompt_ids) == len(trajectory) and all(trajectory.prompt_ids)
    return Check(
        name="group advantages",
        measured=f"means up to {max(means):.2g}, equal rewards give {advantages[4].item():.2g}"
        + ("" if named else ", a prompt id is empty"),
        expected="mean 0 per prompt id, and 0 for equal rewards",
        passed=max(means) < 1e-6 and silent and named,
        cure="give every sample the id of its prompt",
    )


def check_masked_steps(policy: StepPolicy, trajectory: Trajectory) -> Check:
    """Rule 6, first half: what has no density is masked, and everything else is a number."""
    with torch.no_grad():
        steps = trajectory.mask.any(dim=0).nonzero().squeeze(1)
        entropy = policy.step_distributions(trajectory, steps).entropy()
    noiseless = int((entropy == -torch.inf)[trajectory.mask[:, steps]].sum())
    broken = int((~trajectory.log_probs.isfinite())[trajectory.mask].sum())
    return Check(
        name="steps without noise are masked",
        measured=f"{int(trajectory.mask[0].sum())} of {trajectory.mask.shape[1]} steps count, "
        f"{noiseless} of them without noise, {broken} without a finite log-probability",
        expected="at least 1, 0 and 0",
        passed=bool(trajectory.mask.any()) and noiseless == 0 and broken == 0,
        cure="mask every step whose standard deviation is 0, and use policy.eta above 0",
    )
