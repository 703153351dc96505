"""The critic of a reward of texts: which token a value is read at, by brute force over prefixes."""

import pytest
import torch
from tiny_language import KINDS, TEMPLATE, build_tokenizer, write_language_model
from torch.testing import assert_close

from imgalign.language.chat import padded, prompt_tokens, reading, response_tokens
from imgalign.language.loading import load_language_model
from imgalign.policy import Critic, CriticSource
from reward_models.contract import Scale
from reward_models.text import TextReward
from reward_models.text_models import ScalarModel, scalar_model

PROMPTS = ["a cat", "x", "a long prompt about dogs"]
RESPONSES = ["a red cat", "blue dogs, and more of them", ""]
SCALE = Scale(mean=0.5, std=2.0)


@pytest.fixture(scope="module", params=[0.3, None], ids=["likelihood", "head alone"])
def weight(request) -> float | None:
    """Of the log-likelihood."""
    return request.param


@pytest.fixture(scope="module", params=KINDS)
def reward(request, weight, tmp_path_factory) -> TextReward:
    tokenizer = build_tokenizer(begin=True, template=TEMPLATE)
    folder = write_language_model(tmp_path_factory.mktemp("model"), request.param, tokenizer)
    found = load_language_model(str(folder), device=torch.device("cpu"))
    model = scalar_model(found.model, likelihood=weight is not None)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        if model.likelihood is not None:
            model.likelihood.fill_(weight)
    reward = TextReward(model, found.tokenizer, context_length=found.context_length, scale=SCALE)
    return reward.requires_grad_(False)


@pytest.fixture(scope="module")
def rows(reward) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of the prompts, and of the responses with their end."""
    tokenizer = reward.tokenizer
    return prompt_tokens(tokenizer, PROMPTS), response_tokens(tokenizer, RESPONSES)


def features_of(rows, *, fill: int = 0) -> dict[str, torch.Tensor]:
    """As a policy lays them out: prompts end in one column, responses begin in the next."""
    prompts = padded(rows[0], side="left", fill=fill)
    responses = padded(rows[1], side="right", fill=fill)
    masks = [prompts.attention_mask, responses.attention_mask]
    return {
        "input_ids": torch.cat([prompts.input_ids, responses.input_ids], dim=1),
        "attention_mask": torch.cat(masks, dim=1),
        "first_state": torch.tensor(prompts.input_ids.shape[1] - 1),
    }


def longest(rows) -> int:
    """Steps of the longest response."""
    return max(map(len, rows[1]))


@torch.no_grad()
def value(model: ScalarModel, prompt: list[int], response: list[int]) -> float:
    """What stands at the last token of both, read alone, by the body of transformers."""
    ids = [*prompt, *response]
    states = model.body(input_ids=torch.tensor([ids])).last_hidden_state[0]
    found = (states[-1] * model.head.weight[0]).sum()
    if model.likelihood is not None:
        chances = model.logits(states).log_softmax(dim=1)
        for place in range(len(prompt), len(ids)):
            found = found + model.likelihood * chances[place - 1, ids[place]]
    return (found.item() - SCALE.mean) / SCALE.std


def test_the_value_of_a_step_is_that_of_the_prompt_and_the_tokens_before_it(reward, rows):
    critic = reward.critic()
    values = critic(features_of(rows), steps=longest(rows))
    assert values.shape == (len(PROMPTS), longest(rows))
    for number, (prompt, response) in enumerate(zip(*rows, strict=True)):
        expected = [value(critic.model, prompt, response[:step]) for step in range(len(response))]
        assert_close(values[number, : len(response)], torch.tensor(expected))


def test_what_comes_at_and_after_a_step_cannot_change_its_value(reward, rows):
    critic, features = reward.critic(), features_of(rows)
    before = critic(features, steps=longest(rows))
    first = int(features["first_state"])
    step = 3
    changed = features["input_ids"].clone()
    changed[:, first + 1 + step :] = 7
    after = critic(features | {"input_ids": changed}, steps=longest(rows))
    assert_close(after[:, : step + 1], before[:, : step + 1])
    assert not torch.allclose(after[0, step + 1], before[0, step + 1])


def test_of_some_steps_only_what_they_need_is_read(reward, rows, monkeypatch):
    critic, features = reward.critic(), features_of(rows)
    whole = critic(features, steps=longest(rows))
    read, forward = [], critic.model.forward
    monkeypatch.setattr(
        critic.model,
        "forward",
        lambda ids, *rest: (read.append(ids.shape[1]), forward(ids, *rest))[1],
    )
    assert_close(critic(features, steps=2), whole[:, :2])
    # The prompt, and the token of step 0; that of step 1 comes after its state.
    assert read == [int(features["first_state"]) + 2]


def test_what_stands_in_padding_changes_no_value(reward, rows):
    values = [reward.critic()(features_of(rows, fill=fill), steps=longest(rows)) for fill in (0, 9)]
    there = padded(rows[1], side="right", fill=0).attention_mask
    assert_close(values[0][there], values[1][there])


def test_the_score_of_a_text_is_the_value_that_would_follow_its_end(reward, rows):
    """So critic and reward are one function, in one unit; the score itself is no step's value."""
    prompt, response = rows[0][:1], rows[1][:1]
    longer = features_of((prompt, [[*response[0], 0]]))
    last = reward.critic()(longer, steps=len(response[0]) + 1)[0, -1]
    assert_close(last[None], reward.score(prompts=PROMPTS[:1], samples=RESPONSES[:1]))


def test_a_critic_is_trained_without_changing_the_reward(reward, rows):
    before = reward.score(prompts=PROMPTS, samples=RESPONSES)
    critic = reward.critic()
    critic(features_of(rows), steps=longest(rows)).square().mean().backward()
    assert all(each.grad is not None for each in critic.parameters())
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.1)
    assert torch.equal(reward.score(prompts=PROMPTS, samples=RESPONSES), before)
    assert not any(parameter.requires_grad for parameter in reward.parameters())


def test_a_critic_names_the_tokenizer_that_it_reads(reward):
    critic = reward.critic()
    assert critic.reading == reading(reward.tokenizer)
    assert isinstance(critic, Critic)
    assert isinstance(reward, CriticSource)
