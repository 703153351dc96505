"""A language model as a reward of texts: what it reads, and what all its weights learn."""

import pytest
import torch
from text_rewards import CPU, PROMPTS, TEXTS, WEIGHT, make_reward
from tiny_language import CONTEXT, END, KINDS, build_tokenizer, write_language_model
from torch.testing import assert_close
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaForCausalLM,
)

from imgalign.errors import InputError
from imgalign.language.chat import AnsweredTokens, padded_answers
from imgalign.language.loading import load_language_model
from imgalign.policy import RewardModel
from reward_models.text import TextReward, utilities
from reward_models.text_models import scalar_model


@pytest.fixture(scope="module", params=KINDS)
def reward(request, likelihood, tmp_path_factory) -> TextReward:
    folder = tmp_path_factory.mktemp("model")
    return make_reward(folder, request.param, likelihood=likelihood)


def test_the_score_is_read_at_the_end_token_after_the_response(reward):
    """By hand: the bytes of prompt and response, the end token, the body of transformers."""
    ids = reward.tokenizer("a cata red one")["input_ids"] + [reward.tokenizer.eos_token_id]
    with torch.no_grad():
        hidden = reward.model.body(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    utility = (hidden * reward.model.head.weight[0]).sum()
    if reward.model.likelihood is not None:
        utility = utility + WEIGHT * said(reward, ids, first=len("a cat"))
    score = reward.score(prompts=["a cat"], samples=["a red one"])
    assert isinstance(reward, RewardModel)
    assert_close(score, ((utility - 0.5) / 2.0)[None])


def said(reward: TextReward, ids: list[int], *, first: int) -> float:
    """Log-likelihood of the tokens from `first` on, by the network of transformers alone."""
    states = reward.model.body(input_ids=torch.tensor([ids])).last_hidden_state[0]
    chances = reward.model.logits(states).log_softmax(dim=1)
    return sum(chances[place - 1, ids[place]].item() for place in range(first, len(ids)))


def test_a_score_does_not_depend_on_the_other_texts_or_their_order(reward):
    together = reward.score(prompts=PROMPTS, samples=TEXTS)
    assert together.shape == (4,)
    assert len(set(together.tolist())) == 4
    for place, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        assert_close(reward.score(prompts=[prompt], samples=[text]), together[[place]])
    order = [2, 0, 3, 1]
    again = reward.score(prompts=[PROMPTS[i] for i in order], samples=[TEXTS[i] for i in order])
    assert_close(again, together[order])


def test_more_texts_than_fit_one_pass_score_as_in_several(reward, monkeypatch):
    together = reward.score(prompts=PROMPTS, samples=TEXTS)
    monkeypatch.setattr("reward_models.text.TEXTS_AT_ONCE", 3)
    assert_close(reward.score(prompts=PROMPTS, samples=TEXTS), together)


@pytest.mark.parametrize("fill", [0, "end"])
def test_padding_on_either_side_and_of_any_token_changes_nothing(reward, fill):
    end = reward.tokenizer.eos_token_id
    rows = reward.rows(PROMPTS, TEXTS)
    number = end if fill == "end" else fill
    sides = [padded_answers(rows, side=side, fill=number) for side in ("left", "right")]
    wide = [[*[number] * 3, *row, *[number] * 2] for row in sides[0].input_ids.tolist()]
    mask, responses = (
        torch.nn.functional.pad(each, (3, 2))
        for each in (sides[0].attention_mask, sides[0].responses)
    )
    both = AnsweredTokens(input_ids=torch.tensor(wide), attention_mask=mask, responses=responses)
    expected = [utilities(reward.model, reward.padded([row])) for row in rows]
    for tokens in (*sides, both):
        assert_close(utilities(reward.model, tokens), torch.cat(expected))


def test_an_end_token_inside_a_prompt_is_not_taken_for_the_last_token(reward):
    """Without a template a prompt stands as it is, control tokens included."""
    tokens = reward.padded(reward.rows([f"a{END}b"], ["c"]))
    ids = tokens.input_ids[0].tolist()
    assert ids.count(reward.tokenizer.eos_token_id) == 2
    alone = reward.model(tokens.input_ids, tokens.attention_mask, tokens.responses)
    assert_close(utilities(reward.model, tokens), alone[:, len(ids) - 1])


@pytest.mark.parametrize("options", [{"begin": True}, {"pad": "own"}, {"pad": "end"}])
def test_a_begin_token_or_another_padding_token_changes_no_reading(tmp_path, options):
    plain = make_reward(tmp_path / "a")
    other = make_reward(tmp_path / "b", "llama", build_tokenizer(**options))
    rows = other.rows(PROMPTS, TEXTS)
    first = [[other.tokenizer.bos_token_id]] if options.get("begin") else [[]]
    assert rows == [([*first[0], *p], r) for p, r in plain.rows(PROMPTS, TEXTS)]
    if "pad" in options:
        expected = plain.score(prompts=PROMPTS, samples=TEXTS)
        assert_close(other.score(prompts=PROMPTS, samples=TEXTS), expected)


def test_a_model_without_position_ids_is_a_reward_too(tmp_path):
    tokenizer = build_tokenizer(context_length=CONTEXT)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load_language_model(str(tmp_path), device=CPU)
    model = scalar_model(found.model, likelihood=True)
    torch.nn.init.ones_(model.head.weight)
    reward = TextReward(model, found.tokenizer, context_length=CONTEXT).requires_grad_(False)
    rows = reward.rows(PROMPTS, TEXTS)
    left = utilities(model, padded_answers(rows, side="left", fill=0))
    assert_close(left, reward.score(prompts=PROMPTS, samples=TEXTS))


def test_scoring_draws_nothing_and_has_no_dropout_even_in_training_mode(reward):
    before = torch.get_rng_state()
    first = reward.train().score(prompts=PROMPTS, samples=TEXTS)
    assert torch.equal(reward.score(prompts=PROMPTS, samples=TEXTS), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_scores_do_not_change_under_autocast(reward):
    expected = reward.score(prompts=PROMPTS, samples=TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reward.score(prompts=PROMPTS, samples=TEXTS), expected)


@pytest.mark.parametrize(
    ("prompts", "samples", "message"),
    [
        (
            ["a cat"],
            ["x" * CONTEXT],
            "prompt 'a cat': its 5 tokens and 65 of the response are",
        ),
        (
            ["x", "y" * 63],
            ["a", "b"],
            f"prompt {'y' * 40!r}: its 63 tokens and 2 of the response",
        ),
        (["x", " "], ["a", "b"], "prompt ' ': expected text, got none"),
        (["x"], ["a", "b"], "expected a prompt for each response, got 1 prompts and 2"),
        (["x"], [], "expected a list of texts, got []"),
    ],
)
def test_what_cannot_be_scored_whole_is_refused(reward, prompts, samples, message):
    with pytest.raises(InputError) as error:
        reward.score(prompts=prompts, samples=samples)
    assert message in str(error.value)


def test_a_new_head_and_weight_are_zero_so_that_all_texts_are_equal(tmp_path, likelihood):
    found = load_language_model(str(write_language_model(tmp_path)), device=CPU)
    model = scalar_model(found.model, likelihood=likelihood)
    reward = TextReward(model, found.tokenizer, context_length=found.context_length)
    assert torch.equal(reward.score(prompts=PROMPTS, samples=TEXTS), torch.zeros(4))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("at_once", [1, 10**9])
def test_all_weights_learn_from_the_likelihood_however_many_logits_fit(
    tmp_path, monkeypatch, tied, at_once
):
    """Gradients of the whole network by the logits of transformers' own model."""
    monkeypatch.setattr("reward_models.text_models.LOGITS_AT_ONCE", at_once)
    reward = make_reward(tmp_path, "llama", tied=tied)
    reward.model.requires_grad_(True)
    rows = reward.rows(PROMPTS, TEXTS)
    tokens = reward.padded(rows)
    utilities(reward.model, tokens).sum().backward()
    found = {name: each.grad for name, each in reward.model.named_parameters()}

    whole = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    weight = torch.tensor(WEIGHT, requires_grad=True)
    head = reward.model.head.weight.detach().clone().requires_grad_(True)
    total = torch.zeros(())
    for prompt, response in rows:
        ids = torch.tensor([[*prompt, *response]])
        output = whole(input_ids=ids, output_hidden_states=True)
        chances = output.logits[0].log_softmax(dim=1)
        places = torch.arange(len(prompt), ids.shape[1])
        total = total + (output.hidden_states[-1][0, -1] * head[0]).sum()
        total = total + weight * chances[places - 1, ids[0, places]].sum()
    total.backward()
    expected = {"head.weight": head.grad, "likelihood": weight.grad}
    for name, each in whole.named_parameters():
        own = name.replace("model.", "body.", 1).replace("lm_head", "language_head")
        expected[own] = each.grad
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        assert each is not None
        assert_close(found[name], each, atol=1e-5, rtol=1e-4)
