"""Rewrites of prompts by a language model that keep every locked word.

The model is asked several times for each prompt. What it says is made one line, equal texts are
merged, and a text that lacks a locked word, has no end, or is longer than the image model reads is
left out and counted. Where none is left, the prompt stays as it is. Left out: which words are
locked (locking.py), and how rewrites are shown.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field, PositiveInt, field_validator

from imgalign.config import Config, read_mapping
from imgalign.environment import DType, choose_device, choose_dtype
from imgalign.errors import CheckpointError, InputError, NumericsError
from imgalign.language.chat import prompt_tokens
from imgalign.language.differences import Part, word_difference
from imgalign.language.loading import LanguageModel, load_language_model
from imgalign.language.locking import Lock, folded, locked_words, lost_words
from imgalign.language.scoring import network_of
from imgalign.language.token_reward import unread
from imgalign.language.weights import switch_on
from imgalign.policy import RewardModel, Texts
from imgalign.prompts import is_control
from imgalign.runs.folder import CONFIG, model_under, run_of
from imgalign.runs.trained import LANGUAGE_ADAPTER, find_weights

PLACE = "{prompt}"
"""Where the prompt stands in a template."""
QUOTES = ('""', "''", "\u201c\u201d", "\u00ab\u00bb", "``")
LENGTH = 64
"""Tokens of a rewrite where nothing says otherwise."""
LARGEST_BATCH = 32
"""Texts that are written at once."""
SHOWN = 60
"""Characters of a prompt in a message."""

Reason: TypeAlias = Literal[
    "lost a word", "has no end", "is too long", "is too long for the reward", "is empty"
]


class RewritingConfig(Config):
    """How a language model is asked for rewrites."""

    tries: PositiveInt = 8
    """Rewrites of each prompt that are sampled."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.7
    """Logits are divided by it; lower is more alike. At 1, as in training, rarer words are tried,
    and more of the tries lose a word."""

    max_new_tokens: Annotated[int, Field(ge=2)] | None = None
    """Tokens of a rewrite, its end included; one that has not ended by then is left out. Null is
    what the run samples with, 64 for a model from elsewhere."""

    template: str = PLACE
    """What the model is asked, with {prompt} in the place of the prompt. A model that was trained
    on prompts alone, as here, is asked the prompt; Promptist (arXiv:2212.09611) is asked
    "{prompt} Rephrase:", and an assistant is given an instruction."""

    appends: bool = False
    """Whether the model's answer goes on where the prompt ends, as that of models for prompt
    expansion does, instead of taking its place."""

    @field_validator("template")
    @classmethod
    def _has_a_place_for_the_prompt(cls, template: str) -> str:
        if template.count(PLACE) != 1:
            raise ValueError(f"expected {PLACE} in it, once")
        return template


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A rewrite that keeps every locked word."""

    text: str
    seeds: tuple[int, ...]
    """Those whose texts are this one, up to case and spaces."""
    reward: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A text that is not offered. Example: reason "lost a word", detail ("red",)."""

    text: str
    seeds: tuple[int, ...]
    reason: Reason
    detail: tuple[str, ...] = ()
    """The words that it lost, or its end that the image model would not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """The rewrites of one prompt."""

    prompt: str
    locked: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    """In the order of their first seeds, the prompt itself last if it is among them; with rewards
    the best first."""
    left_out: tuple[LeftOut, ...]
    tries: int
    prompt_reward: float | None = None
    """Of the prompt as it is, where rewrites have one."""
    unread: str = ""
    """The end of the prompt itself that the image model does not read."""

    @property
    def text(self) -> str:
        """The first candidate; the prompt where there is none."""
        return self.candidates[0].text if self.candidates else self.prompt

    @property
    def changed(self) -> bool:
        """Whether it is another text than the prompt."""
        return self.text != self.prompt

    @property
    def difference(self) -> tuple[Part, ...]:
        """What changed, word by word."""
        return word_difference(self.prompt, self.text)

    def lines(self) -> list[str]:
        """What became of the tries, as text."""
        kept = sum(len(each.seeds) for each in self.candidates)
        different = len(self.candidates)
        merged = "" if different == kept else f", of which {different} are different"
        said = f"{kept} of {self.tries} tries"
        if self.locked:
            lines = [f"{said} keep {', '.join(self.locked)}{merged}"]
        else:
            lines = [f"{said} are usable{merged}; no word is locked"]
        if self.left_out:
            lines.append(f"left out: {', '.join(self._counts())}")
        if not self.candidates:
            lines.append("the prompt stays as it is; ask more often, or lock fewer words")
        elif not self.changed:
            lines.append("the rewrite is the prompt itself")
        if self.prompt_reward is not None and self.candidates:
            best = self.candidates[0].reward
            lines.append(f"reward {best:+.4f}, of the prompt as it is {self.prompt_reward:+.4f}")
        if self.unread and not self.changed:
            lines.append(f"the image model does not read the end of it: {self.unread!r}")
        return lines

    def _counts(self) -> list[str]:
        counts = Counter[Reason]()
        for each in self.left_out:
            counts[each.reason] += len(each.seeds)
        without = [each for each in self.left_out if each.reason == "lost a word"]
        lost = Counter(word for each in without for word in each.detail * len(each.seeds))
        words = ", ".join(f"{word}: {number}" for word, number in lost.most_common(5))
        return [
            f"{number} {SAID[reason]}{f' ({words})' if reason == 'lost a word' else ''}"
            for reason, number in counts.items()
        ]


SAID: Mapping[Reason, str] = {
    "lost a word": "without a locked word",
    "has no end": "without an end",
    "is too long": "longer than the image model reads",
    "is too long for the reward": "longer than the reward reads",
    "is empty": "empty",
}


class Rewriter:
    """A language model in memory that rewrites prompts."""

    def __init__(self, loaded: LanguageModel, config: RewritingConfig | None = None) -> None:
        self.loaded = loaded
        asked = config or RewritingConfig()
        length = asked.max_new_tokens or LENGTH
        self.config = asked.model_copy(update={"max_new_tokens": length})
        loaded.model.requires_grad_(False)
        self.network = network_of(loaded)

    def rewrite(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        lock: Lock = "content",
        unread: Callable[[str], str] | None = None,
        reward: RewardModel[Texts] | None = None,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> list[Rewrite]:
        """The rewrites of each prompt, a function of the prompt and of the seed.

        Try number n of every prompt has the seed `seed` + n. `unread` gives the end of a text that
        the image model does not read; a text that has one is left out. With a `reward` the best
        candidate is the first. InputError for a prompt that is empty or leaves no room for a
        rewrite, NumericsError for a reward that is not finite.
        """
        self._refuse_long(prompts)
        tries = self.config.tries
        asked = [(prompt, seed + number) for prompt in prompts for number in range(tries)]
        texts: list[str | None] = []
        for start in range(0, len(asked), LARGEST_BATCH):
            on_progress(start / len(asked))
            texts += self._written(asked[start : start + LARGEST_BATCH])
        on_progress(1.0)
        rewrites = [
            sifted(
                prompt,
                {seed + number: texts[place * tries + number] for number in range(tries)},
                locked=locked_words(prompt, lock),
                unread=unread,
            )
            for place, prompt in enumerate(prompts)
        ]
        return rewrites if reward is None else [best_first(each, reward) for each in rewrites]

    @property
    def length(self) -> int:
        """Tokens that a rewrite may take."""
        assert self.config.max_new_tokens is not None
        return self.config.max_new_tokens

    def _refuse_long(self, prompts: Sequence[str]) -> None:
        context, length = self.loaded.context_length, self.length
        for prompt, row in zip(prompts, self._tokens(prompts), strict=True):
            if len(row) + length > context:
                raise InputError(
                    f"prompt {prompt[:SHOWN]!r}: has {len(row)} tokens, and the rewriter reads "
                    f"{context}, of which a rewrite may take {length}; shorten the prompt, or "
                    "the rewrites by --max-new-tokens"
                )

    def _tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        asked = [self.config.template.replace(PLACE, prompt) for prompt in prompts]
        return prompt_tokens(self.loaded.tokenizer, asked)

    def _written(self, asked: Sequence[tuple[str, int]]) -> list[str | None]:
        """A text for each prompt and seed; None where it did not end."""
        tokens, mask = self.network.sample(
            self._tokens([prompt for prompt, _ in asked]),
            seeds=[seed for _, seed in asked],
            length=self.length,
            temperature=self.config.temperature,
        )
        texts: list[str | None] = []
        for (prompt, _), row, there in zip(asked, tokens.tolist(), mask.tolist(), strict=True):
            said = [token for token, is_there in zip(row, there, strict=True) if is_there]
            if not said or said[-1] not in self.network.ends:
                texts.append(None)
                continue
            answer = self.loaded.tokenizer.decode(
                said[:-1], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            assert isinstance(answer, str)
            texts.append(continued(prompt, answer) if self.config.appends else tidied(answer))
        return texts


def load_rewriter(
    name: str,
    config: RewritingConfig | None = None,
    *,
    device: str = "auto",
    dtype: DType = "auto",
) -> Rewriter:
    """A rewriter by "storybook", a folder, a hub id, or a run or checkpoint of a language model.

    InputError, in one line, where there is no such model.
    """
    place = choose_device(device)
    number_type, path = choose_dtype(dtype, place), Path(name).expanduser()
    try:
        found = find_weights(path) if path.is_dir() else path
    except CheckpointError:
        found = path
    run, asked = run_of(found) if path.is_dir() else None, config or RewritingConfig()
    if asked.max_new_tokens is None and run is not None:
        length = read_mapping(run / CONFIG)["policy"].get("max_new_tokens")
        asked = asked.model_copy(update={"max_new_tokens": length})
    if not (found / LANGUAGE_ADAPTER).is_file():
        return Rewriter(load_language_model(name, device=place, dtype=number_type), asked)
    if run is None:
        raise InputError(
            f"model: {name!r} has a LoRA that belongs to no run, so its model is unknown; merge it "
            "into its model, and name that folder"
        )
    loaded = load_language_model(model_under(found), device=place, dtype=number_type)
    switch_on(loaded.model, found)
    return Rewriter(loaded, asked)


def sifted(
    prompt: str,
    texts: Mapping[int, str | None],
    *,
    locked: Sequence[str],
    unread: Callable[[str], str] | None = None,
) -> Rewrite:
    """Texts by seed, as candidates and as what is left out; equal ones are merged.

    None is a text without an end.
    """
    seeds: dict[str | None, list[int]] = {}
    first: dict[str | None, str] = {}
    for seed, text in texts.items():
        key = None if text is None else folded(text)
        first.setdefault(key, text or "")
        seeds.setdefault(key, []).append(seed)
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for key, text in first.items():
        own = tuple(seeds[key])
        lost = lost_words(locked, text)
        beyond = unread(text) if unread is not None and text and not lost else ""
        reason: Reason | None = None
        if key is None:
            reason, lost = "has no end", ()
        elif not text:
            reason, lost = "is empty", ()
        elif lost:
            reason = "lost a word"
        elif beyond:
            reason, lost = "is too long", (beyond,)
        if reason is None:
            candidates.append(Candidate(text=text, seeds=own))
        else:
            left_out.append(LeftOut(text=text, seeds=own, reason=reason, detail=lost))
    same = folded(tidied(prompt))
    return Rewrite(
        prompt=prompt,
        locked=tuple(locked),
        candidates=tuple(sorted(candidates, key=lambda each: folded(each.text) == same)),
        left_out=tuple(left_out),
        tries=len(texts),
        unread="" if unread is None else unread(prompt),
    )


def best_first(rewrite: Rewrite, reward: RewardModel[Texts]) -> Rewrite:
    """The candidates by their rewards for the prompt, which has one too.

    Those that are longer than the reward reads are left out; if it is the prompt, it has none.
    """
    texts = [rewrite.prompt, *(each.text for each in rewrite.candidates)]
    reasons = unread(reward, [rewrite.prompt] * len(texts), texts)
    read = [text for text, reason in zip(texts, reasons, strict=True) if not reason]
    scores: dict[str, float] = {}
    if read:
        with torch.no_grad():
            found = reward.score(prompts=[rewrite.prompt] * len(read), samples=read)
        if not found.isfinite().all():
            shown = rewrite.prompt[:SHOWN]
            raise NumericsError(f"reward: a rewrite of {shown!r} has no finite score")
        scores = dict(zip(read, found.tolist(), strict=True))
    scored = [
        dataclasses.replace(each, reward=scores[each.text])
        for each in rewrite.candidates
        if each.text in scores
    ]
    beyond = [
        LeftOut(text=each.text, seeds=each.seeds, reason="is too long for the reward")
        for each in rewrite.candidates
        if each.text not in scores
    ]
    return dataclasses.replace(
        rewrite,
        candidates=tuple(sorted(scored, key=lambda each: -(each.reward or 0.0))),
        left_out=(*rewrite.left_out, *beyond),
        prompt_reward=scores.get(rewrite.prompt),
    )


def tidied(text: str) -> str:
    """A text in one line without control characters, and without quotation marks around it all."""
    line = " ".join("".join(" " if is_control(each) else each for each in text).split())
    if len(line) > 1 and line[0] + line[-1] in QUOTES and line[0] not in line[1:-1]:
        return line[1:-1].strip()
    return line


def continued(prompt: str, text: str) -> str:
    """A prompt and what goes on where it ends, in one line."""
    follows = text[:1].isspace() or tidied(text)[:1] in (*",.;:!?)",)
    return tidied(f"{prompt}{'' if follows else ' '}{text}")
