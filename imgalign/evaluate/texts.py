"""Texts in a comparison: both sides written from the same seeds, how alike they are, their file.

How alike the texts of a prompt are is the mean edit distance of two of them in words, divided by
the longer one's: 0 for equal texts, 1 for texts without a word in common at the same place. It is a
mean over pairs, as it is for images, so it has the same intervals. Shares of distinct n-grams
(distinct-n, arXiv:1510.03055) fall when texts become longer or more of them are counted, so they
would call longer texts less diverse.

evaluation/texts-20270131-235959/base.json and aligned.json: a list of {"text": ..., "finished":
..., and the provenance}, in the order of the pairs.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np

from imgalign.config import load_config
from imgalign.errors import InputError
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.judging import ImageFeatures
from imgalign.evaluate.kinds import refused
from imgalign.evaluate.saved_images import Layout, Side
from imgalign.evaluate.selection import Selection
from imgalign.files import read_json
from imgalign.language.config import LanguageConfig, WritingConfig
from imgalign.language.differences import pieces
from imgalign.language.generate import TextGenerator, Written
from imgalign.language.words import word_spans
from imgalign.policy import Texts
from imgalign.preferences.records import Samples
from imgalign.runs.folder import CONFIG
from imgalign.runs.progress import progress
from imgalign.train.config import TrainConfig

USUAL = LanguageConfig()


class OfTexts:
    """Texts of a language model; implements `Kind`."""

    samples: Samples = "texts"
    blank = ""

    def settled(self, settings: EvaluateConfig, run: Path | None) -> EvaluateConfig:
        """Temperature and length are those of the run, where the settings leave them open."""
        refused(settings, ["sampler", "baseline_guidance_scale", "images", "strength"], "on texts")
        policy = USUAL if run is None else load_config(TrainConfig, run / CONFIG).policy
        assert isinstance(policy, LanguageConfig)
        asked = settings.writing
        writing = WritingConfig(
            temperature=asked.temperature or policy.temperature,
            max_new_tokens=asked.max_new_tokens or policy.max_new_tokens,
        )
        return settings.model_copy(update={"writing": writing})

    def both_sides(
        self, settings: EvaluateConfig, weights: Path, selection: Selection
    ) -> tuple[Sequence[Written], Sequence[Written]]:
        """From one loaded model at a time; those that do not fit are refused first."""
        assert settings.model is not None
        writing = settings.writing
        assert writing.temperature is not None
        assert writing.max_new_tokens is not None
        temperature, length = writing.temperature, writing.max_new_tokens
        generator = TextGenerator(settings.model, device=settings.device, dtype=settings.dtype)
        with progress("writing pairs of texts") as on_progress:

            def made(weights: Path | None, before: float) -> list[Written]:
                generator.use(weights)
                texts: Iterator[Written] = generator.generate(
                    selection.prompts,
                    seeds=selection.seeds,
                    temperature=temperature,
                    max_new_tokens=length,
                    on_progress=lambda share: on_progress(before + share / 2),
                )
                return list(texts)

            aligned = made(weights, 0.0)
            return made(settings.baseline, 0.5), aligned

    def content(self, made: Written) -> str:
        """The text."""
        return made.text

    def stack(self, samples: Sequence[str]) -> Texts:
        """As they are."""
        return list(samples)

    def distance(self, samples: Sequence[str], features: ImageFeatures | None) -> float:
        """Mean over pairs of `word_distance`."""
        cut = [words(text) for text in samples]
        return float(np.mean([word_distance(*pair) for pair in combinations(cut, 2)]))

    def space(self, features: ImageFeatures | None) -> str:
        """For a sentence."""
        return "edit distance of words"

    def length(self, sample: str) -> float:
        """Its words, without marks."""
        return float(len(word_spans(sample)))

    def save(
        self, made: Sequence[Written], folder: Path, side: Side, *, columns: int, layout: Layout
    ) -> None:
        """As a JSON list."""
        rows = [{"text": each.text, "finished": each.finished, **facts(each)} for each in made]
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{side}.json").write_text(text, encoding="utf-8")


def facts(made: Written) -> dict[str, object]:
    """A provenance as JSON values."""
    own = made.provenance
    return {**asdict(own), "created_at": own.created_at.isoformat()}


def load_texts(folder: Path, side: Side, *, count: int) -> list[str]:
    """The texts of a side in order; empty where they are missing.

    InputError where the file exists and cannot be read.
    """
    path = folder / f"{side}.json"
    try:
        rows = read_json(path)
        texts = [str(row["text"]) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); evaluate again") from None
    return texts if len(texts) == count else []


def words(text: str) -> list[str]:
    """Words and single marks."""
    return [each.strip() for each in pieces(text)]


def word_distance(one: Sequence[str], other: Sequence[str]) -> float:
    """Fewest words to insert, delete or replace, divided by the words of the longer text.

    Levenshtein's distance, in [0, 1]; 0 for two empty texts.
    """
    if not one or not other:
        return float(bool(one or other))
    places = np.arange(len(other) + 1)
    known = {word: number for number, word in enumerate(dict.fromkeys((*one, *other)))}
    second = np.array([known[word] for word in other])
    row = places
    for word in one:
        replaced = row[:-1] + (second != known[word])
        best = np.concatenate([[row[0] + 1], np.minimum(row[1:] + 1, replaced)])
        # An insertion moves to the right at a cost of 1: the least of all to the left.
        row = np.minimum.accumulate(best - places) + places
    return float(row[-1]) / max(len(one), len(other))
