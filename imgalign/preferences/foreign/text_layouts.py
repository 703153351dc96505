"""What the rows of tables of texts mean, by the names of their columns, which are TRL's.

    prompt, chosen, rejected            one pair
    chosen, rejected                    one pair; each is a conversation that begins with the prompt
    prompt, completions, ranks          any number of texts; the lowest rank is best
    prompt, completion, label           one answer, and whether somebody liked it
    messages, label                     the same as a conversation
    prompt, completion                  one answer; `label` may be there or not
    messages                            one answer, as a conversation
    prompt, completions                 any number of answers that are not ranked yet

Texts are taken to be finished. A row of one answer whose `finish_reason` is "length", as servers of
language models say of a text that was cut, is left out.

A text is plain, or a conversation, a list of {"role": ..., "content": ...}, of one message of the
user and one of the assistant. Spaces and line breaks are kept. Pure functions of values; left out:
files.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from imgalign.errors import InputError
from imgalign.preferences.foreign.records import (
    Completion,
    Reason,
    TextRanking,
    WrittenTexts,
)
from imgalign.preferences.foreign.table_layouts import (
    LARGEST_RANKING,
    UnusableError,
    judged,
    ranked_list,
    weight_of,
)
from imgalign.preferences.records import ELSEWHERE, UNKNOWN, UNKNOWN_NUMBER, TextProvenance
from imgalign.preferences.schema import text_provenances
from imgalign.preferences.validation import column

LARGEST_TEXT = 2**18
"""Characters."""
RANKING_OPTIONS = ("all_bad", "weight")
COMPLETION_OPTIONS = ("label", "weight", "finish_reason")
LABELLED_OPTIONS = ("weight", "finish_reason")
CUT = "length"
"""The `finish_reason` of servers for a text that was cut before its end."""
WRITING_OPTIONS = ("model", "adapter", "seed", "temperature", "max_new_tokens")
NOT_TOLD: Mapping[str, Any] = {
    "model": UNKNOWN,
    "seed": UNKNOWN_NUMBER,
    "temperature": float(UNKNOWN_NUMBER),
    "max_new_tokens": UNKNOWN_NUMBER,
}
Values: TypeAlias = Mapping[str, Any]


def _pair(values: Values) -> TextRanking:
    prompt = _prompt(values["prompt"])
    texts = tuple(_answer(values[name], name, prompt) for name in ("chosen", "rejected"))
    return _ranking(prompt, texts, (0, 1), values)


def _conversations(values: Values) -> TextRanking:
    turns = [_turns(values[name], name) for name in ("chosen", "rejected")]
    if turns[0][0] != turns[1][0]:
        raise UnusableError("unusable row", "chosen and rejected begin with different prompts")
    return _ranking(turns[0][0], tuple(answer for _, answer in turns), (0, 1), values)


def _list(values: Values) -> TextRanking:
    prompt = _prompt(values["prompt"])
    found, ranks = ranked_list("completions", values)
    texts = tuple(_answer(each, "completions", prompt) for each in found)
    return _ranking(prompt, texts, ranks, values)


def _ranking(
    prompt: str, texts: tuple[str, ...], ranks: tuple[int, ...], values: Values
) -> TextRanking:
    if len(set(texts)) < len(texts):
        raise UnusableError("equal texts", "")
    ranks, all_bad = judged(ranks, values)
    if len(texts) < 2 or (sum(rank >= 0 for rank in ranks) < 2 and not all_bad):
        raise UnusableError("unusable row", "fewer than two ranked texts")
    return TextRanking(
        prompt=prompt, texts=texts, ranks=ranks, all_bad=all_bad, weight=weight_of(values)
    )


def _completion(values: Values) -> Completion:
    prompt = _prompt(values["prompt"])
    return _labelled(prompt, _answer(values["completion"], "completion", prompt), values)


def _messages(values: Values) -> Completion:
    return _labelled(*_turns(values["messages"], "messages"), values)


def _labelled(prompt: str, text: str, values: Values) -> Completion:
    label = values.get("label")
    if label not in (None, True, False):  # 1 and 0 are equal to these
        raise UnusableError("no label", f"label is {label!r:.40}, expected true or false")
    if values.get("finish_reason") == CUT:
        raise UnusableError("cut", f"finish_reason is {CUT!r}, so it has no end to learn")
    liked = None if label is None else bool(label)
    return Completion(prompt=prompt, text=text, liked=liked, weight=weight_of(values))


def _one_written(values: Values) -> WrittenTexts:
    prompt = _prompt(values["prompt"])
    return _written(prompt, (_answer(values["completion"], "completion", prompt),), values)


def _said(values: Values) -> WrittenTexts:
    prompt, answer = _turns(values["messages"], "messages")
    return _written(prompt, (answer,), values)


def _several(values: Values) -> WrittenTexts:
    prompt, found = _prompt(values["prompt"]), values["completions"]
    if not isinstance(found, list) or not 0 < len(found) <= LARGEST_RANKING:
        shown = f"{len(found)} of them" if isinstance(found, list) else f"{found!r:.40}"
        detail = f"completions: expected a list of 1 to {LARGEST_RANKING}, got {shown}"
        raise UnusableError("unusable row", detail)
    texts = tuple(_answer(each, "completions", prompt) for each in found)
    return _written(prompt, texts, values)


def _written(prompt: str, texts: tuple[str, ...], values: Values) -> WrittenTexts:
    """Texts made elsewhere, with what their row tells of how they were."""
    told = {name: values[name] for name in WRITING_OPTIONS if values.get(name) is not None}
    try:
        known = {name: column(text_provenances.c[name], value) for name, value in told.items()}
    except InputError as error:
        raise UnusableError("unusable row", str(error)) from None
    facts = {**NOT_TOLD, "prompt": prompt, **known}
    provenance = TextProvenance(dtype=UNKNOWN, imgalign_version=ELSEWHERE, **facts)
    return WrittenTexts(prompt=prompt, texts=texts, provenance=provenance)


def _prompt(value: Any) -> str:
    """A prompt, from text or from a conversation of the user's message alone."""
    if not isinstance(value, list):
        return _text(value, "no prompt", "prompt")
    (content,) = _messages_of(value, ("user",), "prompt")
    return content


def _answer(value: Any, column: str, prompt: str) -> str:
    """An answer, from text or from a conversation that may repeat the prompt before it."""
    if not isinstance(value, list):
        return _text(value, "no text", column)
    if len(value) < 2:
        (content,) = _messages_of(value, ("assistant",), column)
        return content
    first, content = _turns(value, column)
    if first != prompt:
        raise UnusableError("unusable row", f"{column} begins with another prompt")
    return content


def _turns(value: Any, column: str) -> tuple[str, str]:
    """Prompt and answer, from a conversation of one message each."""
    if not isinstance(value, list):
        raise UnusableError("unusable row", f"{column} is no conversation, and there is no prompt")
    prompt, answer = _messages_of(value, ("user", "assistant"), column)
    return prompt, answer


def _messages_of(value: list[Any], roles: tuple[str, ...], column: str) -> list[str]:
    """What is said in a conversation of messages of these roles."""
    messages = [each for each in value if isinstance(each, dict)]
    if len(messages) < len(value) or not value:
        raise UnusableError("unusable row", f"{column}: expected messages with role and content")
    found = tuple(str(each.get("role")) for each in messages)
    if len(found) > len(roles):
        raise UnusableError("several turns", f"{column}: {', '.join(found):.60}")
    if found != roles:
        detail = f"{column}: expected {' and '.join(roles)}, got {', '.join(found):.60}"
        raise UnusableError("unusable row", detail)
    return [
        _text(each.get("content"), "no prompt" if role == "user" else "no text", column)
        for each, role in zip(messages, roles, strict=True)
    ]


def _text(value: Any, reason: Reason, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UnusableError(reason, f"{column} is {value!r:.40}")
    if len(value) > LARGEST_TEXT:
        raise UnusableError("too large", f"{column}: over {LARGEST_TEXT} characters")
    return value


RANKINGS: Mapping[tuple[str, ...], Callable[[Values], TextRanking]] = {
    ("prompt", "chosen", "rejected"): _pair,
    ("prompt", "completions", "ranks"): _list,
    ("chosen", "rejected"): _conversations,
}
COMPLETIONS: Mapping[tuple[str, ...], Callable[[Values], Completion]] = {
    ("prompt", "completion"): _completion,
    ("messages",): _messages,
}
LABELLED: Mapping[tuple[str, ...], Callable[[Values], Completion]] = {
    (*columns, "label"): read for columns, read in COMPLETIONS.items()
}
WRITINGS: Mapping[tuple[str, ...], Callable[[Values], WrittenTexts]] = {
    ("prompt", "completions"): _several,
    ("prompt", "completion"): _one_written,
    ("messages",): _said,
}
