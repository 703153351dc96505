"""What words do to the images that are drawn of them, and whether the oracle of texts is right.

    python benchmarks/text_taste.py looks --out runs/text-taste
    python benchmarks/text_taste.py agreement --out runs/text-taste

`looks` draws prompts of the training mix with the shipped pipeline and fits, by least squares, how
each colour and setting changes the features on which tastes depend: the table LOOKS of
imgalign/storybook/text_oracle.py. `agreement` draws several texts of each idea, flawless and
flawed ones, all with the noise of that idea, and judges the images for the idea: do texts of a
higher utility lead to more faithful images, which are liked more? Ideas are held out, and such that
the verifier can judge images of them. Writes looks.json and agreement.json. Intervals are bootstrap
over ideas at 95 %.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imgalign.diffusion.generate import ImageGenerator
from imgalign.evaluate.origin import hardware, library_versions
from imgalign.images import as_tensor
from imgalign.preferences.records import SamplerSettings
from imgalign.statistics import clustered_mean
from imgalign.storybook.annotators import (
    GROUPS,
    RENDERS,
    TASTES,
    Impression,
    extent,
    pixel_features,
    read_impressions,
)
from imgalign.storybook.demonstrations import CLEAN, WILD, demonstrate
from imgalign.storybook.ideas import parse_idea, sample_ideas
from imgalign.storybook.scenes import COLOURS, SETTINGS, evaluation_prompts, parse_prompt
from imgalign.storybook.text_oracle import text_impressions
from imgalign.storybook.verifier import Reading, default_verifier

SAMPLING_SEED = 900_000_000
WORDS = (*SETTINGS, *COLOURS)
CLEANLY, WILDLY = 3, 3
"""Texts of each idea: flawless ones, and ones as flawed as the pretraining texts."""


def drawn(prompts: Sequence[str], seeds: Sequence[int], *, steps: int) -> Tensor:
    """Images of the shipped pipeline, `b 3 64 64`."""
    sampler = SamplerSettings(num_inference_steps=steps)
    generator = ImageGenerator("storybook")
    images = []
    for made in generator.generate(prompts, seeds=seeds, settings=sampler):
        images.append(as_tensor(made.image))
        if len(images) % 100 == 0:
            print(f"{len(images)}/{len(prompts)} images", file=sys.stderr)
    return torch.stack(images)


def read(images: Tensor) -> list[Reading]:
    """What the verifier sees in the images."""
    return default_verifier().read(images)


def said(prompt: str) -> list[float]:
    """1, and the share of the objects (or the image) that each of WORDS is said of."""
    spec = parse_prompt(prompt)
    items = [spec.first] if spec.second is None else [spec.first, spec.second]
    settings = [float(spec.setting == name) for name in SETTINGS]
    colours = [sum(item.colour == name for item in items) / len(items) for name in COLOURS]
    return [1.0, *settings, *colours]


def looks(num_prompts: int, *, steps: int) -> dict[str, Any]:
    """Centred effects of each word on each feature, and how much of the variance they explain."""
    prompts = evaluation_prompts(num_prompts, seed=31, held_out=False)
    seeds = range(SAMPLING_SEED, SAMPLING_SEED + num_prompts)
    images = drawn(prompts, seeds, steps=steps)
    features = {name: values.numpy() for name, values in pixel_features(images).items()}
    features["extent"] = np.array([extent(reading) for reading in read(images)])
    measured = np.stack([(features[name] - m) / s for name, (m, s) in RENDERS.items()], axis=1)
    design = np.array([said(prompt) for prompt in prompts])
    effects, *_ = np.linalg.lstsq(design, measured, rcond=None)
    settings, colours = effects[1 : 1 + len(SETTINGS)], effects[1 + len(SETTINGS) :]
    table = np.concatenate([settings - settings.mean(0), colours - colours.mean(0)])
    weights = np.array([[TASTES[group].get(name, 0.0) for name in RENDERS] for group in GROUPS]).T
    return {
        "looks": {
            word: dict(zip(RENDERS, np.round(row, 2).tolist(), strict=True))
            for word, row in zip(WORDS, table, strict=True)
        },
        "explained variance": {
            **dict(zip(RENDERS, explained(measured, design @ effects), strict=True)),
            **dict(
                zip(GROUPS, explained(measured @ weights, design @ effects @ weights), strict=True)
            ),
        },
    }


def explained(values: NDArray[np.float64], predicted: NDArray[np.float64]) -> list[float]:
    """Share of the variance of each column that the prediction explains."""
    left = np.square(values - predicted).sum(0) / np.square(values - values.mean(0)).sum(0)
    return [round(float(each), 3) for each in 1 - left]


def texts_of(idea: str, rng: np.random.Generator) -> list[str]:
    """Some flawless texts of an idea and some wild ones."""
    rates = [CLEAN] * CLEANLY + [WILD] * WILDLY
    return [demonstrate(parse_idea(idea), each, rng).completion for each in rates]


def agreement(num_ideas: int, *, steps: int) -> dict[str, Any]:
    """How utilities of texts and of the images drawn of them go together."""
    ideas = [each for each in sample_ideas(4 * num_ideas, seed=41, held_out=True) if legible(each)]
    ideas = ideas[:num_ideas]
    rng = np.random.default_rng(43)
    rows = [(idea, text) for idea in ideas for text in texts_of(idea, rng)]
    asked, texts = [idea for idea, _ in rows], [text for _, text in rows]
    places = {idea: place for place, idea in enumerate(ideas)}
    images = drawn(texts, [SAMPLING_SEED + places[idea] for idea in asked], steps=steps)
    readings = read(images)
    return {
        "ideas": len(ideas),
        "texts": len(texts),
        **{
            group: compared(
                text_impressions(asked, texts, group=group),
                read_impressions(asked, images, readings, group=group),
                asked,
            )
            for group in GROUPS
        },
    }


def legible(idea: str) -> bool:
    """Whether the verifier can judge images for an idea: it is a prompt."""
    try:
        parse_prompt(idea)
    except ValueError:
        return False
    return True


def compared(
    texts: Sequence[Impression], images: Sequence[Impression], ideas: Sequence[str]
) -> dict[str, Any]:
    """Numbers of one group."""
    of_text = np.array([each.utility for each in texts])
    of_image = np.array([each.utility for each in images])
    faithful = np.array([each.faithfulness == 1.0 for each in texts])
    right = np.array([each.faithfulness for each in images])
    liked = np.array([[each.taste for each in part] for part in (texts, images)])
    names = np.array(ideas)
    return {
        "rank correlation of utilities": correlation(ranks(of_text), ranks(of_image)),
        "pairs of one idea in the same order": concordance(of_text, of_image, names),
        "flawless pairs of one idea, tastes in the same order": concordance(
            liked[0][faithful], liked[1][faithful], names[faithful]
        ),
        "correlation of tastes, flawless texts": correlation(*liked[:, faithful]),
        "the same within ideas": correlation(
            *(centred(part, names[faithful]) for part in liked[:, faithful])
        ),
        "image faithfulness": {
            "flawless texts": estimate(right[faithful], names[faithful]),
            "flawed texts": estimate(right[~faithful], names[~faithful]),
        },
        "image utility": {
            "upper half of texts": estimate(
                of_image[of_text > np.median(of_text)], names[of_text > np.median(of_text)]
            ),
            "lower half of texts": estimate(
                of_image[of_text <= np.median(of_text)], names[of_text <= np.median(of_text)]
            ),
        },
    }


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's coefficient."""
    return round(float(np.corrcoef(one, other)[0, 1]), 3)


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rank of each value among all; ties share theirs."""
    ordered = np.sort(values)
    ends = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(ends / 2, dtype=np.float64)


def centred(values: NDArray[np.float64], names: NDArray[np.str_]) -> NDArray[np.float64]:
    """Values minus the mean of their idea."""
    _, index = np.unique(names, return_inverse=True)
    means = np.bincount(index, values) / np.bincount(index)
    return np.asarray(values - means[index], dtype=np.float64)


def concordance(
    one: NDArray[np.float64], other: NDArray[np.float64], names: NDArray[np.str_]
) -> dict[str, float]:
    """Of the pairs of one idea that `one` tells apart, how many `other` puts in the same order."""
    first, second = np.triu_indices(len(one), k=1)
    pairs = (names[first] == names[second]) & (np.abs(one[first] - one[second]) > 1e-9)
    first, second = first[pairs], second[pairs]
    agree = np.sign(one[first] - one[second]) * np.sign(other[first] - other[second])
    return estimate((1 + agree) / 2, names[first])


def estimate(values: NDArray[np.float64], names: NDArray[np.str_]) -> dict[str, float]:
    """A mean with its interval."""
    found = clustered_mean(values, names.tolist(), seed=0)
    numbers = {"mean": found.value, "low": found.low, "high": found.high, "count": len(values)}
    return {name: round(float(number), 3) for name, number in numbers.items()}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["looks", "agreement"])
    parser.add_argument("--out", type=Path, default=Path("runs/text-taste"))
    parser.add_argument("--prompts", type=int, default=3000)
    parser.add_argument("--ideas", type=int, default=300)
    parser.add_argument("--steps", type=int, default=10)
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    found = (
        looks(settings.prompts, steps=settings.steps)
        if settings.what == "looks"
        else agreement(settings.ideas, steps=settings.steps)
    )
    measured = {
        "command": " ".join(["python benchmarks/text_taste.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": library_versions(),
        **found,
    }
    text = json.dumps(measured, indent=2)
    (settings.out / f"{settings.what}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
