"""Claims: equal log-ratios give equal losses, metrics and gradients, of images as of texts.

The algorithms run whole, on the diffusion policy and on the language policy with their networks:
samples are made, encoded and scored in each policy's own passes and units. Only the number that
comes out of the narrowest seam between a policy and an algorithm, the log-probability of a sample
or of a step, is replaced by a scripted one, and the gradient that arrives there is recorded. So
nothing that an algorithm asks of a policy is left out, as it would be with a stub for each
modality, or by comparing the coefficients of scores that were made by hand.

Losses are divided by the elements of a sample, so gradients are compared times these.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any, get_args

import pytest
import torch
from algorithm_rows import algorithm_config
from contract_rows import losses
from policies import KINDS, STEPS
from ranked_batches import FIXED, RANKS, ranked
from torch import Tensor, nn
from torch.testing import assert_close

from imgalign.algorithms.batches import Demonstrations, Rollout
from imgalign.algorithms.choice import build_algorithm
from imgalign.algorithms.direct import Direct
from imgalign.algorithms.objectives import (
    AnyDirectConfig,
    CardinalConfig,
    DPOConfig,
    IPOConfig,
    KTOConfig,
)
from imgalign.algorithms.supervised import (
    BestConfig,
    EqualConfig,
    Supervised,
    SupervisedConfig,
    Weighting,
)
from imgalign.policy import Data, Draws, LogProb, Steps, Trajectory, Weights
from imgalign.runs.world import Alone

MODALITIES = ("diffusion", "language")

DIRECT: Mapping[str, AnyDirectConfig] = {
    "dpo, whole rankings": DPOConfig.model_validate({"beta": FIXED}),
    "dpo, pairs": DPOConfig.model_validate({"beta": FIXED, "compare": "all_pairs"}),
    "dpo, pairs, smoothed": DPOConfig.model_validate(
        {"beta": FIXED, "compare": "best_worst", "label_smoothing": 0.2}
    ),
    "dpo, with the likelihood of the chosen": DPOConfig.model_validate({"beta": FIXED, "sft": 0.3}),
    "ipo, sum": IPOConfig.model_validate({"beta": FIXED, "average": False}),
    "ipo, mean": IPOConfig.model_validate({"beta": FIXED, "average": True}),
    "kto": KTOConfig.model_validate({"beta": FIXED}),
    "cardinal": CardinalConfig.model_validate({"beta": FIXED}),
}
ALL_RANKS = torch.cat([RANKS, torch.full((1, 4), -1)])
"""An order, ties, three candidates, and the last is all bad."""
NUMBER = 15
"""Samples in them."""

GROUPS = ["a red house", "a blue boat"] * 2


def script(*shape: int) -> Tensor:
    """Log-ratios on both sides of any clip."""
    return 0.4 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def said(values: Tensor, wanted: Tensor) -> Tensor:
    """The numbers that are wanted, exactly, with the graph of those that there are."""
    return wanted + (values - values.detach())


def record(gradients: Tensor, place: tuple[Tensor, ...], gradient: Tensor) -> None:
    gradients.index_put_(place, gradient, accumulate=True)


class Script:
    """Knows whose weights a policy computes with: its own, or others, such as the reference's."""

    def __init__(self, policy: Any, log_ratios: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log_ratios = log_ratios
        self.gradients = torch.zeros_like(log_ratios)
        self.passes = 0
        self._using = policy.using
        self._others: list[Weights] = []
        monkeypatch.setattr(policy, "using", self.using)

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        with self._using(weights):
            self._others.append(weights)
            yield
            self._others.pop()


# --- direct methods


class GivenScript(Script):
    """What a policy says of given samples, and the gradients that reach it."""

    def __init__(self, policy: Any, log_ratios: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(policy, log_ratios, monkeypatch)
        self._log_prob = policy.log_prob
        monkeypatch.setattr(policy, "log_prob", self.log_prob)

    def log_prob(self, data: Data, draws: Draws) -> LogProb:
        found: LogProb = self._log_prob(data, draws)
        places = torch.tensor([int(name) for name in data.prompt_ids])
        wanted = self.log_ratios[places]
        values = said(found.values, torch.zeros_like(wanted) if self._others else wanted)
        if values.requires_grad:
            self.passes += 1
            values.register_hook(partial(record, self.gradients, (places,)))
        return replace(found, values=values, slopes=None)


def numbered(policy: Any) -> Data:
    """Given samples, each with its number as the prompt's id."""
    own = policy.given(policy.sample(["a red house"] * NUMBER, seeds=range(NUMBER)))
    return replace(own, prompt_ids=[str(place) for place in range(NUMBER)])


def learned_directly(
    kind: str, models: Any, config: AnyDirectConfig, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], Tensor, int]:
    """Metrics and gradients of two iterations; the second starts from what the first has learned
    of ties and baselines."""
    policy = KINDS[kind](models)
    data = numbered(policy)
    average = config.averages(default=False)
    counts = policy.elements(data) if average else torch.ones(NUMBER)
    scripted = GivenScript(policy, script(NUMBER) * counts, monkeypatch)
    batch = replace(ranked(ALL_RANKS, all_bad=[3]), data=data)
    algorithm = Direct(config)
    for _ in range(2):
        losses(algorithm, policy, batch)
    unit = 1 if average else policy.log_prob(data, policy.draw(data, seeds=range(15))).num_elements
    metrics = dict(algorithm.metrics())
    if average:  # these are of whole samples
        metrics = {name: metrics[name] for name in metrics if not name.endswith("_log_ratio")}
    return metrics, scripted.gradients * counts * unit, scripted.passes


def test_the_table_of_direct_methods_leaves_out_none():
    tried = {type(config) for config in DIRECT.values()}
    missing = {kind.__name__ for kind in get_args(AnyDirectConfig)} - {t.__name__ for t in tried}
    assert not missing, f"add rows to DIRECT: {missing}"


@pytest.mark.parametrize("name", DIRECT)
def test_a_direct_method_learns_the_same_of_images_as_of_texts(models, name, monkeypatch):
    (first, image, one), (second, text, other) = (
        learned_directly(kind, models, DIRECT[name], monkeypatch) for kind in MODALITIES
    )
    assert one != other  # they do not go through the network in the same passes
    assert first["preference_loss"] > 0
    assert first == pytest.approx(second, rel=1e-5)
    assert image.count_nonzero() >= 8
    assert_close(image, text, rtol=1e-5, atol=1e-6)


# --- supervised fine-tuning

SUPERVISED: Mapping[str, Weighting] = {
    "best": BestConfig(),
    "two best": BestConfig(keep=2),
    "equal": EqualConfig(),
    "given": EqualConfig(),
}


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_learning_is_the_same_of_images_as_of_texts(models, name, monkeypatch):
    """Its loss is by element, and texts have each their own number of these."""
    found = {}
    for kind in MODALITIES:
        policy = KINDS[kind](models)
        data = numbered(policy)
        scripted = GivenScript(policy, script(NUMBER), monkeypatch)
        ranking = replace(ranked(ALL_RANKS, all_bad=[3]), data=data)
        batch = Demonstrations(batch=[data]) if name == "given" else ranking
        algorithm = Supervised(SupervisedConfig(weighting=SUPERVISED[name], draws=2))
        losses(algorithm, policy, batch)
        counted, weights = algorithm.weighted(policy, batch, Alone())
        unit = (weights * policy.elements(counted)).sum().item()
        metrics = algorithm.metrics()
        found[kind] = metrics["loss"] * unit, metrics["samples_used"], scripted.gradients * unit
    (loss, used, image), (other, as_many, text) = (found[kind] for kind in MODALITIES)
    assert loss == pytest.approx(other, rel=1e-5)
    assert used == as_many
    assert image.count_nonzero() == used
    assert_close(image, text, rtol=1e-5, atol=1e-6)


# --- policy gradients


class StepScript(Script):
    """What a policy and its reference say of its steps, and the gradients that reach it."""

    def __init__(self, policy: Any, log_ratios: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(policy, log_ratios, monkeypatch)
        self._step_distributions = policy.step_distributions
        monkeypatch.setattr(policy, "step_distributions", self.step_distributions)

    def step_distributions(self, trajectory: Trajectory, steps: Steps) -> Any:
        found = self._step_distributions(trajectory, steps)
        rows = torch.tensor([int(name) for name in trajectory.seeds])
        own, every = found.log_prob, torch.arange(STEPS)[steps]
        # The reference says otherwise of each step than the policy, which sampled at 0.
        wanted = self.log_ratios.flip(0) if self._others else self.log_ratios

        def log_prob(actions: Tensor) -> Tensor:
            place = (rows[:, None], every[None, :])
            values = said(own(actions), wanted[place])
            if values.requires_grad:
                self.passes += 1
                values.register_hook(partial(record, self.gradients, place))
            return values

        found.log_prob = log_prob
        return found


CENTRED = {"kind": "group", "normalise": "none"}
"""Of two samples the better one's advantage is always 1, where they are divided by their spread."""

STEPWISE: Mapping[str, dict[str, object]] = {
    "grpo": {},
    "grpo, ranks": {},
    "grpo, some steps credited": {"credited_steps": 2, "kl": {"kind": "fixed", "coefficient": 0.1}},
    "grpo, not divided": {"baseline": CENTRED},
    "grpo, kl in the reward": {
        "baseline": CENTRED,
        "kl": {"kind": "fixed", "coefficient": 0.1, "place": "reward"},
    },
    "ppo, running": {"kl": {"kind": "fixed", "coefficient": 0.1}},
    "ppo, critic": {
        "baseline": {"kind": "critic", "learning_rate": 0.1, "batch_size": 3},
        "kl": {"kind": "fixed", "coefficient": 0.1, "place": "reward"},
    },
}


class Table(nn.Module):
    """A critic with a number for each step of each sample, to which features give its row."""

    reading = "rows"

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(script(4, STEPS).flip(1))

    def forward(self, features: Mapping[str, Tensor], *, steps: int) -> Tensor:
        return self.values[features["row"].squeeze(1), :steps]


def with_rows(trajectory: Trajectory, steps: Steps) -> dict[str, Tensor]:
    """Features of either policy for that critic."""
    return {"row": torch.tensor([[int(name)] for name in trajectory.seeds])}


def learned_by_steps(
    kind: str, models: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, float], Tensor, int]:
    policy = KINDS[kind](models, batch_size=4)
    sampled = policy.sample(GROUPS, seeds=range(4))
    scripted = StepScript(policy, script(4, STEPS), monkeypatch)
    mask = torch.ones(4, STEPS, dtype=torch.bool)
    mask[0, 2:] = mask[:, -1] = False
    trajectory = replace(sampled, log_probs=torch.zeros(4, STEPS), mask=mask & sampled.mask.any())
    rollout = Rollout(batch=[trajectory], rewards=torch.tensor([0.1, 0.9, 0.7, -0.4]))
    if name == "ppo, critic":
        monkeypatch.setattr(policy, "features", with_rows)
    row = {"ppo, running": name, "ppo, critic": "ppo", "grpo, ranks": name}.get(name, "grpo")
    config = algorithm_config(row, minibatches=1, clip_nats=0.3, **STEPWISE[name])
    critic = Table()
    algorithm = build_algorithm(config, seed=0, critic=critic)
    losses(algorithm, policy, rollout)
    unit = sampled.replay["latents"][0, 0].numel() if "latents" in sampled.replay else 1
    found = {key: value for key, value in algorithm.metrics().items() if "entropy" not in key}
    if name == "ppo, critic":
        assert not torch.equal(critic.values, Table().values)
        found |= {
            f"value {place}": each.item() for place, each in enumerate(critic.values.flatten())
        }
    return found, scripted.gradients * unit, scripted.passes


@pytest.mark.parametrize("name", STEPWISE)
def test_a_clipped_policy_gradient_learns_the_same_of_images_as_of_texts(models, name, monkeypatch):
    (first, image, one), (second, text, other) = (
        learned_by_steps(kind, models, name, monkeypatch) for kind in MODALITIES
    )
    assert one > other == 1  # one step in a pass, or a whole text
    assert 0 < first["clip_fraction"] < 1
    assert first["kl"] == 0
    assert first == pytest.approx(second, rel=1e-5, abs=1e-7)
    assert image.count_nonzero() > 3
    assert_close(image, text, rtol=1e-5, atol=1e-6)


def test_a_price_of_the_kl_in_the_reward_and_a_critic_change_what_is_learned(models, monkeypatch):
    """So the rows above are of different things."""
    names = ("grpo, not divided", "grpo, kl in the reward", "ppo, critic")
    found = [learned_by_steps("language", models, name, monkeypatch)[1] for name in names]
    assert not any(torch.allclose(one, other) for one, other in combinations(found, 2))


def test_examples_whose_likelihood_is_kept_pull_the_same_at_images_as_at_texts(models, monkeypatch):
    """Their loss is by element, as in supervised learning."""
    found = {}
    for kind in MODALITIES:
        policy = KINDS[kind](models, batch_size=4)
        sampled = policy.sample(GROUPS, seeds=range(4))
        data = numbered(policy).select(range(3))
        scripted = GivenScript(policy, script(NUMBER), monkeypatch)
        rollout = Rollout(
            batch=[sampled],
            rewards=torch.tensor([0.1, 0.9, 0.7, -0.4]),
            examples=data,
        )
        algorithm = build_algorithm(algorithm_config("grpo", minibatches=1, ptx=0.5), seed=0)
        losses(algorithm, policy, rollout)
        unit = policy.elements(data).sum().item()
        found[kind] = scripted.gradients * unit, algorithm.metrics()["ptx_loss"] * unit
    (image, one), (text, other) = (found[kind] for kind in MODALITIES)
    assert one == pytest.approx(other, rel=1e-5)
    assert_close(image[:3], torch.full((3,), -0.5), rtol=1e-5, atol=1e-6)
    assert_close(image, text, rtol=1e-5, atol=1e-6)
