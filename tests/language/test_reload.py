"""Claims: plain peft and transformers read what a checkpoint holds, and we read what they wrote.

The same files give the same logits and the same greedy tokens there, for models that tie their
embeddings or not, and tokenizers without a padding or begin token.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_files import random_matrices, write_peft_folder
from peft import PeftModel
from policies import (
    diffusion,
    language,
    move_weights,
    peft_as_it_is,
    randomize,
    write_peft_adapter,
)
from safetensors.torch import load_file, save_file
from tiny_language import LETTERS, TEMPLATE, build_tokenizer, write_language_model
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from imgalign.errors import CheckpointError, ConfigError
from imgalign.language.policy import LanguagePolicy
from imgalign.language.weights import LanguageLora
from imgalign.runs.trained import find_weights, reference_of, weight_files, weights_hash

PROMPTS = ["a boat", "the green tree and a boat", "a red house"]
STEPS = 6

LAYOUTS: dict[str, tuple[Any, bool, dict[str, Any]]] = {
    "llama": ("llama", False, {"begin": True, "pad": "own"}),
    "llama, tied": ("llama", True, {"pad": "end"}),
    "qwen2": ("qwen2", False, {"template": TEMPLATE, "pad": "end"}),
    "qwen2, tied, no padding token": ("qwen2", True, {"template": TEMPLATE}),
    "qwen3, tied": ("qwen3", True, {}),
    "gpt2, tied, no padding token": ("gpt2", True, {}),
    "gpt2": ("gpt2", False, {"pad": "own", "begin": True}),
}
"""Class of the model, whether its embeddings are tied, and its tokenizer."""


@pytest.fixture(params=LAYOUTS)
def folder(request, tmp_path) -> Path:
    kind, tied, tokens = LAYOUTS[request.param]
    tokenizer = build_tokenizer(letters=LETTERS, **tokens)
    return write_language_model(tmp_path / "model", kind, tokenizer, tied=tied, spread=0.2)


def learned(folder: Path, **settings: Any) -> LanguagePolicy:
    policy = language(folder, max_new_tokens=STEPS, batch_size=4, **settings)
    move_weights(policy)
    return policy


def responses(policy: LanguagePolicy) -> tuple[list[list[int]], list[Tensor]]:
    """The likeliest tokens of each prompt, and all logits before each of them."""
    rows = policy._prompt_tokens(PROMPTS)
    tokens = torch.zeros(len(rows), STEPS, dtype=torch.long)
    mask = torch.zeros(len(rows), STEPS, dtype=torch.bool)
    with torch.no_grad():
        for step in range(STEPS):
            logits = policy.network.logits(rows, tokens, mask, torch.tensor([step]))
            tokens[:, step], mask[:, step] = logits[:, 0].argmax(dim=1), True
        every = policy.network.logits(rows, tokens, mask, torch.arange(STEPS))
    return tokens.tolist(), list(every)


def assert_says_the_same(model: Any, folder: Path, policy: LanguagePolicy) -> None:
    """A plain model, one prompt at a time, by its own `generate`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens, logits = responses(policy)
    greedy = GenerationConfig(do_sample=False, max_new_tokens=STEPS, eos_token_id=None)
    greedy.pad_token_id = 0
    for row, prompt in enumerate(PROMPTS):
        before = tokenizer(prompt)["input_ids"]
        if tokenizer.chat_template:
            message = [{"role": "user", "content": prompt}]
            before = tokenizer.apply_chat_template(
                message, add_generation_prompt=True, return_dict=False
            )
        asked = torch.tensor([before])
        with torch.no_grad():
            found = model.generate(
                input_ids=asked, attention_mask=torch.ones_like(asked), generation_config=greedy
            )
            theirs = model(found).logits[0, len(before) - 1 : -1]
        assert found[0, len(before) :].tolist() == tokens[row]
        assert_close(theirs, logits[row], rtol=1e-4, atol=1e-4)


def test_a_saved_adapter_gives_the_same_in_plain_peft(folder, tmp_path):
    policy = learned(folder)
    saved = tmp_path / "saved"
    saved.mkdir()
    policy.save(saved)
    assert find_weights(saved) == saved
    assert [file.name for file in weight_files(saved)] == ["adapter_model.safetensors"]
    with peft_as_it_is():
        base = AutoModelForCausalLM.from_pretrained(folder)
        adapted = PeftModel.from_pretrained(base, saved).eval()
        assert_says_the_same(adapted, folder, policy)
        merged = adapted.merge_and_unload()
        assert_says_the_same(merged, folder, policy)


def test_saved_weights_give_the_same_in_plain_transformers(folder, tmp_path):
    policy = learned(folder, train="full")
    saved = tmp_path / "saved"
    saved.mkdir()
    policy.save(saved)
    assert find_weights(saved) == saved
    model = AutoModelForCausalLM.from_pretrained(saved).eval()
    assert model.dtype == torch.float32
    assert_says_the_same(model, saved, policy)
    # It is a whole model, and so another run can start from it.
    again = language(saved, max_new_tokens=STEPS, batch_size=4, train="full")
    assert responses(again)[0] == responses(policy)[0]


def test_tied_embeddings_are_trained_saved_and_loaded_as_one(tmp_path):
    folder = write_language_model(tmp_path / "model", "qwen2", tied=True)
    policy, saved = learned(folder, train="full"), tmp_path / "saved"
    saved.mkdir()
    policy.save(saved)
    assert not [name for name in load_file(saved / "model.safetensors") if "lm_head" in name]
    other = language(folder, max_new_tokens=STEPS, batch_size=4, train="full")
    other.load(saved)
    model = other.network.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert responses(other)[0] == responses(policy)[0]


def test_a_policy_starts_from_an_adapter_that_peft_wrote(folder, tmp_path):
    path = tmp_path / "theirs"
    write_peft_adapter(folder, path, r=3, lora_alpha=5)
    policy = language(folder, max_new_tokens=STEPS, batch_size=4, adapter=str(path))
    with peft_as_it_is():
        base = AutoModelForCausalLM.from_pretrained(folder)
        adapted = PeftModel.from_pretrained(base, path).eval()
        assert_says_the_same(adapted, folder, policy)
    assert isinstance(policy.weights, LanguageLora)
    settings = policy.weights.config
    assert (settings.r, settings.lora_alpha) == (3, 5)


def test_the_adapter_that_a_run_started_from_is_kept_in_its_checkpoints(talkers, tmp_path):
    start, saved = tmp_path / "theirs", tmp_path / "saved"
    write_peft_adapter(talkers["llama"], start)
    policy = learned(talkers["llama"], adapter=str(start / "adapter_model.safetensors"))
    saved.mkdir()
    policy.save(saved)
    kept = reference_of(saved)
    assert kept == saved / "reference"
    theirs, ours = (load_file(each / "adapter_model.safetensors") for each in (start, kept))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert weights_hash(saved) != weights_hash(kept)
    assert reference_of(kept) is None


# --- what cannot be started from


def refused(folder: Path, path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        language(folder, adapter=str(path), **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "expected plain LoRA, got use_dora=True"),
        ({"use_rslora": True}, "expected plain LoRA, got use_rslora=True"),
        ({"modules_to_save": ["lm_head"]}, "expected plain LoRA, got modules_to_save=['lm_head']"),
        ({"bias": "all"}, "expected plain LoRA, got bias=all"),
        ({"lora_bias": True}, "expected plain LoRA, got lora_bias=True"),
        ({"alpha_pattern": {"q_proj": 12}}, "expected plain LoRA, got alpha_pattern="),
        ({"rank_pattern": {"q_proj": 2}}, "expected plain LoRA, got rank_pattern="),
        ({"init_lora_weights": "pissa"}, "expected plain LoRA, got init_lora_weights=pissa"),
        ({"trainable_token_indices": [1]}, "expected plain LoRA, got trainable_token_indices="),
    ],
)
def test_an_adapter_that_is_more_than_two_matrices_a_layer_is_one_line(
    talkers, tmp_path, settings, message
):
    path = tmp_path / "theirs"
    write_peft_adapter(talkers["llama"], path, **settings)
    found = refused(talkers["llama"], path)
    assert found.startswith("policy.adapter: ")
    assert message in found
    assert found.endswith("merge it into its model")


def test_an_adapter_of_another_kind_or_model_or_other_settings_is_one_line(talkers, tmp_path):
    path = tmp_path / "theirs"
    write_peft_adapter(talkers["llama"], path, target_modules=["q_proj", "v_proj"])
    assert "target_modules" in refused(talkers["gpt2"], path)
    assert "policy.lora_rank: policy.adapter has 3, got 4" in refused(
        talkers["llama"], path, lora_rank=4
    )
    assert "policy.target_modules: policy.adapter has ['q_proj', 'v_proj']" in refused(
        talkers["llama"], path, target_modules=["q_proj"]
    )
    file = path / "adapter_config.json"
    whole = file.read_text()
    file.write_text(json.dumps(json.loads(whole) | {"peft_type": "IA3"}))
    assert "expected plain LoRA, got IA3" in refused(talkers["llama"], path)
    file.write_text("[]")
    assert "expected the settings of an adapter" in refused(talkers["llama"], path)
    file.unlink()
    assert "expected the settings of an adapter" in refused(talkers["llama"], path)
    file.write_text(whole)
    tensors = load_file(path / "adapter_model.safetensors")
    name = min(tensors)
    save_file(tensors | {name: tensors[name] * torch.nan}, path / "adapter_model.safetensors")
    assert f"{name.removeprefix('base_model.model.')}: expected finite numbers" in refused(
        talkers["llama"], path
    )
    (path / "adapter_model.safetensors").write_bytes(b"\0" * 20)
    assert "cannot be read" in refused(talkers["llama"], path)
    (path / "adapter_model.safetensors").unlink()
    assert "or full weights here" in refused(talkers["llama"], path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 2**40}, "r: expected the rank of the matrices, 3, got 1099511627776"),
        ({"r": None}, "r: expected the rank of the matrices, 3, got None"),
        ({"r": 3.0}, "r: expected the rank"),
        ({"lora_alpha": 10**400}, "lora_alpha: expected a number"),
        ({"lora_alpha": math.nan}, "lora_alpha: expected a number, got nan"),
        ({"lora_alpha": "6"}, "lora_alpha: expected a number, got '6'"),
        ({"target_modules": None}, "target_modules: expected a list of names of layers, got None"),
        ({"target_modules": [["q_proj"]]}, "target_modules: expected a list"),
        ({"target_modules": {"q_proj": 1}}, "target_modules: expected a list"),
    ],
)
def test_settings_of_an_adapter_that_nobody_means_are_one_line(
    talkers, tmp_path, settings, message
):
    path = tmp_path / "theirs"
    write_peft_adapter(talkers["llama"], path)
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    assert message in refused(talkers["llama"], path)


@pytest.mark.parametrize("pattern", [r".*\.(q|v)_proj", "(.|.)*(.|.)*!"])
def test_layers_that_an_adapter_names_by_a_pattern_are_those_of_its_file(
    talkers, tmp_path, pattern
):
    # The second one would be matched for longer than anybody lives.
    path = tmp_path / "theirs"
    write_peft_adapter(talkers["llama"], path, target_modules=["q_proj", "v_proj"])
    expected = [each.clone() for each in from_folder(talkers["llama"], path)]
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": pattern}))
    assert all(map(torch.equal, from_folder(talkers["llama"], path), expected))


def from_folder(model, path):
    return list(language(model, adapter=str(path)).trainable_parameters())


def test_all_weights_are_no_adapter_to_start_from(talkers):
    assert "adapter_config.json" in refused(talkers["llama"], talkers["llama"])


def test_a_checkpoint_of_other_settings_is_one_line(talkers, tmp_path):
    folder = talkers["llama"]
    adapter, whole = tmp_path / "adapter", tmp_path / "whole"
    for path, settings in ((adapter, {"lora_rank": 4}), (whole, {"train": "full"})):
        path.mkdir()
        language(folder, **settings).save(path)
    for policy, path, message in (
        (language(folder, lora_rank=8), adapter, "other settings"),
        (language(folder, lora_rank=4, lora_alpha=8), adapter, "with lora_alpha 8, got 4"),
        (language(folder, lora_rank=4), whole, "expected the settings of an adapter"),
        (language(folder, train="full"), adapter, "expected the hash of the weights"),
        (language(talkers["qwen2"], train="full"), whole, "its weights are not those"),
    ):
        with pytest.raises(CheckpointError, match=message) as error:
            policy.load(path)
        assert "\n" not in str(error.value)


# --- images


def test_an_adapter_of_images_in_the_layout_of_peft_is_still_found_and_read(
    tiny_pipeline, tiny_pipeline_folder, tmp_path
):
    matrices = random_matrices(tiny_pipeline.unet, ("to_q", "to_v"))
    folder = write_peft_folder(tmp_path / "theirs", matrices)
    assert find_weights(folder) == find_weights(folder / "adapter_model.safetensors") == folder
    policy = diffusion(tiny_pipeline_folder, adapter=str(folder))
    assert any(parameter.any() for parameter in policy.trainable_parameters())


def test_weights_of_a_language_model_are_no_adapter_of_images(
    tiny_pipeline_folder, talkers, tmp_path
):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    policy = language(talkers["llama"])
    randomize(policy.trainable_parameters())
    policy.save(adapter)
    for path in (adapter, talkers["llama"]):
        with pytest.raises(ConfigError) as error:
            diffusion(tiny_pipeline_folder, adapter=str(path))
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)
