"""Ratings of models and adapters, from rankings of their images; those of texts are left out.

A maker is a model with an adapter or without one, as the provenance of an image has them. Adapters
are told apart by the hash of their weights and named by their path, with the hash where one path
had several. A model that draws rewritten prompts is another maker than the model alone. Images that
several makers generated identically are left out.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from imgalign.errors import InputError
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.ratings import (
    Ratings,
    Wins,
    bradley_terry,
    elo,
    orderings,
    plackett_luce,
    wins_of,
)
from imgalign.preferences.records import JudgedBy
from imgalign.preferences.schema import candidates, items, provenances
from imgalign.preferences.store import Store

Method = Literal["bradley-terry", "plackett-luce", "elo"]
Maker = tuple[str, str | None]
"""Model, and the hash of the adapter or its path if it has none."""


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
        return table


def rate_makers(
    store: Store,
    *,
    method: Method = "bradley-terry",
    group: str | None = None,
    project: str | None = None,
    judged_by: JudgedBy = "people",
    ridge: float = 0.0,
) -> MakerRatings:
    """Ratings of the makers of ranked images, from the judgements in the store.

    By people, by AI judges or by both.

    InputError with fewer than two makers, or where no judgements connect them.
    """
    makers = read_makers(store)
    names = {image: makers.names[maker] for image, maker in makers.of_image.items()}
    rankings = chosen_rankings(store, "images", judged_by=judged_by, group=group, project=project)
    judged = orderings(rankings, name=names.get)
    judged = [one for one in judged if len({name for group in one.groups for name in group}) > 1]
    if not judged:
        made = sorted({names[i] for r in rankings for i in r.sample_ids if i in names})
        raise InputError(
            f"ratings: expected rankings of images by different models, got {len(rankings)} "
            f"rankings of images by {', '.join(made[:3]) or 'nobody'}; rank images of two models "
            "together, as the app's Generate page queues them"
        )
    if method == "elo":
        found = elo(judged)
    else:
        rate = bradley_terry if method == "bradley-terry" else plackett_luce
        found = rate(judged, ridge=ridge)
    ranked = {image for ranking in rankings for image in ranking.sample_ids}
    return MakerRatings(
        method=method,
        ratings=found,
        wins=wins_of(judged),
        num_shared=len(ranked & makers.shared),
    )


def read_makers(store: Store) -> Makers:
    """The makers of the images in a store, from their provenance."""
    columns = provenances.c
    statement = select(
        *(columns.image_id, columns.model, columns.adapter, columns.adapter_hash, columns.rewriter)
    )
    makers: dict[str, set[Maker]] = defaultdict(set)
    path_of: dict[Maker, str | None] = {}
    with store.database.read() as connection:
        for row in connection.execute(statement.order_by(columns.sequence)):
            model = row.model if row.rewriter is None else f"{row.rewriter} > {row.model}"
            maker = (model, row.adapter_hash or row.adapter)
            makers[row.image_id].add(maker)
            path_of.setdefault(maker, row.adapter)
    alone = {image: next(iter(who)) for image, who in makers.items() if len(who) == 1}
    return Makers(
        of_image=alone,
        shared=frozenset(makers.keys() - alone.keys()),
        names={maker: _name(maker, path_of) for maker in path_of},
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


def _name(maker: Maker, path_of: dict[Maker, str | None]) -> str:
    """The model and its adapter's path, with the hash if the path had other weights too."""
    model, weights = maker
    path = path_of[maker] or weights
    if path is None:
        return model
    others = sum(other[0] == model and found == path for other, found in path_of.items())
    return f"{model} + {path}" + (f" ({str(weights)[:8]})" if others > 1 else "")
