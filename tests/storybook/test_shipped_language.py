"""The shipped language model: loads in plain transformers, and is a base model of average flaws."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from imgalign.language.loading import STORYBOOK
from imgalign.storybook.chat_tokenizer import build_chat_tokenizer
from imgalign.storybook.corpus import pretraining_texts
from imgalign.storybook.demonstrations import CLEAN, demonstrations
from imgalign.storybook.text_oracle import check_carried_out, text_utility
from imgalign.storybook.train.language import (
    CONTEXT,
    SEED,
    TOKENIZER_TEXTS,
    VOCABULARY,
)

IDEAS = tuple(each.prompt for each in demonstrations(100, seed=3, rates=CLEAN))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(STORYBOOK)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(STORYBOOK).eval()


@pytest.fixture(scope="module")
def sampled(model, tokenizer) -> list[str]:
    """An answer to each idea at temperature 1, with its end token if it has one."""
    torch.manual_seed(0)
    batch = tokenizer.apply_chat_template(
        [[{"role": "user", "content": idea}] for idea in IDEAS],
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        out = model.generate(**batch, do_sample=True, top_k=0, max_new_tokens=60)
    said = out[:, batch.input_ids.shape[1] :]
    return [text.replace(tokenizer.pad_token, "") for text in tokenizer.batch_decode(said)]


def test_it_is_a_small_llama_of_float32_weights(model, tokenizer):
    assert type(model) is LlamaForCausalLM
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings == tokenizer.model_max_length == CONTEXT
    assert sum(path.stat().st_size for path in STORYBOOK.iterdir()) < 8e6


def test_config_generation_and_tokenizer_name_the_same_special_tokens(model, tokenizer):
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token = getattr(tokenizer, name)
        assert getattr(model.config, name) == getattr(model.generation_config, name) == token


def test_nearly_every_answer_ends(sampled, tokenizer):
    ended = [text.endswith(tokenizer.eos_token) for text in sampled]
    assert sum(ended) / len(ended) >= 0.97


def test_some_answers_are_flawless_and_more_are_not(sampled, tokenizer):
    texts = [text.removesuffix(tokenizer.eos_token) for text in sampled]
    flawless = check_carried_out(prompts=IDEAS, samples=texts).float().mean()
    assert 0.1 < flawless < 0.5
    clean = [each.completion for each in demonstrations(100, seed=3, rates=CLEAN)]
    worth, best = (text_utility(IDEAS, part, group="cosy").mean() for part in (texts, clean))
    assert best - worth > 1.0


def test_answers_to_different_ideas_differ_whatever_stands_beside_them(model, tokenizer):
    """Padding on the left changes nothing."""

    def greedy(ideas: list[str]) -> list[str]:
        batch = tokenizer.apply_chat_template(
            [[{"role": "user", "content": idea}] for idea in ideas],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            out = model.generate(**batch, do_sample=False, max_new_tokens=40)
        return tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)

    ideas = ["a cat", "a purple boat on an orange mushroom in the desert"]
    assert greedy(ideas) == [greedy([idea])[0] for idea in ideas]


@pytest.mark.slow
def test_the_shipped_tokenizer_is_the_one_that_the_script_builds(tmp_path: Path):
    texts = pretraining_texts(TOKENIZER_TEXTS, seed=SEED)
    build_chat_tokenizer(texts, tmp_path, vocab_size=VOCABULARY, max_length=CONTEXT)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (STORYBOOK / path.name).read_bytes(), path.name
