"""Quality of the storybook's shipped models, on images and prompts that none was trained on.

    python benchmarks/storybook_models.py --out benchmarks/results

Measures the verifier on fresh drawings and on the autoencoder's reconstructions of them, the
autoencoder's PSNR, the CLIP's in-batch retrieval and how well it orders the model's own images of
one prompt, the text-to-image model's verified faithfulness by kind of prompt, and the time of a
denoising step. Writes storybook_models.json and a grid of samples. Intervals are Wilson's at 95 %.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor

from imgalign.diffusion.generate import ImageGenerator
from imgalign.evaluate.origin import hardware, library_versions
from imgalign.images import as_tensor
from imgalign.preferences.records import SamplerSettings
from imgalign.statistics import wilson_interval
from imgalign.storybook.drawing import draw
from imgalign.storybook.layout import sample_scene
from imgalign.storybook.scenes import SceneSpec, evaluation_prompts, prompt_of, sample_spec
from imgalign.storybook.verifier import default_verifier, verified

ASSETS = Path(__file__).parent.parent / "imgalign" / "storybook" / "assets"
DRAWING_SEED = 77_000_001
SAMPLING_SEED = 500_000_000
RETRIEVAL_BATCH = 64


def drawings(num: int, *, held_out: bool) -> tuple[list[str], Tensor]:
    """Prompts and fresh drawings of them, `n 3 64 64` in [0, 1]."""
    prompts, images = [], []
    for index in range(num):
        rng = np.random.default_rng((DRAWING_SEED, held_out, index))
        spec = sample_spec(rng, held_out=held_out)
        prompts.append(prompt_of(spec))
        images.append(as_tensor(draw(sample_scene(spec, rng))))
    return prompts, torch.stack(images)


def share(successes: int, count: int) -> dict[str, float]:
    """A proportion with its count and interval."""
    low, high = wilson_interval(successes, count)
    return {"rate": successes / count, "low": low, "high": high, "count": count}


def read_right(prompts: list[str], images: Tensor) -> dict[str, float]:
    """How often the verifier recognises what was drawn."""
    readings = [r for part in images.split(256) for r in default_verifier().read(part)]
    right = sum(verified(p, r) for p, r in zip(prompts, readings, strict=True))
    return share(right, len(prompts))


@torch.no_grad()
def reconstructed(images: Tensor) -> Tensor:
    """Images encoded and decoded by the shipped autoencoder."""
    vae = ImageGenerator("storybook").family.pipeline.vae
    parts = [
        vae.decode(vae.encode(2 * part - 1).latent_dist.mean).sample for part in images.split(64)
    ]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def retrieval(prompts: list[str], images: Tensor) -> dict[str, float]:
    """How often an image retrieves its own caption among 64 different ones."""
    model, tokenize = shipped_clip()
    first = {prompt: index for index, prompt in enumerate(prompts)}
    chosen = list(first.values())
    found = count = 0
    for start in range(0, len(chosen) - RETRIEVAL_BATCH + 1, RETRIEVAL_BATCH):
        batch = chosen[start : start + RETRIEVAL_BATCH]
        image, text, _ = model((images[batch] - 0.5) / 0.5, tokenize([prompts[i] for i in batch]))
        found += int(((image @ text.T).argmax(1) == torch.arange(len(batch))).sum())
        count += len(batch)
    return share(found, count)


@torch.no_grad()
def right_above_wrong(num_prompts: int, *, steps: int) -> dict[str, float]:
    """Of two images of one prompt, one verified and one not, how often CLIP prefers the former.

    Four images of each prompt. It is the task of a reward model, before any ranking is fitted.
    """
    prompts = list(evaluation_prompts(num_prompts, seed=DRAWING_SEED))
    texts = [prompt for prompt in prompts for _ in range(4)]
    seeds = range(SAMPLING_SEED, SAMPLING_SEED + len(texts))
    sampler = SamplerSettings(num_inference_steps=steps)
    made = ImageGenerator("storybook").generate(texts, seeds=seeds, settings=sampler)
    images = torch.stack([as_tensor(each.image) for each in made])
    readings = [r for part in images.split(256) for r in default_verifier().read(part)]
    right = torch.tensor([verified(p, r) for p, r in zip(texts, readings, strict=True)])
    model, tokenize = shipped_clip()
    image, text, _ = model((images - 0.5) / 0.5, tokenize(texts))
    # [prompt, candidate, candidate]: the first is verified and the second is not.
    cosine, right = (image * text).sum(1).view(-1, 4), right.view(-1, 4)
    asked = right[:, :, None] & ~right[:, None, :]
    preferred = cosine[:, :, None] > cosine[:, None, :]
    return share(int(preferred[asked].sum()), int(asked.sum()))


def shipped_clip() -> tuple[Any, Any]:
    """The shipped CLIP and its tokenizer."""
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{ASSETS / 'clip'}")
    return model.eval(), open_clip.get_tokenizer(f"local-dir:{ASSETS / 'clip'}")


def form(spec: SceneSpec) -> str:
    """The kind of prompt: single, count or relation."""
    return "relation" if spec.relation else ("count" if spec.count > 1 else "single")


def faithfulness(
    num: int, *, steps: int, guidance_scale: float, held_out: bool
) -> dict[str, dict[str, float]]:
    """Verified share of generated images, by kind of prompt, `num` prompts of each kind."""
    rng = np.random.default_rng((DRAWING_SEED, 5, held_out))
    prompts: dict[str, list[str]] = {"single": [], "count": [], "relation": []}
    while min(map(len, prompts.values())) < num:
        spec = sample_spec(rng, held_out=held_out)
        if len(prompts[form(spec)]) < num:
            prompts[form(spec)].append(prompt_of(spec))
    generator = ImageGenerator("storybook")
    sampler = SamplerSettings(num_inference_steps=steps, guidance_scale=guidance_scale)
    result = {}
    for name, texts in prompts.items():
        made = generator.generate(
            texts, seeds=range(SAMPLING_SEED, SAMPLING_SEED + num), settings=sampler
        )
        images = torch.stack([as_tensor(each.image) for each in made])
        result[name] = read_right(texts, images)
    return result


def step_time(*, batch: int = 32, repeats: int = 7) -> dict[str, float]:
    """Milliseconds per image and denoising step at batch 32: median, fastest and slowest."""
    unet = ImageGenerator("storybook").family.network
    channels, side = unet.config.in_channels, unet.config.sample_size
    sample = torch.randn(batch, channels, side, side)
    text = torch.randn(batch, 16, unet.config.cross_attention_dim)
    times = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            unet(sample, torch.tensor(500), text)
            times.append((time.perf_counter() - started) / batch * 1000)
    timed = times[1:]
    return {"median": statistics.median(timed), "low": min(timed), "high": max(timed)}


def sample_grid(path: Path, *, steps: int, guidance_scale: float) -> None:
    """64 samples of the base model for training-mix prompts, not chosen."""
    rng = np.random.default_rng((DRAWING_SEED, 9))
    prompts = [prompt_of(sample_spec(rng)) for _ in range(64)]
    sampler = SamplerSettings(num_inference_steps=steps, guidance_scale=guidance_scale)
    made = ImageGenerator("storybook").generate(prompts, seeds=range(64), settings=sampler)
    sheet = Image.new("RGB", (8 * 64, 8 * 64))
    for index, each in enumerate(made):
        sheet.paste(each.image, (index % 8 * 64, index // 8 * 64))
    sheet.resize((1024, 1024), Image.Resampling.LANCZOS).save(path)


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--drawings", type=int, default=2000)
    parser.add_argument("--prompts", type=int, default=150, help="of each kind")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0])
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    seen, unseen = (drawings(settings.drawings, held_out=held_out) for held_out in (False, True))
    rebuilt = reconstructed(seen[1])
    error = (rebuilt - seen[1]).square().mean()
    noise = torch.rand(200, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    measured = {
        "command": " ".join(["python benchmarks/storybook_models.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "machine": platform.machine(),
        "versions": library_versions(),
        "verifier": {
            "fresh drawings": read_right(*seen),
            "unseen combinations": read_right(*unseen),
            "reconstructions": read_right(seen[0], rebuilt),
            "unsure of noise": share(sum(r.unsure for r in default_verifier().read(noise)), 200),
        },
        "autoencoder_psnr_db": float(-10 * torch.log10(error)),
        "clip_retrieval_of_64": {
            "fresh drawings": retrieval(*seen),
            "unseen combinations": retrieval(*unseen),
        },
        "clip_right_image_above_wrong": right_above_wrong(settings.prompts, steps=settings.steps),
        "milliseconds_per_image_and_step": step_time(),
        "faithfulness": {
            f"guidance {scale:g}, {'unseen' if held_out else 'training mix'}": faithfulness(
                settings.prompts, steps=settings.steps, guidance_scale=scale, held_out=held_out
            )
            for scale in settings.guidance
            for held_out in (False, True)
        },
    }
    text = json.dumps(measured, indent=2, default=str)
    (settings.out / "storybook_models.json").write_text(text + "\n", encoding="utf-8")
    sample_grid(
        settings.out / "storybook_base.png",
        steps=settings.steps,
        guidance_scale=settings.guidance[0],
    )
    print(text)


if __name__ == "__main__":
    main()
