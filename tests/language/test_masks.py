"""Claims: nothing that a text is not made of changes its log-probabilities, losses or gradients.

Not the padding of its prompt, nor the other texts of its batch and their order, nor the tokens
after its end, nor the longest text that there could be. Each is asked of several classes of models,
after they have learned something; only rounding of float32 may differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from policies import language, move_weights
from ranked_batches import CONFIGS
from tiny_language import LETTERS
from torch import Tensor
from torch.distributions import kl_divergence
from torch.testing import assert_close

from imgalign.algorithms.batches import MicroBatch, masked
from imgalign.algorithms.direct import Direct
from imgalign.algorithms.rankings import RankedBatch
from imgalign.algorithms.surrogate import policy_gradient_loss
from imgalign.language.policy import LanguagePolicy
from imgalign.policy import Data, Trajectory, concatenate, join_data
from imgalign.runs.world import Alone

PROMPTS = ["a boat", "the green tree and a boat", "a red house", "so"]
GUEST = "two blue boat and a tree and the green house and a boat"
STEPS, LONGER = 6, 9
LENGTHS = [1, 3, STEPS, STEPS]
CLIP_NATS = 0.05

Parts = Sequence[tuple[Trajectory, Sequence[int]]]
"""Trajectories that are scored one after the other, and for each row its place in the original
batch; -1 for a row that is only there to disturb."""


@pytest.fixture(params=["llama", "qwen2", "qwen3", "gpt2"])
def folder(request, talkers):
    return talkers[request.param]


def learned(folder: Any, **settings: Any) -> LanguagePolicy:
    policy = language(folder, **{"max_new_tokens": STEPS, "batch_size": 8, **settings})
    move_weights(policy)
    return policy


@pytest.fixture
def policy(folder) -> LanguagePolicy:
    return learned(folder)


@pytest.fixture
def trajectory(policy) -> Trajectory:
    """Texts of several lengths, the last of which does not end, and what they scored before."""
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(len(LETTERS), (4, STEPS), generator=generator)
    mask = torch.arange(STEPS) < torch.tensor(LENGTHS)[:, None]
    tokens = torch.where(mask, letters, policy.network.fill)
    for row in range(3):
        tokens[row, LENGTHS[row] - 1] = policy.tokenizer.eos_token_id
    unscored = Trajectory(
        prompts=PROMPTS,
        prompt_ids=PROMPTS,
        seeds=[0, 1, 2, 3],
        log_probs=torch.zeros(4, STEPS),
        mask=mask,
        replay={"tokens": tokens},
    )
    with torch.no_grad():
        steps = policy.step_distributions(unscored, slice(None))
        log_probs = steps.log_prob(policy.actions(unscored, slice(None)))
    # As if the weights had moved since: a ratio of 1 everywhere would hide the clip.
    noise = torch.rand(log_probs.shape, generator=generator) - 0.5
    return replace(unscored, log_probs=masked(log_probs + 0.2 * noise, mask))


def measured(policy: LanguagePolicy, parts: Parts) -> dict[str, Tensor]:
    """What algorithms get to know of each text, their losses, and gradients of all weights."""
    number = sum(place >= 0 for _, places in parts for place in places)
    found: dict[str, list[Any]] = {}
    policy_gradient: Any = 0.0
    for trajectory, places in parts:
        steps = trajectory.mask.any(dim=0).nonzero().squeeze(1)
        with torch.no_grad(), policy.using("reference"):
            reference = policy.step_distributions(trajectory, steps)
        current = policy.step_distributions(trajectory, steps)
        log_prob = current.log_prob(policy.actions(trajectory, steps))
        data = policy.given(trajectory)
        whole = policy.log_prob(data, policy.draw(data, seeds=trajectory.seeds))
        features = policy.features(trajectory, steps)
        for row, place in enumerate(places):
            if place >= 0:
                there = trajectory.mask[row, steps]
                for name, values in (
                    ("log_prob", log_prob[row][there]),
                    ("kl", kl_divergence(current, reference)[row][there]),
                    ("entropy", current.entropy()[row][there]),
                    ("whole", whole.values[row, None]),
                    ("elements", policy.elements(data)[row, None]),
                    ("prompt", features["prompt"][row]),
                    ("read", features["input_ids"][row][features["attention_mask"][row]]),
                ):
                    found.setdefault(name, [None] * number)[place] = values.detach()
        kept = torch.tensor([place >= 0 for place in places])
        micro = MicroBatch(
            trajectory=trajectory,
            steps=steps,
            advantages=torch.tensor([[0.5], [-2.0], [1.0], [-1.0], [9.0]])[list(places)].expand(
                -1, len(steps)
            ),
            mask=trajectory.mask[:, steps] & kept[:, None],
            weights=torch.ones(len(steps)),
            total_weight=10.0,
            epoch=0,
        )
        loss, _ = policy_gradient_loss(policy, micro, clip=lambda _: CLIP_NATS, kl_coefficient=0.3)
        policy_gradient = policy_gradient + loss
    return {
        **{name: torch.cat(values) for name, values in found.items()},
        "policy gradient": policy_gradient.detach(),
        "its gradient": flat(torch.autograd.grad(policy_gradient, policy.trainable_parameters())),
        **preferences(policy, parts, number),
    }


def preferences(policy: LanguagePolicy, parts: Parts, number: int) -> dict[str, Tensor]:
    """Gradients of DPO and KTO on a ranking of the texts, those of a sum over their tokens."""
    data = join_data([policy.given(trajectory) for trajectory, _ in parts])
    places = [place for _, part in parts for place in part]
    index = torch.tensor([[places.index(place) for place in range(number)]])
    batch = RankedBatch(
        data=data,
        index=index,
        ranks=torch.tensor([[1, 0, 2, 1]])[:, :number],
        all_bad=torch.tensor([False]),
        all_good=torch.tensor([False]),
        weights=torch.ones(1),
    )
    found = {}
    for name in ("ranking", "kto"):
        generator, algorithm = torch.Generator().manual_seed(0), Direct(CONFIGS[name])
        for parameter in policy.trainable_parameters():
            parameter.grad = None
        for loss in algorithm.losses(policy, batch, world=Alone(), generator=generator):
            assert loss.value is not None
            torch.autograd.backward(loss.value)
        gradients = [parameter.grad for parameter in policy.trainable_parameters()]
        # It is divided by the elements of the longest text that there could be.
        found[name] = flat(gradients) * policy.config.max_new_tokens
    return found


def flat(tensors: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([each.flatten() for each in tensors if each is not None])


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        size = values.abs().max().item()
        assert size > 0, name
        atol = 1e-5 * max(1.0, size) if name not in GRADIENTS else 1e-4 * size
        assert_close({name: found[name]}, {name: values}, rtol=1e-4, atol=atol)


GRADIENTS = ("its gradient", "ranking", "kto")


@pytest.fixture
def expected(policy, trajectory) -> dict[str, Tensor]:
    return measured(policy, [(trajectory, range(4))])


def test_a_text_alone_is_what_it_is_in_a_batch(policy, trajectory, expected):
    parts = [(trajectory.select([place]), [place]) for place in range(4)]
    alone = measured(policy, parts)
    assert_same(alone, expected)


def test_other_texts_with_longer_prompts_change_nothing(policy, trajectory, expected):
    guest = policy.sample([GUEST], seeds=[0])
    assert_same(measured(policy, [(concatenate([guest, trajectory]), [-1, 0, 1, 2, 3])]), expected)


def test_the_order_of_the_texts_changes_nothing(policy, trajectory, expected):
    order = [2, 0, 3, 1]
    assert_same(measured(policy, [(trajectory.select(order), order)]), expected)


def test_tokens_after_the_end_change_nothing(policy, trajectory, expected):
    generator = torch.Generator().manual_seed(0)
    tokens, mask = trajectory.replay["tokens"], trajectory.mask
    others = torch.randint(len(policy.tokenizer), tokens.shape, generator=generator)
    changed = torch.where(mask, tokens, others)
    assert not torch.equal(changed, tokens)
    disturbed = replace(trajectory, replay={"tokens": changed})
    assert_same(measured(policy, [(disturbed, range(4))]), expected)
    assert policy.decode(disturbed) == policy.decode(trajectory)


def test_the_token_of_the_padding_changes_nothing(policy, trajectory, expected):
    for fill in (0, len(policy.tokenizer) - 1):
        policy.network = replace(policy.network, fill=fill)
        assert_same(measured(policy, [(trajectory, range(4))]), expected)


def test_room_for_longer_texts_changes_nothing(folder, trajectory, expected):
    wide = learned(folder, max_new_tokens=LONGER)

    def widened(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(4, LONGER - STEPS)], dim=1)

    longer = replace(
        trajectory,
        log_probs=widened(trajectory.log_probs),
        mask=widened(trajectory.mask),
        replay={"tokens": widened(trajectory.replay["tokens"])},
    )
    assert_same(measured(wide, [(longer, range(4))]), expected)


def test_attention_by_matrix_products_gives_the_same(folder, trajectory, expected):
    policy = learned(folder, attention="eager")
    assert policy.network.model.config._attn_implementation == "eager"
    assert_same(measured(policy, [(trajectory, range(4))]), expected)


def test_activations_computed_twice_give_the_same(folder, trajectory, expected):
    plain, twice = learned(folder), learned(folder, gradient_checkpointing=True)
    calls = [count_layers(policy, trajectory) for policy in (plain, twice)]
    assert calls[1] == 2 * calls[0] > 0
    assert_same(measured(twice, [(trajectory, range(4))]), expected)


def count_layers(policy: LanguagePolicy, trajectory: Trajectory) -> int:
    """How often the feed-forward part of any layer is computed for the gradients of a text."""
    calls: list[Any] = []
    parts = [each for name, each in policy.network.model.named_modules() if name.endswith("mlp")]
    hooks = [each.register_forward_pre_hook(lambda *_: calls.append(1)) for each in parts]
    data = policy.given(trajectory)
    scored = policy.log_prob(data, policy.draw(data, seeds=trajectory.seeds))
    scored.values.sum().backward()
    for hook in hooks:
        hook.remove()
    return len(calls)


def test_given_texts_are_scored_as_they_are_whatever_they_are_given_with(policy):
    texts = ["a tre", "", "so", "el"]
    data = policy.encode(PROMPTS, texts)

    def scored(given: Data) -> Tensor:
        values: Tensor = policy.log_prob(given, policy.draw(given, seeds=range(len(given)))).values
        return values.detach()

    together = scored(data)
    for place in range(4):
        assert_close(scored(data.select([place])), together[[place]], rtol=1e-5, atol=1e-5)
    order = [3, 1, 0, 2]
    assert_close(scored(data.select(order)), together[order], rtol=1e-5, atol=1e-5)
    assert torch.equal(policy.elements(data), torch.tensor([6.0, 1.0, 3.0, 3.0]))
