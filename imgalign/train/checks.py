"""The correctness rules of policy optimisation, measured on the very policy that is to be trained.

Each check returns what it measured beside what it expected, and the cure. `examine` runs all of
them; training runs the same at its start and refuses to go on when one fails. Left out: rules that
only a test can check (resume, export, losses).

Units: log-probabilities and KL in nats, summed over the elements of a latent.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn import Parameter

from imgalign.advantages import group_advantages
from imgalign.algorithms.batches import masked
from imgalign.algorithms.ppo import PPOConfig, measure_kl
from imgalign.diffusion.parity import noiseless_difference
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import NumericsError
from imgalign.policy import Check, Policy, Trajectory

ROUNDINGS = 8
"""How many float32 roundings of a log-probability may separate two scores of one step."""

NUDGE = 0.02
"""Size of the random change that moves a fresh adapter off zero, and is taken back."""


def examine(
    policy: Policy, trajectory: Trajectory, *, config: PPOConfig, fresh: bool
) -> list[Check]:
    """All checks on a small trajectory that this policy has just sampled, in one batch.

    `fresh`: the weights are untrained, so that the policy must equal the pretrained model. Weights
    and gradients are as before when it returns.
    """
    checks = [
        *check_ratio(policy, trajectory, config=config),
        *([check_kl_at_start(policy, trajectory)] if fresh else []),
        *check_gradients(policy, trajectory),
        check_group_advantages(trajectory),
        check_masked_steps(policy, trajectory),
    ]
    if isinstance(policy, DiffusionPolicy):
        checks.append(check_noiseless_step(policy))
    return checks


def require(checks: Iterable[Check]) -> None:
    """NumericsError for the first check that failed."""
    for check in checks:
        if not check.passed:
            raise NumericsError(
                f"{check.name}: expected {check.expected}, measured {check.measured}; {check.cure}"
            )


def check_ratio(policy: Policy, trajectory: Trajectory, *, config: PPOConfig) -> list[Check]:
    """Rules 1 and 2: scoring again without an update gives the same, and the clip is well above."""
    exact = rescored_difference(policy, trajectory, steps_per_pass=1)
    floor = exact
    if config.steps_per_pass > 1:
        floor = rescored_difference(policy, trajectory, steps_per_pass=config.steps_per_pass)
    with torch.no_grad():
        first = policy.step_distributions(trajectory, torch.tensor([0]))
    clip = config.clip_in_nats(first.event_shape.numel())
    counted = trajectory.log_probs[trajectory.mask & trajectory.log_probs.isfinite()]
    largest = counted.abs().max().item() if len(counted) else 0.0
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps * largest
    # A GPU may choose other kernels when gradients are on; there the rule is the noise floor's.
    limit = rounding if trajectory.log_probs.device.type == "cpu" else clip / 3
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
            expected=f"at most a third of the clip, {clip:.3g} nats",
            passed=3 * floor <= clip,
            cure="raise ppo.clip_nats, set ppo.steps_per_pass to 1, or use float32",
        ),
    ]


def rescored_difference(policy: Policy, trajectory: Trajectory, *, steps_per_pass: int) -> float:
    """Largest change of a step's log-probability when it is scored again; infinite for NaN.

    Gradients are on, as they are in training.
    """
    largest = 0.0
    steps = trajectory.mask.any(dim=0).nonzero().squeeze(1)
    policy.train()
    for part in torch.split(steps, steps_per_pass):
        again = policy.step_distributions(trajectory, part).log_prob(
            policy.actions(trajectory, part)
        )
        change = masked(again.detach() - trajectory.log_probs[:, part], trajectory.mask[:, part])
        largest = max(largest, change.abs().nan_to_num(nan=torch.inf).max().item())
    policy.eval()
    return largest


def check_kl_at_start(policy: Policy, trajectory: Trajectory) -> Check:
    """Rule 3, first half: an untrained adapter is the pretrained model."""
    kl = measure_kl(policy, [trajectory])
    return Check(
        name="kl to the pretrained model at the start",
        measured=f"{kl:.3g} nats",
        expected="0",
        passed=abs(kl) <= 1e-6,
        cure="the adapter must start as the identity, and reference() must switch it off",
    )


def check_gradients(policy: Policy, trajectory: Trajectory) -> list[Check]:
    """Rules 3, second half, and 4: once weights have moved, the KL pulls; all of them learn.

    A fresh LoRA has exact zeros in one of each pair of matrices, so the weights are nudged first.
    """
    parameters = list(policy.trainable_parameters())
    step = trajectory.mask.any(dim=0).nonzero()[:1].squeeze(1)
    with nudged(parameters):
        policy.train()
        with torch.no_grad(), policy.reference():
            pretrained = policy.step_distributions(trajectory, step)
        current = policy.step_distributions(trajectory, step)
        kl = masked(kl_divergence(current, pretrained), trajectory.mask[:, step]).mean()
        pulled = gradients(kl, parameters)
        current = policy.step_distributions(trajectory, step)
        log_prob = current.log_prob(policy.actions(trajectory, step)).mean()
        learned = gradients(log_prob, parameters)
        policy.eval()
    pull = sum(0.0 if each is None else each.norm().item() for each in pulled)
    still = sum(each is None or not each.any() for each in learned)
    stray = strays(policy, parameters)
    return [
        Check(
            name="gradient of the kl once weights have moved",
            measured=f"norm {pull:.3g} at a kl of {kl.item():.3g} nats",
            expected="above 0",
            passed=pull > 0 and kl.item() > 0,
            cure="the kl must not be computed under no_grad, and reference() must switch the "
            "adapter off and on again",
        ),
        Check(
            name="every trainable tensor gets a gradient",
            measured=f"{len(parameters) - still} of {len(parameters)}, {stray} frozen ones too",
            expected=f"{len(parameters)} of {len(parameters)}, 0 frozen ones too",
            passed=len(parameters) > 0 and still == 0 and stray == 0,
            cure="a tensor that is frozen, detached or unused is listed as trainable, or a part "
            "that must stay as it is is not frozen",
        ),
    ]


@contextmanager
def nudged(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Inside, the weights are a little off; afterwards they are what they were, bit for bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator("cpu").manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(NUDGE * noise.to(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def gradients(loss: Tensor, parameters: Sequence[Parameter]) -> list[Tensor | None]:
    """Gradient of each parameter; None where the loss does not depend on it."""
    learnable = [parameter for parameter in parameters if parameter.requires_grad]
    if not loss.requires_grad or not learnable:
        return [None] * len(parameters)
    found = iter(torch.autograd.grad(loss, learnable, allow_unused=True))
    return [next(found) if parameter.requires_grad else None for parameter in parameters]


def strays(policy: Policy, parameters: Sequence[Parameter]) -> int:
    """How many tensors of a diffusion model collect gradients without being trained."""
    if not isinstance(policy, DiffusionPolicy):
        return 0
    pipeline = policy.family.pipeline
    trained = {id(parameter) for parameter in parameters}
    return sum(
        parameter.requires_grad and id(parameter) not in trained
        for module in (policy.family.network, pipeline.vae, pipeline.text_encoder)
        for parameter in module.parameters()
    )


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
        cure="give every image the id of its prompt",
    )


def check_masked_steps(policy: Policy, trajectory: Trajectory) -> Check:
    """Rule 6, first half: what has no density is masked, and everything else is a number."""
    with torch.no_grad():
        steps = trajectory.mask.any(dim=0).nonzero().squeeze(1)
        spread = policy.step_distributions(trajectory, steps).stddev
    sure = int((spread.flatten(2).amin(dim=2) <= 0)[trajectory.mask[:, steps]].sum())
    broken = int((~trajectory.log_probs.isfinite())[trajectory.mask].sum())
    return Check(
        name="steps without noise are masked",
        measured=f"{int(trajectory.mask[0].sum())} of {trajectory.mask.shape[1]} steps count, "
        f"{sure} of them without noise, {broken} without a finite log-probability",
        expected="at least 1, 0 and 0",
        passed=bool(trajectory.mask.any()) and sure == 0 and broken == 0,
        cure="mask every step whose standard deviation is 0, and use policy.eta above 0",
    )


def check_noiseless_step(policy: DiffusionPolicy) -> Check:
    """Rule 6, second half: at eta 0 a step is the library's own DDIM step."""
    largest = noiseless_difference(policy)
    return Check(
        name="a step at eta 0 is the library's",
        measured=f"up to {largest:.2g} apart",
        expected="under 0.0001",
        passed=largest < 1e-4,
        cure="the settings of the model's scheduler are not understood; report them",
    )
