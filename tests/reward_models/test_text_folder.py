"""A saved reward of texts: what its folder holds, and what is refused of one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_rewards import CPU, PROMPTS, TEXTS, WEIGHT, make_reward
from tiny_language import CONTEXT, KINDS, TEMPLATE, build_tokenizer, write_language_model
from transformers import (
    AutoModel,
    GPTJConfig,
    GPTJForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

import reward_models
from imgalign.errors import CheckpointError
from imgalign.language.loading import load_language_model
from reward_models.clip import ClipReward
from reward_models.text import TextReward
from reward_models.text_models import scalar_model


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
