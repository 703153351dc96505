"""Ratings of models and adapters, from rankings of their images; those of texts are left out.

A maker is a model with an adapter or without one, as the provenance of an image has them. Adapters
are told apart by the hash of their weights and their strength, and named by their path, with the
hash where one path had several. A model that draws rewritten prompts is another maker than the
model alone. Images that several makers generated identically are left out.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool
from sqlalchemy import Connection, func, select

from imgalign.errors import InputError
from imgalign.preferences import outcomes, queries
from imgalign.preferences.judged import Judged
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.outcomes import FIELDS, MADE, Maker, Outcomes, maker_of
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

Method = Literal["bradley-terry", "plackett-luce", "elo"]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerRatings:
    """Ratings of makers by name."""

    method: Method
    ratings: Ratings
    wins: Wins
    num_shared: int
    """Images left out because several makers generated them identically."""
    num_excluded: int = 0
    """Rankings left out because their annotators are excluded from the project."""

    def lines(self) -> list[str]:
        """A table for a terminal, best first."""
        found = self.ratings
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
        if self.method == "elo":
            table.append(f"elo (points), intervals over {found.num_clusters} prompts")
        else:
            table.append(
                f"{self.method} (nats, mean 0), intervals over {found.num_clusters} prompts and "
                f"{found.num_annotators} annotators"
            )
        if self.num_shared:
            table.append(f"{self.num_shared} images are identical for several of these: left out")
        if self.num_excluded:
            table.append(f"{self.num_excluded} rankings are of excluded annotators: left out")
        return table


def rate_makers(
    store: Store,
    *,
    method: Method = "bradley-terry",
    group: str | None = None,
    project: str | None = None,
    judged_by: JudgedBy = "people",
    ridge: float = 0.0,
    latest: int | None = None,
) -> MakerRatings:
    """Ratings of the makers of ranked images, from the judgements in the store.

    By people, by AI judges or by both; of so many of the `latest` if it is given.

    InputError with fewer than two makers, or where no judgements connect them.
    """
    with store.database.read() as connection:
        found = outcomes.read(connection)
        num_shared = 0
        if found.num_sharing:
            num_shared = _num_shared(connection, group, project, judged_by)
    asked = asked_for(found, group=group, project=project, judged_by=judged_by)
    num_excluded = int((asked & found.excluded).sum())
    asked &= ~found.excluded
    if not asked.any():  # and say why
        rankings = chosen_rankings(
            store, "images", judged_by=judged_by, group=group, project=project
        )
        raise _too_few(len(rankings), ())
    judged = _judged(found, asked)
    if latest is not None:
        judged = judged.latest(latest)
    if not len(judged.kind):
        chosen = found.records[asked, FIELDS.index("order")]
        names = names_of(found.path_of)
        orders = (found.orders[number] for number in np.unique(chosen).tolist())
        made = {names[found.makers[maker]] for order in orders for each in order for maker in each}
        raise _too_few(len(chosen), sorted(made))
    if method == "elo":
        rated = elo(judged)
    else:
        rate = bradley_terry if method == "bradley-terry" else plackett_luce
        rated = rate(judged, ridge=ridge)
    return MakerRatings(
        method=method,
        ratings=rated,
        wins=wins_of(judged),
        num_shared=num_shared,
        num_excluded=num_excluded,
    )


def _too_few(num_rankings: int, made: Sequence[str]) -> InputError:
    return InputError(
        f"ratings: expected rankings of images by different models, got {num_rankings} "
        f"rankings of images by {', '.join(made[:3]) or 'nobody'}; rank images of two models "
        "together, as the app's Generate page queues them"
    )


def asked_for(
    found: Outcomes, *, group: str | None, project: str | None, judged_by: JudgedBy
) -> Bool[np.ndarray, " n"]:
    """Which records are asked for; the log says how many are left out for who judged them."""
    columns = dict(zip(FIELDS, found.records.T, strict=True))
    asked = np.ones(len(found.records), dtype=bool)
    if project is not None:
        asked &= columns["project"] == found.projects.get(project, 0)
    if group is not None:
        own = [number for number, who in found.annotators.items() if who.group_name == group]
        asked &= np.isin(columns["annotator"], own)
    judges = [number for number, who in found.annotators.items() if who.judge_id is not None]
    by_ai = np.isin(columns["annotator"], judges)
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


def _judged(found: Outcomes, asked: Bool[np.ndarray, " n"]) -> Judged:
    """Those of several makers among the records that are asked for."""
    names = names_of(found.path_of)
    prompt, _, annotator, order = found.records[asked].T
    numbers, kind = np.unique(order, return_inverse=True)
    groups = [
        tuple(tuple(names[found.makers[maker]] for maker in group) for group in found.orders[each])
        for each in numbers.tolist()
    ]
    several = np.array([len({who for group in each for who in group}) > 1 for each in groups])
    rated = several[kind]
    renumbered = np.cumsum(several) - 1
    return Judged(
        groups=[each for each, kept in zip(groups, several, strict=True) if kept],
        kind=renumbered[kind[rated]],
        clusters=prompt[rated].astype(np.int64),
        annotators=annotator[rated].astype(np.int64),
    )


def _num_shared(
    connection: Connection, group: str | None, project: str | None, judged_by: JudgedBy
) -> int:
    """Ranked images that several makers generated identically."""
    shared = select(numbers.c.value).where(numbers.c.kind == "shared")
    statement = (
        select(func.count(candidates.c.image_id.distinct()))
        .select_from(candidates.join(rankings, rankings.c.item_id == candidates.c.item_id))
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(candidates.c.image_id.in_(shared), queries.counted())
        .where(*queries.judged_by(judged_by))
    )
    if group is not None:
        statement = statement.where(annotators.c.group_name == group)
    if project is not None:
        statement = statement.where(items.c.project.concat("") == project)
    return int(connection.execute(statement).scalar_one())


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
    """The makers of each item's candidates, judged or not, by item id."""
    statement = select(candidates.c.item_id, candidates.c.image_id)
    if project is not None:
        statement = statement.join(items, items.c.item_id == candidates.c.item_id)
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
