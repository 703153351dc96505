"""Let simulated annotators rank what is queued, through the same store as people do.

They see what the store shows an annotator, in the order in which it shows it, and submit as the app
does; only their eyes are the storybook's verifier. Rankings carry their group's name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from imgalign.pictures import as_tensor
from imgalign.preferences.records import Item, Submission
from imgalign.preferences.store import Store
from imgalign.storybook.annotators import (
    Annotator,
    Ceiling,
    Habits,
    Impression,
    ceiling,
    impressions,
    panel,
)
from imgalign.storybook.verifier import default_verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What the annotators did, and how predictable they are at best."""

    num_rankings: int
    num_all_bad: int
    num_skipped: int
    ceiling: Ceiling


CAREFUL = Habits()


def people(group: str, num: int, *, seed: int, habits: Habits = CAREFUL) -> list[Annotator]:
    """`num` annotators of one group; the same ones for the same seed."""
    everybody = panel(num * 12, seed=seed, habits=habits)
    return [annotator for annotator in everybody if annotator.group == group][:num]


def rank_queue(
    store: Store,
    annotators: Sequence[Annotator],
    *,
    project: str = "default",
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Simulated:
    """Every annotator ranks every item that the store hands them.

    Stopped and started again it goes on with what is left. All annotators are of one group.
    """
    (group,) = {annotator.group for annotator in annotators}
    for annotator in annotators:
        store.add_annotator(annotator.name, group=group)
    left = sum(store.counts(annotator.name, project=project).left for annotator in annotators)
    seen: dict[str, list[Impression]] = {}
    verdicts: list[str] = []
    for annotator in annotators:
        while (item := store.next_item(annotator.name, project=project)) is not None:
            if item.item_id not in seen:
                seen[item.item_id] = look(store, item, annotator)
            judgement = annotator.rank(seen[item.item_id], order=item.order, item_id=item.item_id)
            store.submit(
                Submission(
                    key=f"{annotator.name}:{item.item_id}",
                    item_id=item.item_id,
                    annotator=annotator.name,
                    order=item.order,
                    verdict=judgement.verdict,
                    ranking=judgement.ranking,
                    reason=judgement.reason,
                )
            )
            verdicts.append(judgement.verdict)
            on_progress(min(1.0, len(verdicts) / max(1, left)))
    return Simulated(
        num_rankings=verdicts.count("ranked"),
        num_all_bad=verdicts.count("all_bad"),
        num_skipped=verdicts.count("skipped"),
        ceiling=ceiling(list(seen.values()), habits=annotators[0].habits, seed=seed),
    )


def look(store: Store, item: Item, annotator: Annotator) -> list[Impression]:
    """The annotator's impression of each candidate, in the order of the item."""
    shown = [store.image_for_token(token, annotator.name) for token in item.tokens]
    pixels = torch.stack([as_tensor(Image.open(path)) for path in shown])
    worth = impressions(
        [item.prompt] * len(shown), pixels, group=annotator.group, verifier=default_verifier()
    )
    of_candidate = dict(zip(item.order, worth, strict=True))
    return [of_candidate[candidate] for candidate in range(len(shown))]
