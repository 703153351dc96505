"""Pretraining of the language model: how texts are packed, and that a run repeats."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imgalign.errors import InputError
from imgalign.storybook.chat_tokenizer import build_chat_tokenizer
from imgalign.storybook.corpus import pretraining_texts
from imgalign.storybook.train.language import CONTEXT, build_language_model, packed, train_language

TEXTS = pretraining_texts(300, seed=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return build_chat_tokenizer(TEXTS, folder, vocab_size=512, max_length=CONTEXT)


def test_rows_hold_every_text_once_whole_and_in_order(tokenizer):
    rows = packed(tokenizer, TEXTS)
    assert rows.shape[1] == CONTEXT
    assert torch.all(rows[:, 0] == tokenizer.bos_token_id)
    texts = []
    for row in rows.tolist():
        ids = [token for token in row if token != tokenizer.pad_token_id]
        assert row[: len(ids)] == ids, "padding is at the end"
        assert ids[-1] == tokenizer.eos_token_id
        ends = [place for place, token in enumerate(ids) if token == tokenizer.eos_token_id]
        starts = [0, *(end + 1 for end in ends[:-1])]
        texts += [ids[start:end] for start, end in zip(starts, ends, strict=True)]
    assert texts == tokenizer(list(TEXTS)).input_ids


def test_little_of_the_rows_is_padding(tokenizer):
    rows = packed(tokenizer, TEXTS)
    assert (rows == tokenizer.pad_token_id).float().mean() < 0.1


def test_the_model_is_small_and_knows_its_special_tokens(tokenizer):
    model = build_language_model(tokenizer)
    assert 1e6 < model.num_parameters() < 1.5e6
    for config in (model.config, model.generation_config):
        assert config.bos_token_id == tokenizer.bos_token_id
        assert config.eos_token_id == tokenizer.eos_token_id
        assert config.pad_token_id == tokenizer.pad_token_id


def test_two_runs_give_the_same_model(tmp_path: Path):
    weights = []
    for name in ("a", "b"):
        train_language(tmp_path / name, num_texts=200, learning_rate=1e-3)
        weights.append(load_file(tmp_path / name / "language" / "model.safetensors"))
    first, again = weights
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_too_few_texts_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="at least one batch"):
        train_language(tmp_path, num_texts=5, learning_rate=1e-3)
