"""A causal language model as a policy: tokens are actions.

Left out: settings (config.py), tokens of texts (chat.py), what a network makes of them
(scoring.py), what is trained (weights.py), every algorithm.

Shapes: b = texts, t = tokens of a response, s = chosen steps, d = features.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Categorical, Distribution

from imgalign.errors import InputError
from imgalign.language.chat import (
    prompt_tokens,
    reading,
    refuse_long,
    response_texts,
    response_tokens,
)
from imgalign.language.config import FullLanguageConfig, LoraLanguageConfig
from imgalign.language.loading import LanguageModel
from imgalign.language.planned import refuse_long_prompts
from imgalign.language.recomputing import recompute_layers
from imgalign.language.scoring import network_of, token_log_probs
from imgalign.language.weights import LanguageWeights, adapter_from, fresh_adapter
from imgalign.policy import (
    Check,
    Data,
    Draws,
    LogProb,
    Steps,
    Texts,
    Trajectory,
    concatenate,
)
from imgalign.runs.weights import HoldsWeights, TrainedWeights
from imgalign.runs.world import outside_passes

DEFAULT_RANK = 16

MOST_SAID = 160
"""Characters of another program's error in a message."""
CACHE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""How far apart, in nats, a token's log-probability may be with and without a cache."""


class LanguagePolicy(HoldsWeights):
    """A language model whose trained weights start as its reference; implements `Policy`.

    The model belongs to the policy from then on. `seed` decides the weights of a fresh adapter.
    `dtype` is what the network computes in, by default what its weights are in. ConfigError for
    layers that cannot be adapted, and for an adapter that cannot be started from.
    """

    default_clip_nats = 0.2
    """The usual clip of the ratio of a token, 1 +- 0.2."""

    encoding = None
    """Nothing is kept of texts: their tokens are found in no time."""

    def __init__(
        self,
        loaded: LanguageModel,
        config: LoraLanguageConfig | FullLanguageConfig,
        *,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.config = config
        self.tokenizer = loaded.tokenizer
        self.context_length = loaded.context_length
        model: Any = loaded.model.requires_grad_(False)
        self.network = network_of(loaded, dtype=dtype)
        self.weights = self._initial_weights(seed)
        # Dropout would make sampling and re-scoring disagree; nothing else depends on this.
        model.eval()
        if config.gradient_checkpointing:
            recompute_layers(model, setting="policy.gradient_checkpointing")

    def _initial_weights(self, seed: int) -> TrainedWeights:
        config, model = self.config, self.network.model
        if isinstance(config, FullLanguageConfig):
            return LanguageWeights(model, self.tokenizer)
        if config.adapter is not None:
            return adapter_from(
                model,
                Path(config.adapter),
                rank=config.lora_rank,
                alpha=config.lora_alpha,
                target_modules=config.target_modules,
            )
        rank = config.lora_rank or DEFAULT_RANK
        return fresh_adapter(
            model,
            rank=rank,
            alpha=config.lora_alpha or rank,
            target_modules=config.target_modules,
            seed=seed,
        )

    averages_log_ratios = True
    """Texts differ in length, and their losses are usual by token."""

    @cached_property
    def reading(self) -> str:
        """A hash of what decides which tokens a text becomes."""
        return reading(self.tokenizer)

    @property
    def batch_size(self) -> int:
        """Texts in one forward pass of the network."""
        return self.config.batch_size

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        prompt_ids: Sequence[str] | None = None,
    ) -> Trajectory:
        """Write one response per prompt and seed, `batch_size` at a time.

        A seed gives the same text in any batch, up to rounding of the network. Log-probabilities
        are those of scoring, and not of generation with its cache, so that scoring again gives
        them back exactly. InputError for an empty prompt or one that leaves no room for a response.
        """
        ids = prompts if prompt_ids is None else prompt_ids
        assert len(prompts) == len(seeds) == len(ids) > 0
        size = self.config.batch_size
        batches = [slice(start, start + size) for start in range(0, len(prompts), size)]
        return concatenate(
            [self._sample(prompts[each], seeds=seeds[each], ids=ids[each]) for each in batches]
        )

    @torch.no_grad()
    def _sample(
        self, prompts: Sequence[str], *, seeds: Sequence[int], ids: Sequence[str]
    ) -> Trajectory:
        rows, config = self._prompt_tokens(prompts), self.config
        tokens, mask = self.network.sample(
            rows, seeds=seeds, length=config.max_new_tokens, temperature=config.temperature
        )
        steps = mask.any(dim=0).nonzero().squeeze(1).cpu()
        log_probs = torch.zeros(mask.shape, device=self.network.device)
        logits = self.network.logits(rows, tokens, mask, steps) / config.temperature
        # The base class, because `Categorical` gives its methods no types.
        where: Distribution = Categorical(logits=logits, validate_args=False)
        scored = where.log_prob(tokens[:, steps])
        log_probs[:, steps] = torch.where(mask[:, steps], scored, 0.0)
        return Trajectory(
            prompts=list(prompts),
            prompt_ids=list(ids),
            seeds=list(seeds),
            log_probs=log_probs,
            mask=mask,
            replay={"tokens": tokens},
        )

    def finished(self, trajectory: Trajectory) -> Bool[Tensor, " b"]:
        """Which responses ended, and were not cut at `max_new_tokens`."""
        return torch.tensor(self._read(trajectory)[1])

    def decode(self, trajectory: Trajectory) -> list[str]:
        """The responses as texts, without their end."""
        return self._read(trajectory)[0]

    def preview(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        """As `sample`: a text has no version without chance that users would prefer."""
        return self.decode(self.sample(prompts, seeds=seeds))

    def units(self, trajectory: Trajectory) -> list[Int[Tensor, " s"]]:
        """All steps at once: a text is scored in one forward pass."""
        return [torch.arange(self.config.max_new_tokens)]

    def step_distributions(self, trajectory: Trajectory, steps: Steps) -> Categorical:
        """The vocabulary at each chosen step, at the policy's temperature: batch shape [b s]."""
        logits = self.network.logits(
            self._prompt_tokens(trajectory.prompts),
            trajectory.replay["tokens"],
            trajectory.mask,
            self._indices(steps),
        )
        return Categorical(logits=logits / self.config.temperature, validate_args=False)

    def actions(self, trajectory: Trajectory, steps: Steps) -> Int[Tensor, "b s"]:
        """The tokens at these steps."""
        return trajectory.replay["tokens"][:, self._indices(steps)].to(self.network.device)

    @torch.no_grad()
    def features(self, trajectory: Trajectory, steps: Steps) -> Mapping[str, Tensor]:
        """What a value estimator may see.

        `prompt` [b d], the mean of a prompt's embeddings, and `timestep` [s], the share of a
        response before the step; and for a critic that reads: `input_ids` and `attention_mask`
        [b p + t], and `first_state`, the column whose next token is that of step 0.
        """
        rows = self._prompt_tokens(trajectory.prompts)
        prompts, there = self.network.prompts(rows)
        with outside_passes(self.network.model):
            embedded = self.network.model.get_input_embeddings()(prompts).float()
        weights = there[:, :, None].float()
        tokens, mask = trajectory.replay["tokens"], trajectory.mask
        return {
            "prompt": (embedded * weights).sum(dim=1) / weights.sum(dim=1),
            "timestep": self._indices(steps).float() / self.config.max_new_tokens,
            "input_ids": torch.cat([prompts, tokens.to(prompts.device)], dim=1),
            "attention_mask": torch.cat([there, mask.to(there.device)], dim=1),
            "first_state": torch.tensor(prompts.shape[1] - 1),
        }

    def encode(self, prompts: Sequence[str], samples: Texts) -> Data:
        """Responses as tokens, their end included.

        InputError for a response of more than `max_new_tokens`, and for one that does not fit into
        the model's context with its prompt.
        """
        rows, limit = response_tokens(self.tokenizer, samples), self.config.max_new_tokens
        for text, row in zip(samples, rows, strict=True):
            if len(row) > limit:
                raise InputError(
                    f"text {text[:40]!r}...: has {len(row)} tokens with its end, and"
                    f" policy.max_new_tokens is {limit}; raise that, or leave the text out"
                )
        lengths = [len(row) for row in self._prompt_tokens(prompts)]
        own = [len(row) for row in rows]
        refuse_long(prompts, lengths, own, context_length=self.context_length)
        tokens = torch.full((len(rows), limit), self.network.fill)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        length = torch.tensor([len(row) for row in rows])
        content = {"tokens": tokens, "length": length}
        return Data(prompts=list(prompts), prompt_ids=list(prompts), content=content)

    def given(self, trajectory: Trajectory) -> Data:
        """The responses; one that did not end stays without an end."""
        return Data(
            prompts=trajectory.prompts,
            prompt_ids=trajectory.prompt_ids,
            content={
                "tokens": trajectory.replay["tokens"].cpu(),
                "length": trajectory.mask.sum(dim=1).cpu(),
            },
        )

    def elements(self, data: Data) -> Float[Tensor, " b"]:
        """The tokens of each response."""
        return data.content["length"].float()

    def starting_noise(self, seeds: Sequence[int]) -> Mapping[str, Tensor]:
        """Nothing: a text is not made from noise."""
        return {}

    def draw(
        self, data: Data, *, seeds: Sequence[int], levels: Sequence[float] | None = None
    ) -> Draws:
        """Nothing is drawn: log-probabilities of texts are exact."""
        return Draws(levels=torch.zeros(len(data)), noise=torch.zeros(len(data), 0))

    def log_prob(self, data: Data, draws: Draws) -> LogProb:
        """Of each response with its end, summed over its tokens, at temperature 1."""
        tokens, length = data.content["tokens"], data.content["length"]
        mask = torch.arange(tokens.shape[1]) < length[:, None]
        steps = torch.arange(int(length.max()))
        logits = self.network.logits(self._prompt_tokens(data.prompts), tokens, mask, steps)
        each = token_log_probs(logits, tokens[:, steps])
        there = mask[:, steps].to(each.device)
        return LogProb(
            values=torch.where(there, each, 0.0).sum(dim=1),
            kind="exact",
            num_elements=self.config.max_new_tokens,
            counts=length.to(each),
        )

    def refuse_prompts(self, prompts: Sequence[str]) -> None:
        """InputError for prompts after which the context has no room for a response."""
        refuse_long_prompts(prompts, self.tokenizer, self.context_length, self.config)

    def checks(self) -> list[Check]:
        """Sampling, cached and padded, agrees with scoring; what is frozen stays so (rule 4)."""
        rows = self._prompt_tokens(["a", "a b c d e"])  # of two lengths: one is padded
        limit = CACHE_TOLERANCE[self.network.dtype]
        try:
            apart = self.network.disagreement(rows)
            measured = f"up to {apart:.2g} nats apart"
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            # What a model's own code cannot do, such as generating with a cache.
            apart, measured = math.inf, f"{type(error).__name__}: {error}"[:MOST_SAID]
        return [
            Check(
                name="sampling has the probabilities of scoring",
                measured=measured,
                expected=f"under {limit:g} nats apart",
                passed=apart < limit,
                cure="the model's cache or its padding is not understood; use policy.attention="
                "eager, or report the model",
            ),
            self.check_frozen([self.network.model]),
        ]

    def save(self, folder: Path) -> None:
        """Write what is trained, in the layout of peft, or of transformers for all weights.

        An adapter that it started from is written in the same way into reference/, what it
        remembers into remembered/.
        """
        self.weights.save(folder)

    def _read(self, trajectory: Trajectory) -> tuple[list[str], list[bool]]:
        tokens, ends = trajectory.replay["tokens"], self.network.ends
        return response_texts(self.tokenizer, tokens, trajectory.mask, ends=ends)

    def _prompt_tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        return prompt_tokens(self.tokenizer, prompts)

    def _indices(self, steps: Steps) -> Int[Tensor, " s"]:
        every = torch.arange(self.config.max_new_tokens)
        return every[steps] if isinstance(steps, slice) else steps.cpu()
