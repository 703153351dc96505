"""The byte-level tokenizer: any text survives, and conversations are written as in the corpus."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from imgalign.errors import InputError
from imgalign.storybook.chat_tokenizer import SPECIAL, build_chat_tokenizer
from imgalign.storybook.corpus import conversation, pretraining_texts
from imgalign.storybook.scenes import evaluation_prompts

TEXTS = pretraining_texts(400, seed=1)
MESSAGES = [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": "a red cat"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    build_chat_tokenizer(TEXTS, path, vocab_size=512, max_length=128)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_any_text_is_decoded_to_itself(tokenizer):
    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(st.text())
    @example("  Ünlike!\r\n\t\N{CAT FACE} a ,b .c n't \x00 ")
    def survives(text: str) -> None:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids)

    survives()


def test_special_tokens_are_five_different_ones(tokenizer):
    assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == SPECIAL[:3]
    assert tokenizer.unk_token is None


def test_a_text_begins_with_the_begin_token_and_its_end_is_left_open(tokenizer):
    ids = tokenizer("a red cat").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids


def test_every_word_of_the_grammar_is_one_token(tokenizer):
    for prompt in evaluation_prompts(100, seed=2, held_out=False):
        # Besides the begin token: small corpora leave a few rare words in two.
        assert len(tokenizer(prompt).input_ids) - 1 <= len(prompt.split()) + 2


def test_the_chat_template_writes_conversations_as_the_corpus_does(tokenizer):
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    asked = tokenizer.apply_chat_template(MESSAGES[:1], tokenize=False, add_generation_prompt=True)
    assert asked == begin + conversation("a cat")
    whole = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert whole == begin + conversation("a cat", "a red cat") + end
    ids = tokenizer.apply_chat_template(MESSAGES).input_ids
    assert ids == [*tokenizer(conversation("a cat", "a red cat")).input_ids, tokenizer.eos_token_id]


def test_the_answer_and_its_end_are_marked_for_the_loss(tokenizer):
    encoded = tokenizer.apply_chat_template(
        MESSAGES, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [
        token
        for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if mark
    ]
    assert tokenizer.decode(marked) == "a red cat" + tokenizer.eos_token


def test_other_roles_are_refused(tokenizer):
    with pytest.raises(Exception, match="expected messages of user and assistant, got system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "be nice"}], tokenize=False)


def test_prompts_are_padded_on_the_left_with_a_token_of_its_own(tokenizer):
    batch = tokenizer(["a cat", "a cat by the sea"], padding=True)
    short, long = batch.input_ids
    assert len(short) == len(long)
    assert short[0] == tokenizer.pad_token_id
    assert batch.attention_mask[0][0] == 0


def test_no_merge_reaches_into_a_special_token(tokenizer):
    assert not [token for token in tokenizer.get_vocab() if "|" in token and token not in SPECIAL][
        1:
    ]


def test_the_files_are_a_function_of_the_texts(folder, tmp_path):
    build_chat_tokenizer(TEXTS, tmp_path, vocab_size=512, max_length=128)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_vocabulary_without_room_for_the_bytes_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least 261, the bytes and the special tokens, got 200"):
        build_chat_tokenizer(TEXTS, tmp_path, vocab_size=200, max_length=128)
