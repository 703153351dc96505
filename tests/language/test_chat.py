"""Prompts and responses as tokens, whatever the tokenizer has or lacks."""

import logging

import pytest
import torch
from tiny_language import ANSWER, BEGIN, END, PAD, TEMPLATE, USER, build_tokenizer
from tokenizers import processors
from torch.testing import assert_close

from imgalign.errors import InputError
from imgalign.language.chat import (
    Answered,
    end_token,
    joined,
    last_position,
    padded,
    padded_answers,
    padding_token,
    positions,
    prompt_tokens,
    refuse_long,
    response_texts,
    response_tokens,
    vocabulary,
)


def spelled(tokenizer, row):
    return "".join(tokenizer.convert_ids_to_tokens(row)).replace("Ġ", " ")


def tokens_of(tokenizer, prompt: str, response: str) -> list[int]:
    (row,) = joined(tokenizer, [prompt], [response], context_length=64)
    return [*row.prompt, *row.response]


def test_without_a_template_a_prompt_stands_as_it_is():
    tokenizer = build_tokenizer()
    (row,) = prompt_tokens(tokenizer, ["a red cat"])
    assert spelled(tokenizer, row) == "a red cat"


def test_a_begin_token_comes_first_where_the_tokenizer_has_one_and_before_no_response():
    tokenizer = build_tokenizer(begin=True)
    row = tokens_of(tokenizer, "a cat", " here")
    assert spelled(tokenizer, row) == f"{BEGIN}a cat here{END}"


def test_a_template_makes_the_prompt_the_message_of_the_user():
    tokenizer = build_tokenizer(begin=True, template=TEMPLATE)
    row = tokens_of(tokenizer, "a cat", "a red cat")
    assert spelled(tokenizer, row) == f"{USER}a cat{ANSWER}a red cat{END}"


def test_a_tokenizer_that_ends_every_text_does_not_end_a_prompt():
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.eos_token_id)]
    )
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    row = tokens_of(tokenizer, "a cat", " here")
    assert spelled(tokenizer, row) == f"a cat here{END}"


def test_a_response_may_be_empty_and_spells_no_control_token():
    tokenizer = build_tokenizer()
    empty, tricky = response_tokens(tokenizer, ["", f"red{END}blue"])
    assert empty == [tokenizer.eos_token_id]
    assert tricky.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(tricky[:-1]) == f"red{END}blue"
    # It is a state of the tokenizer, which the next text must not inherit.
    assert prompt_tokens(tokenizer, [END]) == [[tokenizer.eos_token_id]]


def test_a_response_ends_as_the_template_ends_a_turn():
    # As of Gemma and Phi 3: turns have an end of their own, and texts another.
    turns = (
        "{% for message in messages %}{% if message['role'] == 'user' %}<user>{% else %}<answer>"
        "{% endif %}{{ message['content'] }}<begin>\n{% endfor %}"
        "{% if add_generation_prompt %}<answer>{% endif %}"
    )
    tokenizer = build_tokenizer(template=turns)
    row = tokens_of(tokenizer, "a cat", "a red cat")
    assert spelled(tokenizer, row[:-1]) == f"{USER}a cat{BEGIN}Ċ{ANSWER}a red cat"
    assert row[-1] == end_token(tokenizer) == tokenizer.convert_tokens_to_ids(BEGIN)
    # No control token after an answer, and a template that takes no answers.
    nobody = "{{ raise_exception('a user') if messages | length > 1 }}<user>"
    for template in (TEMPLATE, nobody):
        assert end_token(build_tokenizer(template=template)) == tokenizer.eos_token_id


@pytest.mark.parametrize("after", ["", "\n", " "])
def test_an_end_that_a_response_spells_out_is_its_end(after):
    tokenizer = build_tokenizer()
    plain, spelled_out = response_tokens(tokenizer, ["a red cat\n", f"a red cat\n{END}{after}"])
    assert spelled_out == plain
    twice, _ = response_tokens(tokenizer, [f"a red cat\n{END}{END}{after}", "x"])
    assert twice == plain


@pytest.mark.parametrize(("template", "said"), [(None, " here"), (TEMPLATE, "here")])
def test_a_text_that_goes_on_with_a_prompt_keeps_the_space_that_it_was_sampled_with(template, said):
    """Without it a reward model would read other tokens than the policy wrote."""
    tokenizer = build_tokenizer(template=template)
    (sampled,) = response_tokens(tokenizer, [" here"])
    tokens = torch.tensor([sampled])
    (text,), (ended,) = response_texts(
        tokenizer, tokens, torch.ones_like(tokens, dtype=torch.bool), ends={end_token(tokenizer)}
    )
    assert (text, ended) == (said, True)
    if template is None:
        assert response_tokens(tokenizer, [text]) == [sampled]


def test_a_template_that_writes_the_date_gives_the_same_tokens_every_day():
    dated = """{{ strftime_now('%d %b') }}{{ strftime_now( "-%Y" ) }}""" + TEMPLATE
    tokenizer = build_tokenizer(template=dated)
    (row,) = prompt_tokens(tokenizer, ["a cat"])
    assert spelled(tokenizer, row) == f"26 Jul-2024{USER}a cat{ANSWER}"


@pytest.mark.parametrize(
    ("options", "prompts", "message"),
    [
        ({}, ["a cat", "  "], "prompt '  ': expected text, got none"),
        ({"template": TEMPLATE}, [""], "prompt '': expected text, got none"),
        (
            {"template": TEMPLATE},
            [f"a cat{ANSWER}"],
            "prompt 'a cat<answer>': contains '<answer>', a control token of the chat template",
        ),
        (
            {"template": "{{ raise_exception('no user here') }}"},
            ["a cat"],
            "prompt 'a cat': the chat template cannot take it: no user here",
        ),
        ({"template": "{% for %}"}, ["a cat"], "prompt 'a cat': the chat template cannot take it"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_one_line(options, prompts, message):
    with pytest.raises(InputError) as error:
        prompt_tokens(build_tokenizer(**options), prompts)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(InputError, match=r"expected an end token \(eos_token\)"):
        response_tokens(build_tokenizer(end=False), ["a red cat"])


def test_padding_is_the_tokenizers_own_token_else_the_end_token():
    own = build_tokenizer(pad="own")
    assert padding_token(own) == own.convert_tokens_to_ids(PAD)
    for without in (build_tokenizer(pad=None), build_tokenizer(pad="end")):
        assert padding_token(without) == end_token(without)


def test_a_text_of_just_the_context_fits_and_one_token_more_is_refused():
    tokenizer = build_tokenizer(begin=True)
    # A begin token, five bytes, two bytes, an end token.
    (row,) = joined(tokenizer, ["a cat"], ["hi"], context_length=9)
    assert (len(row.prompt), len(row.response)) == (6, 3)
    with pytest.raises(InputError) as error:
        joined(tokenizer, ["a", "a cat"], ["hi", "hi"], context_length=8)
    expected = "prompt 'a cat': its 6 tokens and 3 of the response are more than the 8 that"
    assert str(error.value).startswith(expected)
    refuse_long(["a cat"], [5], [3], context_length=8)


def test_as_many_prompts_as_responses_are_expected():
    with pytest.raises(InputError, match="got 1 prompts and 2 responses"):
        joined(build_tokenizer(), ["a"], ["b", "c"], context_length=9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_keeps_every_row_its_positions_and_its_last_token(side):
    rows = [[7, 8, 9], [5], [6, 2]]
    tokens = padded(rows, side=side, fill=2)
    assert tokens.input_ids.shape == tokens.attention_mask.shape == (3, 3)
    for number, row in enumerate(rows):
        there = tokens.attention_mask[number]
        assert tokens.input_ids[number][there].tolist() == row
        assert positions(tokens.attention_mask)[number][there].tolist() == list(range(len(row)))
    last = last_position(tokens.attention_mask)
    assert_close(tokens.input_ids[torch.arange(3), last], torch.tensor([9, 5, 2]))


def test_last_position_and_positions_of_prompts_on_the_left_and_responses_on_the_right():
    mask = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
    assert last_position(mask).tolist() == [3, 2]
    assert positions(mask).tolist() == [[0, 0, 1, 2, 2], [0, 1, 2, 2, 2]]


def test_vocabularies_are_equal_if_every_token_has_the_same_number():
    one, same = build_tokenizer(), build_tokenizer(begin=True, pad="end", template=TEMPLATE)
    assert vocabulary(one) == vocabulary(same)
    other = build_tokenizer()
    other.add_tokens(["cat"])
    assert vocabulary(other) != vocabulary(one)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokens_of_responses_are_found_whichever_side_the_padding_is_on(side):
    rows = [Answered([5, 6, 7], [8, 1]), Answered([5], [9, 9, 9, 1]), Answered([5], [1])]
    tokens = padded_answers(rows, side=side, fill=1)
    for number, row in enumerate(rows):
        assert tokens.input_ids[number][tokens.responses[number]].tolist() == row.response
        assert (tokens.attention_mask & ~tokens.responses)[number].sum() == len(row.prompt)


def test_of_a_long_prompt_the_tokenizer_says_nothing_of_its_own(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer = build_tokenizer(context_length=4)
    assert len(prompt_tokens(tokenizer, ["a long prompt"])[0]) > 4
    assert not caplog.records
