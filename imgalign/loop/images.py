"""An image generator that keeps what it made, so that no image of a comparison is made twice."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from imgalign.environment import DType
from imgalign.evaluate.sides import LoadGenerator, SwitchingGenerator
from imgalign.preferences.records import Generated, SamplerSettings
from imgalign.runs.trained import find_weights, weights_hash

Key = tuple[str | None, float, str, int, str]
"""Hash of the weights, their strength, prompt, seed, sampler."""


class KeepingGenerator:
    """Images of one model by weights, prompt and seed; implements SwitchingGenerator.

    Equal weights of two places are one. `forget` empties it: a comparison needs a few hundred
    images at once, and the next one others. The model is loaded when the first image is made.
    """

    def __init__(self, model: str, *, device: str, dtype: DType, load: LoadGenerator) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype
        self.load = load
        self._loaded: SwitchingGenerator | None = None
        self._weights: Path | None = None
        self._hash: str | None = None
        self._strength = 1.0
        self._kept: dict[Key, Generated] = {}

    def use(self, adapter: Path | None, *, strength: float = 1.0) -> None:
        """Generate the next images with these weights, or with the model alone."""
        found = None if adapter is None else find_weights(adapter)
        self._hash = None if found is None else weights_hash(found)
        self._weights = found
        self._strength = strength

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        settings: SamplerSettings,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Generated]:
        """One image per prompt and seed, in order."""
        sampler = settings.model_dump_json()
        keys = [
            (self._hash, self._strength, prompt, seed, sampler)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        if missing:
            if self._loaded is None:
                self._loaded = self.load(self.model, device=self.device, dtype=self.dtype)
            self._loaded.use(self._weights, strength=self._strength)
            made = self._loaded.generate(
                [prompt for _, _, prompt, _, _ in missing],
                seeds=[seed for _, _, _, seed, _ in missing],
                settings=settings,
                on_progress=on_progress,
            )
            self._kept |= dict(zip(missing, made, strict=True))
        return iter([self._kept[key] for key in keys])

    def forget(self) -> None:
        """Let go of all images."""
        self._kept.clear()
