from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from imgalign.errors import InputError
from imgalign.storybook.tokenizer import build_tokenizer

# "re" is frequent and would cut "tree" wrongly if merges were applied word by word.
WORDS = ("red", "tree", "green", "three", "house", "a", "and", "eye")


def test_every_word_of_the_vocabulary_is_one_token(tmp_path: Path):
    tokenizer = build_tokenizer(WORDS, tmp_path, max_length=12)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    for word in WORDS:
        assert tokenizer(word).input_ids == [begin, tokenizer.vocab[f"{word}</w>"], end]
    assert len({tuple(tokenizer(word).input_ids) for word in WORDS}) == len(WORDS)


def test_prompts_are_cut_or_padded_with_the_end_token_whose_id_is_the_highest(tmp_path: Path):
    tokenizer = build_tokenizer(WORDS, tmp_path, max_length=6)
    end = len(tokenizer) - 1
    short = tokenizer("A red House", padding="max_length", truncation=True).input_ids
    assert len(short) == 6
    assert short[4:] == [end, end]
    long = tokenizer("red red red red red red red", padding="max_length", truncation=True).input_ids
    assert long[-1] == end
    assert len(long) == 6


def test_an_unknown_word_falls_apart_into_pieces_and_decodes_to_itself(tmp_path: Path):
    tokenizer = build_tokenizer(WORDS, tmp_path, max_length=24)
    ids = tokenizer("a zebra").input_ids
    assert tokenizer.eos_token_id not in ids[:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a zebra"


def test_the_files_do_not_depend_on_the_order_of_the_words(tmp_path: Path):
    build_tokenizer(WORDS, tmp_path / "a", max_length=12)
    build_tokenizer(reversed(WORDS), tmp_path / "b", max_length=12)
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_folder_loads_as_a_clip_tokenizer(tmp_path: Path):
    built = build_tokenizer(WORDS, tmp_path, max_length=12)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 12
    assert loaded.pad_token_id == loaded.eos_token_id
    assert loaded("three green trees").input_ids == built("three green trees").input_ids


@pytest.mark.parametrize("word", ["half-moon", "10", "Red", "two words", ""])
def test_a_word_that_cannot_be_one_token_is_refused(tmp_path: Path, word: str):
    with pytest.raises(InputError, match="letters a to z"):
        build_tokenizer([word, "red"], tmp_path, max_length=12)
