"""The images of both sides of a comparison: one loaded model, its weights switched in between."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from imgalign.environment import DType
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.evaluation import Checkpoint
from imgalign.evaluate.selection import Selection
from imgalign.language.generate import Written
from imgalign.preferences.queue import Generator
from imgalign.preferences.records import Generated, SamplerSettings
from imgalign.runs.progress import progress


@runtime_checkable
class SwitchingGenerator(Generator, Protocol):
    """A loaded model whose weights can be switched, as `imgalign.diffusion.generate` has it."""

    def use(self, adapter: Path | None, *, strength: float = 1.0) -> None:
        """Generate the next images with these weights, or with the model alone."""
        ...


@runtime_checkable
class LoadGenerator(Protocol):
    """Loads a model: `imgalign.diffusion.generate.ImageGenerator`, or with its contract."""

    def __call__(self, model: str, *, device: str, dtype: DType) -> SwitchingGenerator:
        """The model as it was pretrained; InputError where there is none."""
        ...


def both_sides(
    settings: EvaluateConfig, adapter: Path, selection: Selection, load: LoadGenerator
) -> tuple[list[Generated], list[Generated]]:
    """The base's images and the aligned ones, of the same prompts and seeds."""
    assert settings.model is not None
    with progress("generating pairs of images") as on_progress:
        generator = load(settings.model, device=settings.device, dtype=settings.dtype)
        # Weights that do not fit are refused before any image is generated.
        generator.use(adapter, strength=settings.strength)

        def made(sampler: SamplerSettings, before: float) -> list[Generated]:
            images = generator.generate(
                selection.prompts,
                seeds=selection.seeds,
                settings=sampler,
                on_progress=lambda share: on_progress(before + share / 2),
            )
            return list(images)

        generator.use(settings.baseline)
        base = made(settings.baseline_sampler, 0.0)
        generator.use(adapter, strength=settings.strength)
        return base, made(settings.sampler, 0.5)


def checkpoint_of(
    made: Sequence[Generated] | Sequence[Written], *, strength: float = 1.0
) -> Checkpoint:
    """The model and the trained weights that made them; `strength` is that of the weights."""
    first = made[0].provenance
    return Checkpoint(
        model=first.model,
        adapter=first.adapter,
        adapter_hash=first.adapter_hash,
        strength=strength,
    )
