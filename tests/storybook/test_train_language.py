"""Pretraining of the language model: its batches, and that a run repeats."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imgalign.errors import InputError
from imgalign.storybook.chat_tokenizer import build_chat_tokenizer
from imgalign.storybook.corpus import pretraining_texts
from imgalign.storybook.train.language import (
    BATCH,
    CONTEXT,
    batched,
    build_language_model,
    train_language,
)

TEXTS = pretraining_texts(1000, seed=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return build_chat_tokenizer(TEXTS, folder, vocab_size=512, max_length=CONTEXT)


def test_batches_hold_whole_texts_of_one_length_between_begin_and_end(tokenizer):
    batches = batched(tokenizer, TEXTS)
    assert len(batches) > 3
    encoded = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(TEXTS)).input_ids]
    for batch in batches:
        assert len(batch) == BATCH
        assert torch.all(batch[:, 0] == tokenizer.bos_token_id)
        assert torch.all(batch[:, -1] == tokenizer.eos_token_id)
        assert not torch.any(batch == tokenizer.pad_token_id)
    seen = Counter(tuple(ids) for batch in batches for ids in batch.tolist())
    assert not seen - Counter(map(tuple, encoded))


def test_fewer_texts_than_a_batch_of_each_length_are_left_out(tokenizer):
    lengths = Counter(len(ids) + 1 for ids in tokenizer(list(TEXTS)).input_ids)
    batches = batched(tokenizer, TEXTS)
    found = Counter(batch.shape[1] for batch in batches)
    assert found == Counter({length: n // BATCH for length, n in lengths.items() if n >= BATCH})


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
        train_language(tmp_path / name, num_texts=400, learning_rate=1e-3)
        weights.append(load_file(tmp_path / name / "language" / "model.safetensors"))
    first, again = weights
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_too_few_texts_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="enough texts for a batch of 32 of one length, got 5"):
        train_language(tmp_path, num_texts=5, learning_rate=1e-3)
