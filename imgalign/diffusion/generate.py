"""Images from prompts, with the base model or what a run trained, and where each came from.

The command line, the app and evaluation all make images here. A seed starts from the same noise
with and without an adapter, and as in training, so that two images with one seed can be compared.
Left out: ranking and storing what comes out.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch

from imgalign.diffusion.adapters import adapter_file, read_layers
from imgalign.diffusion.attention import Attention
from imgalign.diffusion.denoising import check_prompts
from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.families.table import family_of
from imgalign.diffusion.loading import load_pipeline, plan_family
from imgalign.diffusion.samplers import Sampler, build_sampler
from imgalign.diffusion.switching import WeightSwitch
from imgalign.environment import DType, choose_device, choose_dtype, say_dtype
from imgalign.errors import InputError
from imgalign.files import UNFINISHED, lock_folder, reporting_full_disk, write_atomically
from imgalign.images import to_image, write_png
from imgalign.preferences.records import Generated, Provenance, SamplerSettings
from imgalign.runs.trained import check_strength, find_weights, weights_hash

LARGEST_BATCH = 32
LATENT_ELEMENTS = {"cpu": 8 * 4 * 64 * 64, "cuda": 16 * 4 * 64 * 64}
"""How much is denoised at once: 8 images of Stable Diffusion's 512 x 512, or 32 small ones."""


class ImageGenerator:
    """A loaded model, and the trained weights that are switched on.

    `model` is "storybook", a folder or a hub id. `adapter` is what `find_weights` takes: a run, a
    checkpoint of a run, a LoRA file, or a folder that holds one; `use` switches to another. What is
    switched on costs its own memory, and the model is in memory once. A LoRA is applied at
    `strength`: 1 as it was trained, and 0 is the model alone, in the provenance of images too.
    """

    def __init__(
        self,
        model: str,
        adapter: Path | None = None,
        *,
        strength: float = 1.0,
        device: str = "auto",
        dtype: DType = "auto",
        attention: Attention = "sdpa",
    ) -> None:
        found = _checked(adapter, strength)  # before a slow download
        self.model = model
        place = choose_device(device)
        pipeline = load_pipeline(
            model, device=place, dtype=choose_dtype(dtype, place), attention=attention
        )
        self.adapter: str | None = None
        self.adapter_hash: str | None = None
        self.strength = 1.0
        self.family = family_of(pipeline)
        self._switch = WeightSwitch(pipeline)
        self.largest_batch = LARGEST_BATCH
        if found is not None:
            self.use(found, strength=strength)
        say_dtype(self.family.dtype, place)

    def use(self, adapter: Path | None, *, strength: float = 1.0) -> None:
        """Switch to other trained weights, or with None to the model alone.

        Images are then those of a generator that was loaded with it. Take the images of an earlier
        call of `generate` first. CheckpointError, and nothing changes, where there are none
        or they do not fit the model; InputError for a strength that they cannot have.
        """
        found = _checked(adapter, strength)
        self._switch.use(found, strength=strength)
        self.strength = 1.0 if found is None else strength
        self.adapter = None if found is None else str(found)
        self.adapter_hash = None if found is None else weights_hash(found)
        # An adapter may reach into the text encoder, so embeddings that are kept go with it.
        self.family = family_of(self.family.pipeline)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        settings: SamplerSettings,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Generated]:
        """One image per prompt and seed, in order, each as soon as its batch is done.

        Batches are as large as memory allows. `on_progress` gets the share that is done, in [0, 1].
        InputError for settings that this model cannot be sampled with, now and not when the first
        image is taken.
        """
        provenances = self.provenances(prompts, seeds=seeds, settings=settings)
        width, height = self._size(settings)
        sampler = build_sampler(self.family, settings)
        shape = self.family.latent_shape(width, height)
        return self._images(sampler, provenances, shape, on_progress)

    def provenances(
        self, prompts: Sequence[str], *, seeds: Sequence[int], settings: SamplerSettings
    ) -> list[Provenance]:
        """What `generate` would write of each image, but for the time; InputError as there."""
        check_prompts(prompts)
        if len(prompts) != len(seeds):
            raise InputError(f"seeds: expected one per prompt, got {len(seeds)} for {len(prompts)}")
        for seed in seeds:
            if not 0 <= seed < 2**63:
                raise InputError(f"seeds: expected 0 to 2**63 - 1, got {seed}")
        width, height = self._size(settings)
        return [
            Provenance(
                model=self.model,
                adapter=self.adapter,
                adapter_hash=self.adapter_hash,
                strength=self.strength,
                prompt=prompt,
                negative_prompt=settings.negative_prompt,
                seed=seed,
                steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                scheduler=self.family.scheduler_name(settings.scheduler),
                eta=settings.eta,
                width=width,
                height=height,
                dtype=str(self.family.dtype).removeprefix("torch."),
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def _size(self, settings: SamplerSettings) -> tuple[int, int]:
        width, height = self.family.image_size()
        return (
            width if settings.width is None else settings.width,
            height if settings.height is None else settings.height,
        )

    def _images(
        self,
        sampler: Sampler,
        provenances: Sequence[Provenance],
        latent_shape: tuple[int, int, int],
        on_progress: Callable[[float], None],
    ) -> Iterator[Generated]:
        total = len(provenances) * len(sampler)
        fitting = LATENT_ELEMENTS[self.family.device.type] // math.prod(latent_shape)
        self.largest_batch = max(1, min(self.largest_batch, fitting))
        done = 0
        while done < len(provenances):
            asked = provenances[done]
            if (asked.adapter_hash, asked.strength) != (self.adapter_hash, self.strength):
                raise InputError(
                    "generate: the weights were switched before all images of an earlier call were"
                    " made; take those first"
                )
            batch = provenances[done : done + self.largest_batch]
            steps_done = done * len(sampler)

            def on_step(size: int = len(batch)) -> None:
                nonlocal steps_done
                steps_done += size
                on_progress(steps_done / total)

            try:
                latents = sampler.finished(
                    [each.prompt for each in batch],
                    seeds=[each.seed for each in batch],
                    latent_shape=latent_shape,
                    on_step=on_step,
                )
                samples = self.family.decode(latents)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise InputError(
                        "generate: one image does not fit into the device's memory;"
                        " use a smaller size, dtype bfloat16 or device cpu"
                    ) from error
                self.largest_batch = len(batch) // 2
                continue
            for sample, provenance in zip(samples, batch, strict=True):
                unread = self.family.cut_text(provenance.prompt)
                yield Generated(image=to_image(sample), provenance=provenance, unread=unread)
            done += len(batch)


def _checked(adapter: Path | None, strength: float) -> Path | None:
    """The trained weights that are to be switched on; at a strength of 0 there are none."""
    found = None if adapter is None else find_weights(adapter)
    check_strength(strength, found)
    return found if strength else None


def unread_ends(model: str, prompts: Sequence[str]) -> dict[str, str]:
    """Of each prompt that is longer than a model reads, the end that has no effect.

    `model` is "storybook", a folder or a file: its settings and tokenizer are read, no weights.
    """
    family = _planned(model)
    ends = {prompt: family.cut_text(prompt) for prompt in prompts}
    return {prompt: end for prompt, end in ends.items() if end}


def planned_size(model: str) -> tuple[int, int]:
    """Width and height of the images of a model that `unread_ends` takes, in pixels."""
    return _planned(model).image_size()


def check_adapter(model: str, adapter: Path) -> None:
    """CheckpointError unless a LoRA, as `find_weights` takes it, fits a model.

    `model` is what `unread_ends` takes, or of the hub, and its weights are not read.
    """
    read_layers(adapter_file(find_weights(adapter)), _planned(model).adaptable)


@lru_cache(maxsize=2)
def _planned(model: str) -> Family:
    return plan_family(model)


def generate_pairs(
    generator: ImageGenerator,
    prompts: Sequence[str],
    rewrites: Sequence[str],
    *,
    rewriter: str,
    seeds: Sequence[int],
    settings: SamplerSettings,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Iterator[tuple[Generated, Generated]]:
    """An image of each prompt and one of its rewrite, both from the seed of the prompt.

    A prompt that was not changed is drawn once. `rewriter` is the name of the language model.
    """
    wanted = [
        list(dict.fromkeys(pair)) for pair in zip(prompts, rewrites, strict=True)
    ]  # of each pair, what is drawn: two texts, or one
    drawn = generator.generate(
        [text for texts in wanted for text in texts],
        seeds=[seed for seed, texts in zip(seeds, wanted, strict=True) for _ in texts],
        settings=settings,
        on_progress=on_progress,
    )
    return (
        (images[0], images[-1].asked_as(prompt, rewriter=rewriter))
        for prompt, texts in zip(prompts, wanted, strict=True)
        for images in [[next(drawn) for _ in texts]]
    )


NUMBERED = re.compile(r"(\d{5,})-\d+\.png")


def save_images(images: Iterable[Generated], folder: Path) -> Iterator[Path]:
    """Write each image as `<number>-<seed>.png` with its provenance beside it, and give its path.

    Numbers go on after those already in the folder, so that nothing is overwritten. What is there
    under such a name is whole, and has its provenance. The folder is held meanwhile: two that count
    on would take each other's numbers. StorageFullError when no space is left.
    """
    with lock_folder(folder, doing="saving images"):
        remove_half_written(folder)
        yield from numbered_images(images, folder)


def remove_half_written(folder: Path) -> None:
    """Remove what a kill left of an image or its provenance; no file of another kind."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if NUMBERED.fullmatch(path.with_suffix(".png").name.removeprefix(UNFINISHED)):
            path.unlink()


def numbered_images(images: Iterable[Generated], folder: Path) -> Iterator[Path]:
    """Write each image under the next number."""
    taken = (NUMBERED.fullmatch(path.name) for path in folder.iterdir())
    number = 1 + max((int(match[1]) for match in taken if match), default=-1)
    for image in images:
        path = folder / f"{number:05d}-{image.provenance.seed}.png"
        facts = json.dumps(asdict(image.provenance), default=str, indent=2)
        with reporting_full_disk(path, "saving the image"):
            write_atomically(path.with_suffix(".json"), f"{facts}\n")
        write_png(image.image, path)
        number += 1
        yield path
