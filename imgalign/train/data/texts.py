"""Texts that somebody gave in files: completions to learn from, and rankings of texts."""

import logging
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from imgalign.algorithms.interface import BatchKind
from imgalign.config import refuse_ineffective
from imgalign.errors import InputError
from imgalign.preferences.foreign.records import Completion, Completions, GivenRanking
from imgalign.preferences.foreign.texts import read_completions, read_labelled, read_text_rankings
from imgalign.preferences.records import Samples
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import Prompts
from imgalign.storybook.demonstrations import demonstrations
from imgalign.train.data.demonstrations import USUAL_SAMPLES, Example, GivenSamples
from imgalign.train.data.given_rankings import GivenRankingsConfig, JudgedConfig
from imgalign.train.data.judged import LEFT_OUT, Given, write_left_out
from imgalign.train.data.kept_texts import (
    kept_completions,
    loader_of,
    text_key,
    write_completions,
)
from imgalign.train.data.source import Amount, DataSection, Known, Parts, some_of

log = logging.getLogger(__name__)


class TextRankingsConfig(GivenRankingsConfig):
    """Pairs or ranked lists of texts, in JSON lines or parquet, in TRL's columns."""

    source: Literal["text_rankings"] = Field("text_rankings", alias="from")
    """Where the data comes from."""

    file: Path
    """A file, or a folder of such files, with the columns prompt, chosen and rejected, or prompt,
    completions and ranks; see docs/pairs.md."""

    @property
    def given_samples(self) -> Samples:
        """Texts."""
        return "texts"

    def read(self) -> Given:
        """The rows; what is left out is said."""
        found = read_text_rankings(self.file)
        for line in found.lines():
            log.info("%s", line)
        texts = {text_key(text): text for each in found.rankings for text in each.texts}
        rankings = [
            GivenRanking(
                prompt=each.prompt,
                images=tuple(map(text_key, each.texts)),
                ranks=each.ranks,
                all_bad=each.all_bad,
                weight=each.weight,
            )
            for each in found.rankings
        ]
        return Given(
            rankings=rankings,
            load=loader_of(texts),
            where=found.name,
            left_out=found.left_out,
        )


class LabelledConfig(JudgedConfig):
    """Texts that were liked or disliked one by one, in JSON lines or parquet, in TRL's columns."""

    gives: ClassVar[BatchKind] = "labels"
    what: ClassVar[str] = "completions"

    source: Literal["labelled"] = Field("labelled", alias="from")
    """Where the data comes from."""

    file: Path
    """A file, or a folder of such files, with the columns prompt, completion and label, which is
    true for a text that was liked; see docs/pairs.md."""

    held_out_completions: PositiveInt = 64
    """How many texts of held-out prompts are measured."""

    completions_per_iteration: PositiveInt | None = None
    """Texts in each iteration; every one comes once before any comes again. Null is 64, or all of
    them where there are fewer."""

    @property
    def given_samples(self) -> Samples:
        """Texts."""
        return "texts"

    @property
    def asked(self) -> int | None:
        """By the setting."""
        return self.completions_per_iteration

    @property
    def usual(self) -> int:
        """Texts."""
        return USUAL_SAMPLES

    @property
    def most_measured(self) -> int:
        """By the setting."""
        return self.held_out_completions

    def read(self) -> Given:
        """The rows; what is left out is said."""
        found = read_labelled(self.file)
        for line in found.lines():
            log.info("%s", line)
        return Given(
            rankings=[
                GivenRanking(
                    prompt=each.prompt,
                    images=(text_key(each.text),),
                    ranks=(-1,),
                    all_bad=not each.liked,
                    all_good=bool(each.liked),
                    weight=each.weight,
                )
                for each in found.rows
            ],
            load=loader_of({text_key(each.text): each.text for each in found.rows}),
            where=found.name,
            left_out=found.left_out,
        )


class CompletionsConfig(DataSection):
    """Texts given as examples, each with its prompt."""

    gives: ClassVar[BatchKind] = "demonstrations"

    source: Literal["completions"] = Field("completions", alias="from")
    """Where the data comes from."""

    file: Path | None = None
    """JSON lines or parquet with the columns prompt and completion, or a folder of such files. Null
    takes what people might write for ideas of the storybook world."""

    num_storybook: PositiveInt = 1600
    """How many, without a file."""

    seed: NonNegativeInt = 7101
    """Draws the storybook's examples."""

    completions_per_iteration: PositiveInt | None = None
    """Texts in each iteration; every one comes once before any comes again, so that an epoch is as
    many iterations as it takes to see all. Null is 64, or all of them where there are fewer."""

    @model_validator(mode="after")
    def _a_file_is_read_as_it_is(self) -> "CompletionsConfig":
        if self.file is not None:
            refuse_ineffective(self, ["num_storybook", "seed"], "with completions from a file")
        return self

    @property
    def given_samples(self) -> Samples:
        """Texts."""
        return "texts"

    def read(self) -> tuple[list[Completion], str]:
        """All that there are, without disliked ones, and where they are from."""
        if self.file is None:
            made = demonstrations(self.num_storybook, seed=self.seed)
            found = [Completion(prompt=each.prompt, text=each.completion) for each in made]
            return found, "the storybook's examples"
        given = read_completions(self.file)
        return liked(given), given.name

    def known_prompts(self) -> Known:
        """Those of the completions."""
        found, where = self.read()
        training = tuple(dict.fromkeys(each.prompt for each in found))
        return Known(training, some_of(training, self.held_out), where)

    def amount(self, prompts: Prompts) -> Amount:
        """Texts."""
        apart = set(map(prompt_key, prompts.held_out))
        available = sum(prompt_key(each.prompt) not in apart for each in self.read()[0])
        what = "completions whose prompts are not held out"
        return Amount("completions_per_iteration", self.taken(available), available, what)

    def taken(self, available: int) -> int:
        """How many of the available texts an iteration learns from."""
        return self.completions_per_iteration or min(USUAL_SAMPLES, available)

    def build(self, parts: Parts) -> GivenSamples:
        """A source of the completions that the run keeps."""
        apart = set(map(prompt_key, parts.prompts.held_out))
        examples = examples_of(
            [
                Completion(prompt=prompt, text=text)
                for prompt, text in kept_completions(parts.run)
                if prompt_key(prompt) not in apart
            ]
        )
        return GivenSamples(
            examples,
            asked=self.completions_per_iteration,
            usual=USUAL_SAMPLES,
            policy=parts.scoring_policy(),
            run=parts.run,
            seed=parts.seed,
            world=parts.world,
        )

    def keep(self, run: Path) -> None:
        """Prompts and texts, and what is left out."""
        if self.file is not None:
            say_read(run, read_completions(self.file))
        write_completions(run, [(each.prompt, each.text) for each in self.read()[0]])

    def moved(self, run: Path) -> frozenset[str]:
        """The file may: the texts are recorded."""
        return frozenset({"file"})


def liked(given: Completions) -> list[Completion]:
    """Those that are not disliked; InputError where there are none."""
    kept = [row for row in given.rows if row.liked is not False]
    if not kept:
        raise InputError(f"{given.name}: all completions are disliked; there is none to learn")
    return kept


def say_read(run: Path, given: Completions) -> None:
    """Say how many examples a table has, and what of it is not used; the run's folder names it."""
    for line in given.lines():
        log.info("%s", line)
    write_left_out(run / LEFT_OUT, given.left_out)
    if disliked := sum(row.liked is False for row in given.rows):
        log.info("left out, disliked, so no example: %d of %d", disliked, len(given.rows))
    if any(row.weight != 1 for row in given.rows):
        log.warning("%s: the column weight is not used; every example counts alike", given.name)


def examples_of(completions: list[Completion]) -> list[Example]:
    """Completions as samples with prompts."""
    return [Example(each.prompt, partial(list, (each.text,))) for each in completions]
