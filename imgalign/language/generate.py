"""Texts from prompts, with a language model or what a run trained, and where each came from.

A seed gives a text from the same random numbers with and without trained weights, so that two texts
of one seed can be compared. Left out: ranking and storing what comes out, and rewrites that keep
words (rewriting.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgalign.environment import DType, choose_device, choose_dtype
from imgalign.language.chat import (
    prompt_tokens,
    refuse_long,
    response_texts,
)
from imgalign.language.loading import LanguageModel, load_language_model
from imgalign.language.scoring import network_of
from imgalign.language.weights import switch_on
from imgalign.preferences.records import TextProvenance
from imgalign.runs.trained import LANGUAGE_ADAPTER, find_weights, weights_hash

LARGEST_BATCH = 32
"""Texts that are written at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A text that was just written."""

    text: str
    provenance: TextProvenance
    finished: bool
    """Whether it ended, and was not cut."""


class TextGenerator:
    """A language model and the trained weights that are switched on, in memory once.

    `model` is "storybook", a folder or a hub id. InputError, in one line, where there is none.
    """

    def __init__(self, model: str, *, device: str = "auto", dtype: DType = "auto") -> None:
        self.model = model
        self.place = choose_device(device)
        self.dtype = choose_dtype(dtype, self.place)
        self.weights: Path | None = None
        self._loaded: LanguageModel | None = None

    def use(self, weights: Path | None) -> None:
        """Write the next texts with these trained weights, or with the model alone.

        `weights` is what `find_weights` takes. CheckpointError where there are none or they do not
        fit the model.
        """
        found = None if weights is None else find_weights(weights)
        if self._loaded is not None and found == self.weights:
            return
        self._loaded = None  # before the next model is in memory too
        self.weights = found
        is_model = found is not None and not (found / LANGUAGE_ADAPTER).is_file()
        name = str(found) if is_model else self.model
        loaded = load_language_model(name, device=self.place, dtype=self.dtype)
        if found is not None and not is_model:
            switch_on(loaded.model, found)
        self._loaded = loaded

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        temperature: float,
        max_new_tokens: int,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Written]:
        """One text per prompt and seed, in order.

        `on_progress` gets the share that is done, in [0, 1]. InputError, at the first text, for a
        prompt after which there is no room for one.
        """
        if self._loaded is None:
            self.use(None)
        assert self._loaded is not None
        tokenizer = self._loaded.tokenizer
        self._loaded.model.requires_grad_(False)
        network = network_of(self._loaded)
        rows = prompt_tokens(tokenizer, prompts)
        refuse_long(
            prompts,
            [len(row) for row in rows],
            [max_new_tokens] * len(rows),
            context_length=self._loaded.context_length,
        )
        used = None if self.weights is None else weights_hash(self.weights)
        for start in range(0, len(rows), LARGEST_BATCH):
            part = slice(start, start + LARGEST_BATCH)
            tokens, mask = network.sample(
                rows[part], seeds=seeds[part], length=max_new_tokens, temperature=temperature
            )
            texts, ended = response_texts(tokenizer, tokens, mask, ends=network.ends)
            for prompt, seed, text, end in zip(
                prompts[part], seeds[part], texts, ended, strict=True
            ):
                provenance = TextProvenance(
                    model=self.model,
                    prompt=prompt,
                    seed=seed,
                    temperature=temperature,
                    max_new_tokens=max_new_tokens,
                    adapter=None if self.weights is None else str(self.weights),
                    adapter_hash=used,
                    dtype=str(self.dtype).removeprefix("torch."),
                )
                yield Written(text=text, provenance=provenance, finished=end)
            on_progress(min(start + LARGEST_BATCH, len(rows)) / len(rows))
