"""Claims: each check passes on a sound policy and fails on one that is broken in just that way; a
policy leaves the examination as it entered it."""

import contextlib
from dataclasses import replace

import pytest
import torch
from random_walk import RandomWalk
from torch.nn import Parameter

from imgalign import environment
from imgalign.algorithms import checks as doctor
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient
from imgalign.diffusion.config import LoraDiffusionConfig
from imgalign.diffusion.kernels import DDIMKernel
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.errors import NumericsError
from imgalign.policy import Check, Trajectory

RATIO = "ratio is 1 before the first update"
FLOOR = "noise floor of the log-ratio"
START = "kl to the pretrained model at the start"
PULL = "gradient of the kl once weights have moved"
COVERAGE = "every trainable tensor gets a gradient"
GROUPS = "group advantages"
MASK = "steps without noise are masked"
LIBRARY = "a step at eta 0 is the library's"
FROZEN = "nothing frozen collects gradients"


def examine(policy, *, config=None, fresh=True) -> dict[str, Check]:
    with torch.no_grad():
        trajectory = policy.sample(["a red house", "a blue boat"], seeds=[0, 1])
    algorithm = PolicyGradient(config or GRPOConfig(), seed=0)
    checks = [*algorithm.checks(policy, trajectory, fresh=fresh), *policy.checks()]
    return {check.name: check for check in checks}


def failed(policy, **kwargs) -> set[str]:
    return {name for name, check in examine(policy, **kwargs).items() if not check.passed}


class Dropout(RandomWalk):
    def step_means(self, latents, steps):
        return torch.nn.functional.dropout(super().step_means(latents, steps), p=0.1)


class RoundedAfterwards(RandomWalk):
    """Stores a rounded latent after taking the log-probability of the exact one."""

    def sample(self, prompts, **kwargs):
        exact = super().sample(prompts, **kwargs)
        fields = {name: getattr(exact, name) for name in exact.__dataclass_fields__}
        rounded = exact.replay["latents"].bfloat16().float()
        return Trajectory(**fields | {"replay": {"latents": rounded}})


class NotTheIdentity(RandomWalk):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with torch.no_grad():
            self.shift[0] = 0.01


class NoGradient(RandomWalk):
    def step_distributions(self, trajectory, steps):
        with torch.no_grad():
            return super().step_distributions(trajectory, steps)


class ReferenceForgotten(RandomWalk):
    """Its reference is itself: the KL is zero for ever, and so is its gradient."""

    @contextlib.contextmanager
    def using(self, weights):
        yield


class HardlyMoved(RandomWalk):
    """So little that float32 rounds the KL to 0, whose gradient it still knows."""

    def step_means(self, latents, steps):
        return latents + 1e-3 * (super().step_means(latents, steps) - latents)


class FrozenTrainable(RandomWalk):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.frozen = Parameter(torch.zeros(3), requires_grad=False)

    def trainable_parameters(self):
        return [self.shift, self.frozen]


class UnusedTrainable(FrozenTrainable):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.frozen.requires_grad_(True)


class UnmaskedDeterministicStep(RandomWalk):
    """Its last step adds no noise and is still counted as one with a density."""

    def sample(self, prompts, **kwargs):
        kept = super().sample(prompts, **kwargs)
        fields = {name: getattr(kept, name) for name in kept.__dataclass_fields__}
        log_probs = kept.log_probs.index_fill(1, torch.tensor([3]), torch.inf)
        return Trajectory(**fields | {"log_probs": log_probs, "mask": torch.ones_like(kept.mask)})


class Nameless(RandomWalk):
    def sample(self, prompts, **kwargs):
        return super().sample(prompts, **kwargs | {"prompt_ids": ["", ""]})


@pytest.mark.parametrize(
    ("broken", "rules"),
    [
        (Dropout, {RATIO, FLOOR, START}),
        (RoundedAfterwards, {RATIO}),
        (NotTheIdentity, {START}),
        (NoGradient, {PULL, COVERAGE}),
        (ReferenceForgotten, {PULL}),
        (FrozenTrainable, {COVERAGE}),
        (UnusedTrainable, {COVERAGE}),
        (UnmaskedDeterministicStep, {RATIO, FLOOR, MASK}),
        (Nameless, {GROUPS}),
    ],
)
def test_each_defect_fails_the_checks_that_are_about_it(broken, rules):
    policy = broken(last_step_deterministic=broken is UnmaskedDeterministicStep)
    assert failed(policy) == rules


def test_a_kl_that_rounding_leaves_nothing_of_still_pulls():
    found = examine(HardlyMoved())[PULL]
    assert found.measured.endswith("at a kl of 0 nats")
    assert found.passed


def test_a_clip_under_three_times_the_noise_floor_is_refused_with_both_numbers():
    floor = examine(RoundedAfterwards())[FLOOR]
    measured = float(floor.measured.split()[0])
    assert measured > 0
    assert failed(RoundedAfterwards(), config=GRPOConfig(clip_nats=2.9 * measured)) == {
        RATIO,
        FLOOR,
    }
    assert failed(RoundedAfterwards(), config=GRPOConfig(clip_nats=3.1 * measured)) == {RATIO}


class SampledWhole(RandomWalk):
    """Rounds otherwise where it does not score all steps in one pass, as it samples them."""

    def step_means(self, latents, steps):
        means = super().step_means(latents, steps)
        return means if len(steps) == len(self.sigma) else means + 1e-3

    def sample(self, prompts, **kwargs):
        sampled = super().sample(prompts, **kwargs)
        steps = self.step_distributions(sampled, slice(None))
        scores = steps.log_prob(self.actions(sampled, slice(None)))
        return replace(sampled, log_probs=scores)


def test_steps_that_were_sampled_in_one_pass_are_scored_again_in_one_pass():
    policy = SampledWhole(steps_per_pass=4)
    assert failed(policy) == set()
    policy.steps_per_pass = 2  # neither as sampled, nor one by one
    assert RATIO in failed(policy)


def test_an_adapter_that_has_been_trained_need_not_equal_the_pretrained_model():
    policy = RandomWalk()
    with torch.no_grad():
        policy.shift.fill_(0.3)
    assert failed(policy, fresh=False) == set()


def test_weights_and_gradients_are_as_before():
    policy = RandomWalk()
    with torch.no_grad():
        policy.shift.normal_()
    before = policy.shift.detach().clone()
    examine(policy, fresh=False)
    assert torch.equal(policy.shift, before)
    assert policy.shift.grad is None


def test_the_first_failed_check_becomes_an_error_with_its_cure():
    with pytest.raises(NumericsError, match=r"ratio is 1.*expected 0.*measured.*dropout") as caught:
        doctor.require(examine(Dropout()).values())
    assert "\n" not in str(caught.value)
    doctor.require(examine(RandomWalk()).values())


def test_a_diffusion_model_with_a_part_that_was_not_frozen_fails(tiny_pipeline):
    policy = DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig(num_inference_steps=2))
    next(tiny_pipeline.unet.parameters()).requires_grad_(True)
    assert failed(policy) == {FROZEN}


def test_a_schedule_that_differs_from_the_library_fails(tiny_pipeline):
    policy = DiffusionPolicy(tiny_pipeline, LoraDiffusionConfig(num_inference_steps=2))
    assert isinstance(policy.denoiser.kernel, DDIMKernel)
    policy.denoiser.kernel.alpha_bar[0] *= 0.9
    assert LIBRARY in failed(policy)


def test_facts_about_the_machine_name_the_libraries_and_the_device():
    facts = {fact.name: fact.value for fact in environment.facts()}
    assert facts["torch"].startswith(torch.__version__.split("+")[0])
    assert facts["device"].startswith(("cpu", "cuda"))
    assert environment.version("no-such-distribution-anywhere") == "not installed"
