"""A language model as a reward of texts: what it reads, saves and refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_language import CONTEXT, END, KINDS, TEMPLATE, build_tokenizer, write_language_model
from torch.testing import assert_close
from transformers import (
    AutoModel,
    BloomConfig,
    BloomForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

import reward_models
from imgalign.errors import CheckpointError, InputError
from imgalign.language.chat import AnsweredTokens, padded_answers
from imgalign.language.loading import load_language_model
from imgalign.policy import RewardModel
from reward_models.clip import ClipReward
from reward_models.contract import Scale
from reward_models.text import TextReward, utilities
from reward_models.text_models import scalar_model

CPU = torch.device("cpu")
WEIGHT = 0.3
"""Of the log-likelihood."""
PROMPTS = ["a cat", "a long prompt about dogs", "x", "a cat"]
TEXTS = ["a red cat in the snow", "dogs", "", "a cat"]


def make_reward(
    folder: Path, kind="llama", tokenizer=None, *, likelihood=True, **options
) -> TextReward:
    """A reward with a random head, its scale far from 0 and 1."""
    write_language_model(folder, kind, tokenizer or build_tokenizer(), **options)
    found = load_language_model(str(folder), device=CPU)
    model = scalar_model(found.model, likelihood=likelihood)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.head.weight.normal_(generator=generator)
        if model.likelihood is not None:
            model.likelihood.fill_(WEIGHT)
    reward = TextReward(
        model,
        found.tokenizer,
        context_length=found.context_length,
        scale=Scale(mean=0.5, std=2.0, log_odds=0.7),
        log_tie=(-1.0, -2.0),
    )
    return reward.requires_grad_(False)


@pytest.fixture(scope="module", params=[True, False], ids=["likelihood", "head alone"])
def likelihood(request) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module", params=KINDS)
def reward(request, likelihood, tmp_path_factory) -> TextReward:
    folder = tmp_path_factory.mktemp("model")
    return make_reward(folder, request.param, likelihood=likelihood)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A saved reward; copy it before changing it."""
    folder = tmp_path_factory.mktemp("saved") / "reward"
    tokenizer = build_tokenizer(begin=True, template=TEMPLATE)
    made = make_reward(folder.parent / "model", "qwen2", tokenizer, tied=True)
    made.save(folder, golden=[("a cat", "a red cat"), ("a dog", "")])
    return folder


@pytest.fixture
def saved(kept, tmp_path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "reward"))


def change(folder: Path, **fields: object) -> None:
    path = folder / "contract.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        TextReward.from_pretrained(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


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


# --- the folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_reward_scores_the_same_after_loading(tmp_path, kind, tied, likelihood):
    tokenizer = build_tokenizer(begin=True, pad="end", template=TEMPLATE)
    made = make_reward(tmp_path / "model", kind, tokenizer, tied=tied, likelihood=likelihood)
    assert (made.model.language_head is not None) == (likelihood and not tied)
    made.save(tmp_path / "reward", golden=[("a cat", "a red cat")], metrics={"chance": 0.5})
    before = torch.get_rng_state()
    loaded = reward_models.load(tmp_path / "reward")
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(loaded, TextReward)
    expected = made.score(prompts=PROMPTS, samples=TEXTS)
    assert torch.equal(loaded.score(prompts=PROMPTS, samples=TEXTS), expected)
    assert (loaded.scale, loaded.log_tie) == (made.scale, made.log_tie)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    names = sorted(path.name for path in (tmp_path / "reward").iterdir())
    assert names == ["contract.json", "model.safetensors", "tokenizer"]


def test_a_golden_score_that_drifts_is_refused_with_both_numbers(saved):
    contract = json.loads((saved / "contract.json").read_text())
    golden = contract["golden"]
    before = golden[0]["score"]
    golden[0]["score"] = before + 0.01
    change(saved, golden=golden)
    message = refused(saved)
    assert "1 of 2 golden scores drifted, 'a red cat' scored" in message
    assert f"{before + 0.01:.4f} when fitted and {before:.4f} now" in message


def test_weights_or_a_tokenizer_that_changed_are_seen_by_their_hash_or_by_the_scores(saved):
    weights = load_file(saved / "model.safetensors")
    weights["model.head.weight"] *= 1.01
    save_file(weights, saved / "model.safetensors")
    assert "model.safetensors: its content is not what was saved" in refused(saved)
    change(saved, files=None)
    assert "golden scores drifted" in refused(saved)


def test_another_chat_template_is_seen_by_the_scores(saved):
    (saved / "tokenizer" / "chat_template.jinja").write_text(f"!{TEMPLATE}")
    assert "chat_template.jinja: its content is not what was saved" in refused(saved)
    change(saved, files=None)
    assert "golden scores drifted" in refused(saved)


def test_another_tokenizer_is_refused(saved):
    other = build_tokenizer()
    other.add_tokens(["cat"])
    other.save_pretrained(saved / "tokenizer")
    change(saved, files=None)
    assert "tokenizer: is another tokenizer than that of the fit" in refused(saved)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Model"}}, "no language model can be"),
        ({}, "no language model can be built from it"),
        ({"model_type": "clip"}, "of the kind 'clip', no causal language model"),
        ({"model_type": "llama", "hidden_size": 8192}, "bytes cannot hold; they come from diff"),
        ({"model_type": "llama", "hidden_size": -1}, "no language model can be built from it"),
        ({"model_type": "gpt2", "n_embd": 12, "n_layer": 1, "vocab_size": 9}, "tensors do not fit"),
    ],
)
def test_settings_that_are_not_those_of_the_weights_are_one_line(saved, backbone, message):
    change(saved, backbone=backbone)
    assert message in refused(saved)


def test_attention_is_never_what_a_contract_asks_for(saved):
    backbone = json.loads((saved / "contract.json").read_text())["backbone"]
    for place in ("attn_implementation", "_attn_implementation"):
        change(saved, backbone=backbone | {place: "kernels-community/flash-attn"})
        loaded = TextReward.from_pretrained(saved)
        assert loaded.model.body.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer/tokenizer.json"])
def test_a_folder_that_lacks_something_says_what(saved, missing):
    (saved / missing).unlink()
    assert f"{missing}: missing; copy the whole folder again" in refused(saved)


def test_a_contract_without_golden_texts_or_of_images_is_refused(saved):
    change(saved, golden=[])
    assert "golden:" in refused(saved)
    change(saved, kind="sounds")
    assert "kind: input should be 'texts'" in refused(saved)


def test_a_reward_of_images_is_not_one_of_texts_and_the_other_way_round(saved, fitted):
    with pytest.raises(CheckpointError, match="expected a reward of images, it is one of texts"):
        ClipReward.from_pretrained(saved)
    with pytest.raises(CheckpointError, match="expected a reward of texts, it is one of images"):
        TextReward.from_pretrained(fitted[0])


def test_an_image_contract_from_before_there_were_texts_still_loads(fitted, tmp_path):
    folder = Path(shutil.copytree(fitted[0], tmp_path / "reward"))
    contract = json.loads((folder / "contract.json").read_text())
    assert contract.pop("kind") == "images"
    (folder / "contract.json").write_text(json.dumps(contract))
    assert isinstance(reward_models.load(folder), ClipReward)


def test_the_body_of_a_saved_reward_is_that_of_transformers(saved):
    """Weights under `model.body.` load into the class that the settings name."""
    loaded = TextReward.from_pretrained(saved)
    theirs = AutoModel.from_config(loaded.model.body.config)
    weights = load_file(saved / "model.safetensors")
    own = {k.removeprefix("model.body."): v for k, v in weights.items() if "body" in k}
    theirs.load_state_dict(own)


def test_a_contract_of_an_older_version_has_a_head_alone(tmp_path):
    made = make_reward(tmp_path / "model", likelihood=False)
    made.save(tmp_path / "reward", golden=[("a cat", "a red cat")])
    path = tmp_path / "reward" / "contract.json"
    fields = json.loads(path.read_text())
    assert fields.pop("likelihood") is None
    path.write_text(json.dumps(fields))
    assert TextReward.from_pretrained(tmp_path / "reward").model.likelihood is None


def gptj_with_a_bias_beside_shared_weights(vocabulary: int) -> GPTJForCausalLM:
    config = GPTJConfig(
        vocab_size=vocabulary,
        n_embd=16,
        n_layer=1,
        n_head=2,
        rotary_dim=4,
        tie_word_embeddings=True,
    )
    return GPTJForCausalLM(config)


def opt_whose_states_are_made_narrower(vocabulary: int) -> OPTForCausalLM:
    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )
    return OPTForCausalLM(config)


@pytest.mark.parametrize(
    "build", [gptj_with_a_bias_beside_shared_weights, opt_whose_states_are_made_narrower]
)
def test_a_language_head_of_an_unusual_shape_is_saved_and_found_again(tmp_path, build, likelihood):
    tokenizer = build_tokenizer(context_length=CONTEXT)
    build(len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    saved_and_found_again(tmp_path, likelihood=likelihood)


def test_a_head_of_its_own_is_saved_also_where_the_settings_say_that_it_is_shared(tmp_path):
    folder = write_language_model(tmp_path / "model", "llama", build_tokenizer(), tied=False)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    reward = saved_and_found_again(tmp_path, likelihood=True)
    assert reward.model.with_likelihood == "own head"


def saved_and_found_again(folder: Path, *, likelihood: bool) -> TextReward:
    found = load_language_model(str(folder / "model"), device=CPU)
    model = scalar_model(found.model, likelihood=likelihood)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        if model.likelihood is not None:
            model.likelihood.fill_(WEIGHT)
    made = TextReward(model, found.tokenizer, context_length=found.context_length)
    made.requires_grad_(False).save(folder / "reward", golden=[("a cat", "a red cat")])
    loaded = TextReward.from_pretrained(folder / "reward")
    scores = [each.score(prompts=PROMPTS, samples=TEXTS) for each in (made, loaded)]
    assert torch.equal(*scores)
    assert len(set(scores[0].tolist())) == 4
    return loaded


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
