"""A language model as a reward of texts: prompts and responses to standardised scores.

The score is read at the end token after the response, which is appended whenever a text is scored,
in the fit and later alike; the log-likelihood of the response may be part of it. Prompt and
response become tokens as in a language policy (imgalign/language/chat.py), and nothing is
truncated. The folder of a fitted reward has a contract with golden scores (contract.py). Left out:
fitting (text_fit.py).

Shapes: b = texts, L = tokens of the longest one, t = tokens of the longest response. A score is in
standard deviations of the scores of the training texts, 0 their mean.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.errors import InputError
from imgalign.language.chat import (
    SHOWN,
    Answered,
    AnsweredTokens,
    joined,
    last_position,
    padded_answers,
    padding_token,
    prompt_tokens,
    reading,
    vocabulary,
)
from imgalign.preferences.records import Samples
from reward_models.contract import (
    GoldenText,
    HeldOut,
    Scale,
    TextContract,
    TextOrigin,
    check_files,
    check_golden,
    library_versions,
    read_text_contract,
)
from reward_models.folder import load_weights, save_folder, save_weights
from reward_models.text_models import (
    ScalarModel,
    check_tokenizer,
    read_tokenizer,
    rebuilt,
    save_tokenizer,
)

LONGER_TEXT = "the longer text"
"""The baseline of rewards of texts: annotators often prefer length, and a reward should know more
than that."""

TEXTS_AT_ONCE = 32
"""Texts in one forward pass of `score`."""


class TextReward(nn.Module):
    """Scores texts for prompts; implements the RewardModel protocol."""

    def __init__(
        self,
        model: ScalarModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        context_length: int,
        scale: Scale | None = None,
        log_tie: Sequence[float] = (),
        held_out: HeldOut | None = None,
        origin: TextOrigin | None = None,
    ) -> None:
        super().__init__()
        check_tokenizer(tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.scale = scale or Scale()
        self.log_tie = tuple(log_tie)
        self.held_out = held_out
        self.origin = origin

    def score(self, *, prompts: Sequence[str], samples: Sequence[str]) -> Float[Tensor, " b"]:
        """Standardised score of each text for its prompt.

        InputError for an empty prompt, for prompt and text that are together longer than the
        context, and for another number of prompts than texts.
        """
        if not len(samples) or isinstance(samples, str):
            raise InputError(f"score: expected a list of texts, got {samples!r:.40}")
        rows = self.rows(prompts, samples)
        parts = [
            utilities(self.model, self.padded(rows[start : start + TEXTS_AT_ONCE]))
            for start in range(0, len(rows), TEXTS_AT_ONCE)
        ]
        return (torch.cat(parts) - self.scale.mean) / self.scale.std

    def rows(self, prompts: Sequence[str], samples: Sequence[str]) -> list[Answered]:
        """Tokens of each prompt with its text and the end token; InputError as of `score`."""
        return joined(self.tokenizer, prompts, samples, context_length=self.context_length)

    def padded(self, rows: Sequence[Answered]) -> AnsweredTokens:
        """Rows of tokens as a batch."""
        return padded_answers(rows, side="right", fill=padding_token(self.tokenizer))

    @property
    def samples(self) -> Samples:
        """What it scores."""
        return "texts"

    @property
    def baseline_name(self) -> str:
        """What `baseline` is, for a report."""
        return LONGER_TEXT

    def baseline(self) -> "LengthReward":
        """Prefers the longer text."""
        return LengthReward()

    def critic(self) -> "TextCritic":
        """A value estimator that starts as this reward; it shares no weights with it."""
        return TextCritic(
            copy.deepcopy(self.model).requires_grad_(True),
            reading=reading(self.tokenizer),
            scale=self.scale,
        )

    @property
    def reading(self) -> str:
        """Fingerprint of its tokenizer and chat template."""
        return reading(self.tokenizer)

    def refuse_long(self, prompts: Sequence[str], *, length: int) -> None:
        """InputError for the first prompt that leaves no room for a text of `length` tokens."""
        for prompt, row in zip(prompts, prompt_tokens(self.tokenizer, prompts), strict=True):
            if len(row) + length > self.context_length:
                raise InputError(
                    f"prompt {prompt[:SHOWN]!r} has {len(row)} tokens, and it reads "
                    f"{self.context_length}, of which a text may take {length}"
                )

    def unread(self, prompts: Sequence[str], samples: Sequence[str]) -> list[str]:
        """Why each text cannot be scored for its prompt; empty for those that can."""
        reasons = []
        for prompt, text in zip(prompts, samples, strict=True):
            try:
                self.rows([prompt], [text])
            except InputError as error:
                reasons.append(str(error))
            else:
                reasons.append("")
        return reasons

    @classmethod
    def from_pretrained(cls, folder: Path) -> "TextReward":
        """The reward saved in `folder`, frozen, on the CPU, its golden scores recomputed.

        CheckpointError where something is missing or does not fit, or a score drifted.
        """
        contract = read_text_contract(folder)
        check_files(contract, folder)
        reward = cls(
            rebuilt(contract, folder),
            read_tokenizer(contract, folder),
            context_length=contract.context_length,
            scale=contract.scale,
            log_tie=contract.log_tie,
            held_out=contract.held_out,
            origin=contract.origin,
        )
        load_weights(reward, folder)
        reward.requires_grad_(False).eval()
        check_golden(contract, reward.score_golden(contract.golden), folder=folder)
        return reward

    def save(
        self,
        folder: Path,
        *,
        golden: Sequence[tuple[str, str]],
        data_hash: str = "",
        metrics: Mapping[str, float] | None = None,
        beside: Callable[[Path], None] = lambda _: None,
    ) -> TextContract:
        """Write weights, contract, tokenizer and what `beside` adds, atomically.

        `golden`: prompts and texts whose scores are recomputed at each load. An earlier reward
        model in `folder` is replaced; InputError where something else is there. Scores on the CPU,
        whatever the device of the weights.
        """
        assert golden, "a contract without golden scores proves nothing"

        def write(unfinished: Path) -> TextContract:
            save_weights(self, unfinished)
            save_tokenizer(self.tokenizer, unfinished)
            records = [GoldenText(prompt=prompt, text=text, score=0.0) for prompt, text in golden]
            scored = zip(records, self.score_golden(records), strict=True)
            return TextContract(
                kind="texts",
                backbone=self.model.settings,
                context_length=self.context_length,
                vocabulary=vocabulary(self.tokenizer),
                likelihood=self.model.with_likelihood,
                scale=self.scale,
                log_tie=self.log_tie,
                held_out=self.held_out,
                origin=self.origin,
                golden=tuple(each.model_copy(update={"score": s}) for each, s in scored),
                libraries=library_versions(),
                data_hash=data_hash,
                metrics=dict(metrics or {}),
            )

        device = self.device
        try:
            self.cpu()
            return save_folder(folder, write, beside=beside)
        finally:
            self.to(device)

    @torch.no_grad()
    def score_golden(self, golden: Sequence[GoldenText]) -> list[float]:
        """Scores of texts one by one, so that padding cannot change them."""
        return [float(self.score(prompts=[each.prompt], samples=[each.text])) for each in golden]

    @property
    def device(self) -> torch.device:
        """Where scores are computed."""
        return self.model.head.weight.device


class TextCritic(nn.Module):
    """Predicts the score of a response at each of its tokens; starts as a reward of texts."""

    def __init__(self, model: ScalarModel, *, reading: str, scale: Scale) -> None:
        super().__init__()
        self.model = model
        self.reading = reading
        """Fingerprint of tokenizer and chat template whose tokens it reads; others mean nothing."""
        self.scale = scale

    def forward(self, features: Mapping[str, Tensor], *, steps: int) -> Float[Tensor, "b {steps}"]:
        """The value before each of so many tokens of the responses, in the unit of the scores.

        `features`: `input_ids` and `attention_mask` [b L], prompts padded on the left and responses
        on the right, and `first_state`, the column of the last token of the prompts. The value of
        step n is that of the state in which token n is chosen, so it is read one column earlier, in
        column first_state + n, and depends on the prompt and on tokens 0 .. n-1 alone. There are at
        most L - first_state - 1 steps; the last token of a response, its end, is the action of the
        last step, and the state after it has a score and no value.
        """
        first = int(features["first_state"])
        read = slice(first + steps)  # the next column holds the action of the last step
        tokens, there = (features[name][:, read] for name in ("input_ids", "attention_mask"))
        columns = torch.arange(tokens.shape[1], device=there.device)
        values = self.model(tokens, there, there & (columns > first))
        standardised: Tensor = (values[:, first:] - self.scale.mean) / self.scale.std
        return standardised


class LengthReward:
    """Scores a text by its number of characters, whatever the prompt."""

    def score(self, *, prompts: Sequence[str], samples: Sequence[str]) -> Float[Tensor, " b"]:
        """The number of characters of each text."""
        return torch.tensor([float(len(sample)) for sample in samples])


def utilities(model: ScalarModel, tokens: AnsweredTokens) -> Float[Tensor, " b"]:
    """The number at the last token of each text, before standardisation.

    Differences are the fit's log-odds. The last token is the end token, found by the mask: padding
    may be on either side, and may be the end token itself.
    """
    values: Tensor = model(tokens.input_ids, tokens.attention_mask, tokens.responses)
    last = last_position(tokens.attention_mask).to(values.device)
    return values.gather(1, last[:, None]).squeeze(1)
