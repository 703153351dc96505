"""Records of preference data, as frozen dataclasses.

A ranking is stored once, as tie groups from best to worst; pairs, ranks and the like are derived
from it, never kept beside it. Candidates are numbered 0 .. K-1 in the order of the item, positions
0 .. K-1 as they stand on an annotator's screen. The display order, which says the candidate
at each position, is the store's: an `Item` and a `Submission` speak of positions only.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations, pairwise
from typing import Annotated, Literal

from PIL import Image
from pydantic import Field, PositiveInt, model_validator

from imgalign import __version__
from imgalign.config import Config, refuse_ineffective

ATTENTION = "attention: "
"""The source of an attention item (`attention.py`) begins so."""
AGAIN = "asked again: "
"""The source of a repeat begins so, and goes on with the id of the item that it repeats."""

Verdict = Literal["ranked", "all_bad", "skipped"]
Samples = Literal["images", "texts"]
"""What the candidates of an item are; they are all of one kind."""
JudgedBy = Literal["people", "ai", "all"]
"""Whose rankings are read: those of people, with simulated annotators in their place; those of AI
judges; or all of them, mixed."""
TieGroups = tuple[tuple[int, ...], ...]
COMPARISONS = "-compare"
"""Ends the names of projects of blind comparisons."""


def utc_now() -> datetime:
    """The present time, timezone-aware."""
    return datetime.now(UTC)


UNKNOWN, UNKNOWN_NUMBER = "unknown", -1
"""What stands in the provenance of a sample made elsewhere where nobody knows."""
ELSEWHERE = "elsewhere"
"""The version of imgalign in the provenance of a sample that it did not make."""


class SamplerSettings(Config):
    """How an image is sampled from its prompt and seed."""

    num_inference_steps: PositiveInt = 20
    """Denoising steps per image."""

    guidance_scale: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    """Classifier-free guidance; 1 is off. Pretrained hub models are at their best from 5 to 8."""

    negative_prompt: str = ""
    """What guidance leads away from; it needs a guidance_scale above 1."""

    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Noise added at each step, from 0 (none after the first) to 1."""

    scheduler: str = "ddim"
    """ddim is what training samples with, model the scheduler that the model came with; others by
    name, such as dpmpp_2m, euler_a or unipc."""

    width: PositiveInt | None = None
    """Pixels; null is the model's own width."""

    height: PositiveInt | None = None
    """Pixels; null is the model's own height."""

    @model_validator(mode="after")
    def _a_negative_prompt_needs_guidance(self) -> "SamplerSettings":
        if self.guidance_scale == 1:
            why = "at a guidance_scale of 1; use one above 1, or leave it out"
            refuse_ineffective(self, ["negative_prompt"], why)
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything needed to generate an image again.

    Sizes are in pixels, seeds fit 63 bits, `steps` is the number of inference steps. Of an image
    made elsewhere `imgalign_version` is ELSEWHERE, and what is not known UNKNOWN or UNKNOWN_NUMBER.
    """

    model: str
    prompt: str
    seed: int
    steps: int
    guidance_scale: float
    scheduler: str
    eta: float
    width: int
    height: int
    adapter: str | None = None
    """The trained weights on top of the model: a LoRA, or a checkpoint of either kind."""
    adapter_hash: str | None = None
    strength: float = 1.0
    """How strongly a LoRA was applied: 1 is as it was trained."""
    negative_prompt: str = ""
    dtype: str = "float32"
    """The dtype of the network's computation."""
    original_prompt: str | None = None
    """What was asked for, where `prompt` is a rewrite of it; else None."""
    rewriter: str | None = None
    """The language model that rewrote it."""
    imgalign_version: str = __version__
    created_at: datetime = field(default_factory=utc_now)


def at_strength(name: str, strength: float) -> str:
    """What trained weights are called at a strength. Example: "runs/a at 0.6"; at 1, "runs/a"."""
    return name if strength == 1 else f"{name} at {strength:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextProvenance:
    """Everything needed to generate a text again.

    `prompt` is what the model was asked, before its chat template. Seeds fit 63 bits, a temperature
    of 0 is greedy decoding. Of a text made elsewhere `imgalign_version` is ELSEWHERE, and what is
    not known UNKNOWN or UNKNOWN_NUMBER.
    """

    model: str
    prompt: str
    seed: int
    temperature: float
    max_new_tokens: int
    """Tokens after which generation was cut off."""
    adapter: str | None = None
    """The trained weights on top of the model: a LoRA, or a checkpoint of either kind."""
    adapter_hash: str | None = None
    dtype: str = "float32"
    """The dtype of the network's computation."""
    imgalign_version: str = __version__
    created_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeProvenance:
    """What an AI judge is: a model that is asked by the principles of a constitution.

    Another model, server, constitution or wording is another judge.
    """

    model: str
    """A folder or hub id, or the name by which a server knows it."""
    constitution_name: str
    constitution: str
    """The principles, as JSON in canonical form."""
    question_hash: str
    """SHA-256 of the wording of the questions around the principles."""
    revision: str | None = None
    """What tells versions of the model apart, where known: a hub's commit, or a hash of weights."""
    host: str | None = None
    """Host and port of the server that answered; None for a local model."""
    image_size: int | None = None
    """Pixels of the longer side to which images were reduced; None where none can be shown."""

    @property
    def constitution_hash(self) -> str:
        """The SHA-256 of the principles."""
        return hashlib.sha256(self.constitution.encode()).hexdigest()

    @property
    def judge_id(self) -> str:
        """The SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What an AI judge answered to one question: which of two candidates follows a principle.

    `first` and `second` say which candidate was shown in which place; None as the choice where the
    answer could not be read.
    """

    principle: int
    first: int
    second: int
    choice: Literal["first", "second"] | None


AnnotatorKind = Literal["a person", "a simulated annotator", "an AI judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """An annotator; `group` names a shared taste.

    `simulated` marks one of the storybook's, `judge_id` an AI judge: neither is a person.
    """

    annotator_id: str
    name: str
    group: str
    simulated: bool = False
    judge_id: str | None = None

    @property
    def kind(self) -> AnnotatorKind:
        """What it is, in words."""
        if self.judge_id is not None:
            return "an AI judge"
        return "a simulated annotator" if self.simulated else "a person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Candidates on the screen of one annotator, without their provenance.

    `tokens` are opaque names of the images or texts, one per position; they work for this annotator
    only. The id is not opaque (issued.py), and belongs in no page that is blind.
    """

    item_id: str
    prompt: str
    tokens: tuple[str, ...]
    samples: Samples = "images"

    @property
    def issued_name(self) -> str:
        """What the item is called to this annotator; `issued.item_named` finds it again."""
        return self.tokens[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One judgement on its way to the store.

    `key` is made by the client, once per judgement, so that a repeated request changes nothing.
    `ranking` holds every position on the annotator's screen exactly once, in tie groups from best
    to worst, when the verdict is "ranked", and is None otherwise; "skipped" needs a reason,
    "all_bad" may have one. `client_ms` is how long the annotator looked, in milliseconds.
    `answers` are those of an AI judge, in positions too, and of nobody else. `replaces` are keys of
    earlier judgements of this item that this one corrects, and which may have arrived or not.
    Example: ranking ((2,), (0, 1)) puts the third candidate first and ties the other two.
    """

    key: str
    item_id: str
    annotator: str
    ranking: TieGroups | None = None
    verdict: Verdict = "ranked"
    reason: str | None = None
    client_ms: int | None = None
    answers: tuple[Answer, ...] = ()
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """Acknowledges that a judgement is on disk; `created` is False when it already was."""

    ranking_id: str
    created: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of items that an annotator has judged, that are left for them, and that others hold
    at the moment.

    `qualifying` are left of the project's qualification and come first; who is `held` did not
    qualify, and nothing is left for them.
    """

    done: int
    left: int
    waiting: int
    qualifying: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One judgement. Example: prompt "a red fox", ranking ((2,), (0, 1), (3,)) means candidate 2
    is best, 0 and 1 tie, 3 is worst. Of a single candidate ((0,),) is a like.

    `sample_ids` are the candidates 0 .. K-1, and `samples` says what they are: images, each named
    by the SHA-256 of its file, or texts, each by that of its UTF-8 bytes. `order` is the display
    permutation: (2, 0, 1) says that candidate 2 was shown first. `undone_at` is set on judgements
    that their annotator took back, `simulated` on those of a simulated annotator. `judge_id` is set
    on those of an AI judge, which have its `answers`, in candidates. `propensity` is with which
    probability the item was chosen for the annotator; None where nothing was drawn, as when the
    oldest is ranked first.
    """

    ranking_id: str
    prompt: str
    sample_ids: tuple[str, ...]
    order: tuple[int, ...]
    ranking: TieGroups | None
    verdict: Verdict
    reason: str | None
    annotator: str
    group: str
    created_at: datetime
    item_id: str = ""
    project: str = "default"
    source: str = ""
    key: str = ""
    client_ms: int | None = None
    undone_at: datetime | None = None
    simulated: bool = False
    samples: Samples = "images"
    judge_id: str | None = None
    answers: tuple[Answer, ...] = ()
    propensity: float | None = None

    @property
    def is_attention(self) -> bool:
        """Whether it is of an attention item, of whose images one alone belongs to the prompt."""
        return self.source.startswith(ATTENTION)


def as_candidates(groups: TieGroups, order: Sequence[int]) -> TieGroups:
    """Tie groups of candidates from tie groups of positions; `order` is a display permutation.

    Example: ((0,), (1, 2)) shown in the order (2, 0, 1) gives ((2,), (0, 1)).
    """
    return tuple(tuple(sorted(order[position] for position in group)) for group in groups)


def as_positions(groups: TieGroups, order: Sequence[int]) -> TieGroups:
    """Tie groups of positions from tie groups of candidates: the inverse of `as_candidates`."""
    position_of = {candidate: position for position, candidate in enumerate(order)}
    return tuple(tuple(sorted(position_of[i] for i in group)) for group in groups)


def pairs(ranking: Ranking) -> list[tuple[int, int]]:
    """(better, worse) candidate indices of every strict preference, K(K-1)/2 of them if no ties.

    Example: ((2,), (0, 1)) gives (2, 0) and (2, 1). Empty unless the verdict is "ranked".
    """
    return strict_pairs(ranking.ranking or ())


def strict_pairs(groups: TieGroups) -> list[tuple[int, int]]:
    """(better, worse) of every strict preference in an order of tie groups, best first."""
    return [(i, j) for better, worse in combinations(groups, 2) for i in better for j in worse]


def comparisons_of(project: str) -> str:
    """The project of blind comparisons of what was learned in a project; of such a one itself."""
    return project if holds_comparisons(project) else project + COMPARISONS


def holds_comparisons(project: str) -> bool:
    """Whether a project tests what was learned, so that nothing may learn from it unasked."""
    return project.endswith(COMPARISONS)


def compares(ranking: Ranking) -> bool:
    """Whether it is a ranking of several; of one it is a like, and all bad a dislike."""
    return ranking.verdict == "ranked" and len(ranking.sample_ids) > 1


def tied_pairs(ranking: Ranking) -> list[tuple[int, int]]:
    """Candidate indices that the annotator called equal, smaller index first."""
    groups = ranking.ranking or ()
    return [pair for group in groups for pair in combinations(sorted(group), 2)]


def ranks(ranking: Ranking) -> tuple[int, ...]:
    """Rank of each candidate: 0 is best, equal ranks tie, -1 where nothing was ranked.

    Example: ((2,), (0, 1)) gives (1, 1, 0).
    """
    of = {i: rank for rank, group in enumerate(ranking.ranking or ()) for i in group}
    return tuple(of.get(i, -1) for i in range(len(ranking.sample_ids)))


def tie_groups(scores: Sequence[float], *, tolerance: float = 0.0) -> TieGroups:
    """Tie groups of scores, highest first; neighbours at most `tolerance` apart tie.

    Example: scores (1.0, 3.0, 1.0) give ((1,), (0, 2)).
    """
    by_score = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    groups = [by_score[:1]]
    for above, below in pairwise(by_score):
        if scores[above] - scores[below] <= tolerance:
            groups[-1].append(below)
        else:
            groups.append([below])
    return tuple(tuple(sorted(group)) for group in groups if group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A generated image. `unread` is the end of the prompt that was truncated."""

    image: Image.Image
    provenance: Provenance
    unread: str = ""

    def asked_as(self, original: str, *, rewriter: str) -> "Generated":
        """The same image, whose prompt is a rewrite of `original`; unchanged where they are equal.

        `rewriter` is the name of the language model that rewrote it.
        """
        if original == self.provenance.prompt:
            return self
        made = replace(self.provenance, original_prompt=original, rewriter=rewriter)
        return replace(self, provenance=made)
