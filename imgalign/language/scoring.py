"""What a causal language model makes of the tokens of responses, and how it samples them.

Prompts are padded on the left and responses on the right, so the response of every row begins in
the same column. Left out: texts (chat.py), what is trained (weights.py).

Shapes: b = texts, p = tokens of the longest prompt, t = tokens of a response, s = chosen steps, v =
tokens of the vocabulary. Log-probabilities are in nats.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from transformers import DynamicCache

from imgalign.environment import computing_in
from imgalign.errors import NumericsError
from imgalign.language.chat import padded, padding_token, positions
from imgalign.language.loading import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A causal language model, and what it needs to be asked."""

    model: Any
    """Of transformers, with its language head."""
    fill: int
    """The token that stands where there is none."""
    ends: frozenset[int]
    """The tokens of which each ends a response."""
    dtype: torch.dtype
    """In which it computes."""

    @property
    def device(self) -> torch.device:
        """Where it is."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @cached_property
    def cache_name(self) -> str:
        """What the model calls its cache; the name has changed within transformers 5."""
        parameters = inspect.signature(type(self.model).forward).parameters
        return "cache" if "cache" in parameters else "past_key_values"

    def prompts(self, rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "b p"], Tensor]:
        """Prompts padded on the left, and where they have tokens."""
        tokens = padded(rows, side="left", fill=self.fill)
        return tokens.input_ids.to(self.device), tokens.attention_mask.to(self.device)

    def logits(
        self,
        prompts: Sequence[Sequence[int]],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
        steps: Int[Tensor, " s"],
    ) -> Float[Tensor, "b s v"]:
        """Float32 logits of the tokens at some steps, given the prompt and the tokens before.

        `mask` is where the responses have tokens. What comes after the last of these steps is not
        computed, and neither does it change anything.
        """
        input_ids, there = self.prompts(prompts)
        before = int(steps.max())  # tokens that any of these steps can see
        input_ids = torch.cat([input_ids, tokens[:, :before].to(self.device)], dim=1)
        there = torch.cat([there, mask[:, :before].to(self.device)], dim=1)
        first = input_ids.shape[1] - before - 1
        with computing_in(self.dtype, self.device):
            found = self.model(
                input_ids=input_ids,
                attention_mask=there.long(),
                position_ids=positions(there),
                use_cache=False,
                logits_to_keep=(first + steps).to(self.device),
            )
        logits: Tensor = found.logits.float()
        return logits

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        length: int,
        temperature: float,
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Responses of at most `length` tokens, and where they have tokens.

        Each row has a generator of its own on the CPU, from which it takes one number per token: a
        seed gives the same text in any batch, up to rounding of the network. NumericsError where
        the network gives numbers that are not finite.
        """
        generators = [Generator("cpu").manual_seed(seed) for seed in seeds]
        drawn = [torch.rand(length, generator=each, dtype=torch.float64) for each in generators]
        luck = torch.stack(drawn).to(self.device)
        tokens = torch.full((len(prompts), length), self.fill, device=self.device)
        mask = torch.zeros(len(prompts), length, dtype=torch.bool, device=self.device)
        ends = torch.tensor(sorted(self.ends), device=self.device)
        going = torch.ones(len(prompts), dtype=torch.bool, device=self.device)
        for step, logits in enumerate(self.responding(prompts, tokens, mask)):
            chosen = pick(logits / temperature, luck[:, step])
            tokens[:, step] = torch.where(going, chosen, self.fill)
            mask[:, step] = going
            going = going & ~torch.isin(chosen, ends)
            if not going.any():
                break
        return tokens, mask

    def responding(
        self,
        prompts: Sequence[Sequence[int]],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
    ) -> Iterator[Float[Tensor, "b v"]]:
        """Float32 logits of each next token, with a cache of what was read before.

        Who takes them writes the tokens of that step into `tokens`, and into `mask` where they are,
        before the next step is asked for.
        """
        fed, there = self.prompts(prompts)
        where, cache = positions(there), DynamicCache(config=self.model.config)
        for step in range(tokens.shape[1]):
            with computing_in(self.dtype, self.device):
                found = self.model(
                    input_ids=fed,
                    attention_mask=there.long(),
                    position_ids=where,
                    use_cache=True,
                    logits_to_keep=1,
                    **{self.cache_name: cache},
                )
            yield found.logits[:, -1].float()
            fed = tokens[:, step, None]
            there = torch.cat([there, mask[:, step, None]], dim=1)
            where = where[:, -1:] + 1

    @torch.no_grad()
    def disagreement(self, prompts: Sequence[Sequence[int]], *, length: int = 4) -> float:
        """How far log-probabilities in sampling are from those in scoring, in nats, at most.

        In sampling there is a cache; prompts of several lengths are padded, in sampling and in
        scoring, so texts are also scored one by one. Of the likeliest responses of some prompts;
        every token of the vocabulary counts.
        """
        tokens = torch.full((len(prompts), length), self.fill, device=self.device)
        mask = torch.ones(len(prompts), length, dtype=torch.bool, device=self.device)
        with_cache = []
        for step, logits in enumerate(self.responding(prompts, tokens, mask)):
            tokens[:, step] = logits.argmax(dim=1)
            with_cache.append(logits)
        every = torch.arange(length)
        together = self.logits(prompts, tokens, mask, every)
        alone = torch.cat(
            [
                self.logits([prompt], tokens[row : row + 1], mask[row : row + 1], every)
                for row, prompt in enumerate(prompts)
            ]
        )
        sampled, *scored = (
            each.log_softmax(2) for each in (torch.stack(with_cache, dim=1), together, alone)
        )
        return max((sampled - each).abs().max().item() for each in scored)


def network_of(loaded: LanguageModel, *, dtype: torch.dtype | None = None) -> Network:
    """Of a loaded model; `dtype` is by default what its weights are in."""
    model: Any = loaded.model
    return Network(
        model=model,
        fill=padding_token(loaded.tokenizer),
        ends=loaded.ends,
        dtype=model.dtype if dtype is None else dtype,
    )


def pick(logits: Float[Tensor, "b v"], luck: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """A token of each row by inverting the cumulative distribution at a number in [0, 1).

    In float64, since float32 cannot tell the tokens of a large vocabulary apart near 1.
    """
    chances = torch.softmax(logits.double(), dim=-1)
    if not chances.isfinite().all():
        raise NumericsError("sampling: the network gave numbers that are not finite")
    reached = chances.cumsum(dim=-1)
    # Never beyond the last token that can come, whatever rounding does to the sum.
    drawn = torch.searchsorted(reached, (luck * reached[:, -1])[:, None], right=True).squeeze(1)
    return drawn.clamp(max=logits.shape[1] - 1)


def token_log_probs(
    logits: Float[Tensor, "b s v"], tokens: Int[Tensor, "b s"]
) -> Float[Tensor, "b s"]:
    """Log-probability of each token under its logits."""
    chosen = logits.gather(2, tokens[:, :, None].to(logits.device)).squeeze(2)
    return chosen - logits.logsumexp(dim=2)
