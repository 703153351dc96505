"""Prompts and responses as the tokens of a causal language model.

A prompt goes through the tokenizer's chat template where it has one, as the only message of the
user, else it stands as it is. A response is its text and the end token: what the chat template
writes after an answer, else the tokenizer's. Policies, reward models and
critics all take their tokens from here, so that a text is the same tokens to each of them. Nothing
is truncated. Padding and last token are found by the mask and never by an id, because many
tokenizers have no padding token, or use the end token for it.

Shapes: b = texts, L = tokens of the longest one.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.errors import InputError, first_line

Side = Literal["left", "right"]

TEMPLATE_DATE = datetime(2024, 7, 26)
"""Date for templates that write today's into the system message, such as Llama 3's: the same prompt
would else be other tokens tomorrow. This one is the default of Llama 3's template."""

TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
"""A template's question for the date; the second group is its format."""

SOME_ANSWER = "Qwxyz"
"""Stands for an answer where a template is asked what comes after one."""

SOME_TEXT = " Two cats,  and 16 Dogs!"
"""Shows how a tokenizer treats spaces, capitals and digits, and what it adds at the ends."""

SHOWN = 40
"""Characters of a text in a message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """Texts as tokens, padded to one length."""

    input_ids: Int[Tensor, "b L"]
    attention_mask: Bool[Tensor, "b L"]
    """False where there is padding."""


class Answered(NamedTuple):
    """A prompt with its response, as tokens."""

    prompt: list[int]
    response: list[int]
    """With the end token."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnsweredTokens(Tokens):
    """Prompts with their responses, padded to one length."""

    responses: Bool[Tensor, "b L"]
    """True where a token belongs to a response."""


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response; InputError for a tokenizer without one.

    With a chat template it is the first control token after an answer, since templates may end a
    turn with another one than a text; without one, or where it writes none there, `eos_token`.
    """
    token = _end_of_turn(tokenizer) if tokenizer.chat_template else None
    token = tokenizer.eos_token_id if token is None else token
    if not isinstance(token, int):
        raise InputError(
            f"tokenizer: expected an end token (eos_token), {tokenizer.name_or_path or 'it'} has "
            "none; set it in tokenizer_config.json, or no response can end"
        )
    return token


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> Mapping[int, str]:
    """The tokens that are no text, such as begin and end, by their numbers."""
    return {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token to fill up with: that of the tokenizer, else the end token; masks decide anyway."""
    token = tokenizer.pad_token_id
    return token if isinstance(token, int) else end_token(tokenizer)


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Tokens of each prompt, up to where its response begins.

    With a chat template these are the user's message and the header of the answer; templates that
    can ask for reasoning before the answer are told not to. Without one it is the text, after the
    begin token if the tokenizer has it. InputError for an empty prompt, and for one that contains a
    control token of a chat template as text.
    """
    distinct = list(dict.fromkeys(prompts))  # of which groups of samples have few
    for prompt in distinct:
        if not prompt.strip():
            raise InputError(f"prompt {prompt!r}: expected text, got none")
    if tokenizer.chat_template:
        template = _undated(tokenizer.get_chat_template())
        _refuse_controls(tokenizer, distinct)
        tokens = {prompt: _templated(tokenizer, prompt, template) for prompt in distinct}
    else:
        tokens = {prompt: _plain(tokenizer, prompt) for prompt in distinct}
    return [list(tokens[prompt]) for prompt in prompts]


def response_tokens(
    tokenizer: PreTrainedTokenizerBase, responses: Sequence[str]
) -> list[list[int]]:
    """Tokens of each response, which may be empty, and the end token.

    Where a response spells out an end token at its end, as in data for other trainers, that is its
    end; other control tokens in it are read as plain text.
    """
    end = end_token(tokenizer)
    if not responses:
        return []
    ends = [tokenizer.convert_ids_to_tokens(end), tokenizer.eos_token]
    spelled = {each for each in ends if isinstance(each, str) and each}
    texts = [_without_end(text, spelled) for text in responses]
    found = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
    return [[*row, end] for row in found["input_ids"]]


def response_texts(
    tokenizer: PreTrainedTokenizerBase,
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    ends: Collection[int],
) -> tuple[list[str], list[bool]]:
    """The texts of responses without their end, and which of them ended.

    `mask` is where there are tokens, `ends` those of which each is an end. Other control tokens are
    no text and are left out. Answers of a chat are trimmed; where a response goes on with a prompt,
    the space that it begins with is a part of its tokens, and stays.
    """
    kept = [
        [token for token, there in zip(*row, strict=True) if there]
        for row in zip(tokens.tolist(), mask.tolist(), strict=True)
    ]
    texts: Any = tokenizer.batch_decode(
        [[token for token in row if token not in ends] for row in kept],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    if tokenizer.chat_template:
        texts = [text.strip() for text in texts]
    return list(texts), [bool(row) and row[-1] in ends for row in kept]


def joined(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    context_length: int,
) -> list[Answered]:
    """Tokens of each prompt with its response.

    InputError where their numbers differ, where a prompt is empty, and where the two are longer
    than the context.
    """
    if len(prompts) != len(responses):
        raise InputError(
            f"texts: expected a prompt for each response, got {len(prompts)} prompts and "
            f"{len(responses)} responses"
        )
    first = prompt_tokens(tokenizer, prompts)
    second = response_tokens(tokenizer, responses)
    lengths = [len(row) for row in first], [len(row) for row in second]
    refuse_long(prompts, *lengths, context_length=context_length)
    return [Answered(*each) for each in zip(first, second, strict=True)]


def refuse_long(
    prompts: Sequence[str],
    prompt_lengths: Sequence[int],
    response_lengths: Sequence[int],
    *,
    context_length: int,
) -> None:
    """InputError for the first prompt that does not fit into the context with its response.

    Lengths are in tokens; those of responses count the end token.
    """
    for prompt, own, room in zip(prompts, prompt_lengths, response_lengths, strict=True):
        if own + room > context_length:
            raise InputError(
                f"prompt {prompt[:SHOWN]!r}: its {own} tokens and {room} of the response are more "
                f"than the {context_length} that the model reads; shorten one of them, nothing is "
                "truncated"
            )


def padded(rows: Sequence[Sequence[int]], *, side: Side, fill: int) -> Tokens:
    """Rows of tokens filled up on one side to the length of the longest."""
    length = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), length), fill)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        input_ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = True
    return Tokens(input_ids=input_ids, attention_mask=mask)


def padded_answers(rows: Sequence[Answered], *, side: Side, fill: int) -> AnsweredTokens:
    """Prompts with their responses, filled up on one side to the length of the longest."""
    tokens = padded([[*row.prompt, *row.response] for row in rows], side=side, fill=fill)
    there = tokens.attention_mask
    lengths = torch.tensor([len(row.prompt) for row in rows])
    return AnsweredTokens(
        input_ids=tokens.input_ids,
        attention_mask=there,
        responses=there & (positions(there) >= lengths[:, None]),
    )


def positions(attention_mask: Bool[Tensor, "b L"]) -> Int[Tensor, "b L"]:
    """Position of each token among those of its text, from 0; padding has any.

    Models that add position embeddings would else count the padding on the left.
    """
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def last_position(attention_mask: Bool[Tensor, "b L"]) -> Int[Tensor, " b"]:
    """Column of the last token of each text, whichever side the padding is on."""
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return torch.where(attention_mask, columns, 0).amax(1)


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of which token has which number.

    Two models whose tokenizers have the same one read the same text from the same numbers.
    """
    entries = sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0]))
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def reading(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what decides which tokens a prompt and its response become.

    That is the vocabulary and the chat template, and how an example is cut into tokens.
    """
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    example = prompt_tokens(tokenizer, [SOME_TEXT]) + response_tokens(tokenizer, [SOME_TEXT])
    return hashlib.sha256(
        json.dumps([vocabulary(tokenizer), template, example]).encode()
    ).hexdigest()


def _plain(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    # Not verbose: of a long prompt it would say that it leads to errors; here it is refused.
    tokens: list[int] = tokenizer(prompt, verbose=False)["input_ids"]
    # Some tokenizers end every text: a response would follow after the end.
    own: list[int] = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    if tokens[-1:] == [tokenizer.eos_token_id] and own[-1:] != tokens[-1:]:
        tokens = tokens[:-1]
    return tokens


def _refuse_controls(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> None:
    # One would be a single token to the model, and could end the user's message.
    controls = list(control_tokens(tokenizer).values())
    for prompt in prompts:
        found = next((control for control in controls if control in prompt), None)
        if found is not None:
            raise InputError(
                f"prompt {prompt[:SHOWN]!r}: contains {found!r}, a control token of the chat "
                "template; remove it"
            )


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    # The first control token that the chat template writes after an answer.
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SOME_ANSWER}]
    try:
        text = _rendered(tokenizer, messages, _undated(tokenizer.get_chat_template()))
    except InputError:  # it takes no answers, and so ends none; prompts it is asked for as ever
        return None
    _, answer, after = text.rpartition(SOME_ANSWER)
    controls = control_tokens(tokenizer)
    tokens: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"] if answer else []
    return next((token for token in tokens if token in controls), None)


def _without_end(text: str, spelled: Collection[str]) -> str:
    # Some data ends with that of a turn and that of a text.
    while end := next((each for each in spelled if text.rstrip().endswith(each)), ""):
        text = text.rstrip().removesuffix(end)
    return text


def _templated(tokenizer: PreTrainedTokenizerBase, prompt: str, template: str) -> list[int]:
    messages = [{"role": "user", "content": prompt}]
    try:
        text = _rendered(tokenizer, messages, template, add_generation_prompt=True)
    except InputError as error:
        raise InputError(
            f"prompt {prompt[:SHOWN]!r}: the chat template cannot take it: {error}"
        ) from None
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    template: str,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Messages as the template writes them; InputError, with its own words, where it cannot."""
    try:
        text: Any = tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            enable_thinking=False,
        )
    except Exception as error:  # a template is a program of the model's makers: anything may fail
        raise InputError(first_line(error)) from None
    return str(text)


def _undated(template: str) -> str:
    return TODAY.sub(lambda call: repr(TEMPLATE_DATE.strftime(call[2])), template)
