"""Ratings of models and adapters, from rankings of their images; those of texts are left out.

A maker is a model with an adapter or without one, as the provenance of an image has them. Adapters
are told apart by the hash of their weights and their strength, and named by their path, with the
hash where one path had several. A model that draws rewritten prompts is another maker than the
model alone. Images that several makers generated identically are left out.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from sqlalchemy import Connection, select

from imgalign.errors import InputError
from imgalign.preferences import outcomes, queries
from imgalign.preferences.history import History, over_time
from imgalign.preferences.judged import Judged
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.outcomes import MADE, Maker, Outcomes, maker_of
from imgalign.preferences.prompt_sets import PromptSet, numbers_in
from imgalign.preferences.ratings import (
    Ratings,
    Wins,
    bradley_terry,
    elo,
    plackett_luce,
    wins_of,
)
from imgalign.preferences.records import JudgedBy, at_strength
from imgalign.preferences.schema import (
    annotators,
    candidates,
    items,
    numbers,
    provenances,
    rankings,
)
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted, there_are
from imgalign.statistics import distinct

Method = Literal["bradley-terry", "plackett-luce", "elo"]
EARLY_RIDGE = 0.1
"""Of ratings over time, where there is none: after few rankings some makers have won or lost every
pair."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Makers:
    """The makers of the images in a store."""

    of_image: Mapping[str, Maker]
    """The maker by image id, for images with a single maker."""
    shared: frozenset[str]
    """Images that several makers generated identically."""
    names: Mapping[Maker, str]
    """Example: "storybook + runs/a/step-000010"; "runs/rewriter > storybook" draws rewrites."""


class NothingToRateError(InputError):
    """Fewer than two makers among the rankings that are asked for."""

    def __init__(
        self, message: str, *, because: "Lack", num_rankings: int, makers: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.because = because
        self.num_rankings = num_rankings
        """Rankings of images that there are, but for this."""
        self.makers = makers
        """Who made the images of these."""


Lack = Literal["no rankings", "other filters", "other judges", "excluded", "one maker"]
"""What leaves nothing to rate. "other filters": rankings are of other projects, groups or prompts;
"other judges": of AI judges, or people; "one maker": of images by one maker, or by nobody who can
be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerRatings:
    """Ratings of makers by name."""

    method: Method
    parts: tuple[Ratings, ...]
    """Ratings of makers that were compared with each other, directly or through others; the part
    with the most rankings first. Ratings of two parts cannot be compared."""
    wins: Wins
    history: tuple[History, ...] = ()
    """Of each part, where it is asked for."""
    num_shared: int
    """Images left out because several makers generated them identically."""
    num_excluded: int = 0
    """Rankings left out because their annotators are excluded from the project."""

    @property
    def ratings(self) -> Ratings:
        """Those of the largest part, which mostly is the only one."""
        return self.parts[0]

    def lines(self) -> list[str]:
        """A table for a terminal, best first."""
        table = [line for found in self.parts for line in self._table(found)]
        if len(self.parts) > 1:
            table.append(f"{APART.format(number=len(self.parts))}; rank images of both together")
        if self.num_shared:
            shared = there_are(self.num_shared, "image")
            table.append(f"{shared} identical for several of these: left out")
        if self.num_excluded:
            excluded = there_are(self.num_excluded, "ranking")
            table.append(f"{excluded} of excluded annotators: left out")
        return table

    def _table(self, found: Ratings) -> list[str]:
        rows = sorted(
            zip(
                found.score, found.low, found.high, found.num_comparisons, found.items, strict=True
            ),
            reverse=True,
        )
        sign, digits = ("", ".0f") if self.method == "elo" else ("+", ".2f")
        table = [f"{'rating':>8}  {'95 % interval':<18}  {'pairs':>7}  made by"]
        for score, low, high, pairs, name in rows:
            interval = f"[{low:{sign}{digits}}, {high:{sign}{digits}}]"
            table.append(f"{score:>{sign}8{digits}}  {interval:<18}  {pairs:>7}  {name}")
        prompts = counted(found.num_clusters, "prompt")
        if self.method == "elo":
            table.append(f"elo (points), intervals over {prompts}")
        else:
            table.append(
                f"{self.method} (nats, mean 0), intervals over {prompts} and "
                f"{counted(found.num_annotators, 'annotator')}"
            )
        return table


APART = (
    "images of these {number} groups were never ranked together, so ratings of different groups "
    "cannot be compared"
)


def rate_makers(
    store: Store,
    *,
    method: Method = "bradley-terry",
    group: str | None = None,
    project: str | None = None,
    judged_by: JudgedBy = "people",
    prompts: PromptSet | None = None,
    ridge: float = 0.0,
    latest: int | None = None,
    points: int = 0,
) -> MakerRatings:
    """Ratings of the makers of ranked images, from the judgements in the store.

    By people, by AI judges or by both; of so many of the `latest` if it is given; with the history
    at so many `points` in time. Each connected part of the makers has ratings of its own.

    NothingToRateError with fewer than two makers.
    """
    with store.database.read() as connection:
        found = outcomes.read(connection)
        num_shared = 0
        if found.num_sharing:
            num_shared = _num_shared(connection, group, project, judged_by, prompts)
        chosen = None if prompts is None else numbers_in(connection, prompts)
    asked = asked_for(found, group=group, project=project, judged_by=judged_by, prompts=chosen)
    num_excluded = int((asked & found.excluded).sum())
    counted = asked & ~found.excluded
    sequences, judged = _judged(found, counted)
    if not len(judged.kind):
        if counted.any():
            raise _one_maker(found, counted)
        by_anybody = asked_for(found, group=group, project=project, judged_by="all", prompts=chosen)
        raise _none(
            store, found, by_anybody, asked, group=group, project=project, judged_by=judged_by
        )
    used = judged if latest is None else judged.latest(latest)
    rate: Callable[[Judged], Ratings] = elo
    early: Callable[[Judged], Ratings] = partial(elo, num_resamples=0)
    if method != "elo":
        by_model = bradley_terry if method == "bradley-terry" else plackett_luce
        rate = partial(by_model, ridge=ridge)
        early = partial(by_model, ridge=ridge or EARLY_RIDGE, intervals=False)
    parts, of_used = used.parts(), sequences[len(sequences) - len(used.kind) :]
    return MakerRatings(
        method=method,
        parts=tuple(rate(part) for _, part in parts),
        wins=wins_of(used),
        history=tuple(
            over_time(store, of_used[places], part, rate=early, points=points)
            for places, part in parts
        )
        if points
        else (),
        num_shared=num_shared,
        num_excluded=num_excluded,
    )


def _one_maker(found: Outcomes, kept: Bool[np.ndarray, " n"]) -> NothingToRateError:
    names = names_of(found.path_of)
    kinds = np.unique(found.order[kept]).tolist()
    groups = [group for kind in kinds for group in found.orders[kind]]
    made = sorted({names[found.makers[maker]] for group in groups for maker in group})
    num = int(kept.sum())
    rankings = counted(num, "ranking")
    return NothingToRateError(
        f"ratings: expected rankings of images by different models, got {rankings} of images by "
        f"{', '.join(made[:3]) or 'models that made them alike'}; rank images of two models "
        "together, as the app's Generate page queues them",
        because="one maker",
        num_rankings=num,
        makers=made,
    )


def _none(
    store: Store,
    found: Outcomes,
    by_anybody: Bool[np.ndarray, " n"],
    asked: Bool[np.ndarray, " n"],
    *,
    group: str | None,
    project: str | None,
    judged_by: JudgedBy,
) -> NothingToRateError:
    """Why no record that is asked for counts; `by_anybody` are those that others judged, too."""
    because: Lack = "no rankings"
    num = len(found.order)
    if asked.any():
        because, num = "excluded", int(asked.sum())
    elif by_anybody.any():
        because, num = "other judges", int(by_anybody.sum())
    elif num:
        because = "other filters"
    message = "ratings: expected rankings of images by different models, got none"
    try:  # an error says which others there are
        chosen_rankings(store, "images", judged_by=judged_by, group=group, project=project)
        message += "; queue some on the Generate page of the app, and rank them"
    except InputError as error:
        message = str(error)
    return NothingToRateError(message, because=because, num_rankings=num)


def asked_for(
    found: Outcomes,
    *,
    group: str | None,
    project: str | None,
    judged_by: JudgedBy,
    prompts: Int[np.ndarray, " p"] | None = None,
) -> Bool[np.ndarray, " n"]:
    """Which records are asked for; the log says how many are left out for who judged them."""
    asked = np.ones(len(found.order), dtype=bool)
    if project is not None:
        asked &= found.project == found.projects.get(project, 0)
    if group is not None:
        own = [number for number, who in found.annotators.items() if who.group_name == group]
        asked &= np.isin(found.annotator, own)
    if prompts is not None:
        asked &= np.isin(found.prompt, prompts)
    judges = [number for number, who in found.annotators.items() if who.judge_id is not None]
    by_ai = np.isin(found.annotator, judges)
    if judged_by == "all":
        return asked
    others = asked & (by_ai if judged_by == "people" else ~by_ai)
    kept = asked & ~others
    if kept.any() and others.any():
        name = "AI judges" if judged_by == "people" else "people"
        log.warning(
            "ratings: %d by %s are left out; --judged-by all takes them too", others.sum(), name
        )
    return np.asarray(kept)


def _judged(found: Outcomes, asked: Bool[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " m"], Judged]:
    """Those of several makers among the records that are asked for, and their sequences."""
    names = names_of(found.path_of)
    numbers, kind = distinct(found.order[asked])
    groups = [
        tuple(tuple(names[found.makers[maker]] for maker in group) for group in found.orders[each])
        for each in numbers.tolist()
    ]
    several = np.array(
        [len({who for group in each for who in group}) > 1 for each in groups], dtype=bool
    )
    rated = np.flatnonzero(asked)[several[kind]]
    renumbered = np.cumsum(several) - 1
    judged = Judged(
        groups=[each for each, kept in zip(groups, several, strict=True) if kept],
        kind=renumbered[kind[several[kind]]],
        clusters=found.prompt[rated],
        annotators=found.annotator[rated],
    )
    return found.sequences[rated], judged


def _num_shared(
    connection: Connection,
    group: str | None,
    project: str | None,
    judged_by: JudgedBy,
    prompts: PromptSet | None,
) -> int:
    """Ranked images that several makers generated identically."""
    shared = select(numbers.c.value).where(numbers.c.kind == "shared")
    statement = (
        select(candidates.c.image_id, items.c.prompt)
        .distinct()
        .select_from(candidates.join(rankings, rankings.c.item_id == candidates.c.item_id))
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(candidates.c.image_id.in_(shared), queries.counted(), ~queries.is_attention())
        .where(*queries.judged_by(judged_by))
    )
    if group is not None:
        statement = statement.where(annotators.c.group_name == group)
    if project is not None:
        statement = statement.where(items.c.project.concat("") == project)
    rows = connection.execute(statement).all()
    return len({row.image_id for row in rows if prompts is None or row.prompt in prompts})


def read_makers(store: Store) -> Makers:
    """The makers of the images in a store, from their provenance."""
    statement = select(provenances.c.image_id, *MADE)
    makers: dict[str, set[Maker]] = defaultdict(set)
    path_of: dict[Maker, str | None] = {}
    with store.database.read() as connection:
        for row in connection.execute(statement.order_by(provenances.c.sequence)):
            maker = maker_of(row)
            makers[row.image_id].add(maker)
            path_of.setdefault(maker, row.adapter)
    alone = {image: next(iter(who)) for image, who in makers.items() if len(who) == 1}
    return Makers(
        of_image=alone,
        shared=frozenset(makers.keys() - alone.keys()),
        names=names_of(path_of),
    )


def item_makers(
    store: Store, makers: Makers, *, project: str | None = None
) -> dict[str, set[Maker]]:
    """The makers of each item's candidates, judged or not, by item id; without attention items."""
    statement = select(candidates.c.item_id, candidates.c.image_id)
    statement = statement.join(items, items.c.item_id == candidates.c.item_id)
    statement = statement.where(~queries.is_attention())
    if project is not None:
        statement = statement.where(items.c.project == project)
    found: dict[str, set[Maker]] = defaultdict(set)
    with store.database.read() as connection:
        for row in connection.execute(statement):
            if row.image_id in makers.of_image:
                found[row.item_id].add(makers.of_image[row.image_id])
    return dict(found)


def names_of(path_of: Mapping[Maker, str | None]) -> dict[Maker, str]:
    """What makers are called, by the paths of their adapters."""
    return {maker: _name(maker, path_of) for maker in path_of}


def _name(maker: Maker, path_of: Mapping[Maker, str | None]) -> str:
    """The model and its adapter's path, with the hash if the path had other weights too."""
    path = path_of[maker] or maker.weights
    if path is None:
        return maker.model
    there = {
        other.weights
        for other, found in path_of.items()
        if other.model == maker.model and found == path
    }
    which = f" ({str(maker.weights)[:8]})" if len(there) > 1 else ""
    return f"{maker.model} + {at_strength(f'{path}{which}', maker.strength)}"
