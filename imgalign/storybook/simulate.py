"""Simulated annotators rank the items of a store, by the same calls as the app.

They get their items and display orders from the store and submit positions on the screen. Utilities
of images come from the storybook's verifier, those of texts from its oracle of texts. The store
marks them as simulated and keeps their group.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from imgalign.errors import InputError
from imgalign.images import as_tensor, read_image_file
from imgalign.preferences.records import Item, Submission, as_positions
from imgalign.preferences.store import Store
from imgalign.storybook.annotators import (
    GROUPS,
    Annotator,
    Habits,
    Impression,
    impressions,
    panel,
)
from imgalign.storybook.text_oracle import text_impressions
from imgalign.storybook.verifier import default_verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Counts of the rankings, and the oracle utilities of what was ranked."""

    num_rankings: int
    num_all_bad: int
    num_skipped: int
    utilities: Mapping[str, tuple[float, ...]]
    """Noiseless utilities of each judged item's candidates, by item id."""


CAREFUL = Habits()


def annotators_of(group: str, num: int, *, seed: int, habits: Habits = CAREFUL) -> list[Annotator]:
    """`num` annotators of one group, a function of the seed; InputError for an unknown group."""
    if group not in GROUPS:
        raise InputError(f"group: expected one of {', '.join(GROUPS)}, got {group!r}")
    mixed = panel(num * 12, seed=seed, habits=habits)
    return [annotator for annotator in mixed if annotator.group == group][:num]


def rank_queue(
    store: Store,
    annotators: Sequence[Annotator],
    *,
    project: str = "default",
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Simulated:
    """Let every annotator rank every item that the store gives them.

    An interrupted call can be repeated: it ranks what is left and returns what an uninterrupted
    call would have returned. All annotators are of one group.
    """
    (group,) = {annotator.group for annotator in annotators}
    for annotator in annotators:
        store.add_annotator(annotator.name, group=group, simulated=True)
    left = sum(store.counts(annotator.name, project=project).left for annotator in annotators)
    seen: dict[str, list[Impression]] = {}
    num_done = 0
    for annotator in annotators:
        while (item := store.next_item(annotator.name, project=project)) is not None:
            if item.item_id not in seen:
                seen[item.item_id] = candidate_impressions(store, item, annotator)
            order = store.display_order(item.item_id, annotator.name)
            said = annotator.rank(seen[item.item_id], order=order, item_id=item.item_id)
            store.submit(
                Submission(
                    key=f"{annotator.name}:{item.item_id}",
                    item_id=item.item_id,
                    annotator=annotator.name,
                    verdict=said.verdict,
                    ranking=None if said.ranking is None else as_positions(said.ranking, order),
                    reason=said.reason,
                )
            )
            num_done += 1
            on_progress(min(1.0, num_done / max(1, left)))
    verdicts: list[str] = []
    impressions_of: dict[str, list[Impression]] = {}
    for annotator in annotators:
        for stored in store.rankings(annotator=annotator.name, project=project):
            verdicts.append(stored.verdict)
            if stored.item_id not in impressions_of:
                impressions_of[stored.item_id] = seen.get(stored.item_id) or candidate_impressions(
                    store, store.issued_item(stored.item_id, annotator.name), annotator
                )
    return Simulated(
        num_rankings=verdicts.count("ranked"),
        num_all_bad=verdicts.count("all_bad"),
        num_skipped=verdicts.count("skipped"),
        utilities={
            item_id: tuple(impression.utility for impression in worth)
            for item_id, worth in impressions_of.items()
        },
    )


def candidate_impressions(store: Store, item: Item, annotator: Annotator) -> list[Impression]:
    """Faithfulness and taste of each candidate of an item, in the order of the candidates.

    InputError for texts whose prompt is no idea of the storybook.
    """
    seen = _of_images if item.samples == "images" else _of_texts
    order = store.display_order(item.item_id, annotator.name)
    of_candidate = dict(zip(order, seen(store, item, annotator), strict=True))
    return [of_candidate[candidate] for candidate in range(len(order))]


def _of_images(store: Store, item: Item, annotator: Annotator) -> list[Impression]:
    shown = [store.image_for_token(token, annotator.name) for token in item.tokens]
    pixels = torch.stack(
        [as_tensor(read_image_file(path, cure="see `imgalign store check`")) for path in shown]
    )
    prompts = [item.prompt] * len(shown)
    return impressions(prompts, pixels, group=annotator.group, verifier=default_verifier())


def _of_texts(store: Store, item: Item, annotator: Annotator) -> list[Impression]:
    shown = [store.text_for_token(token, annotator.name) for token in item.tokens]
    return text_impressions([item.prompt] * len(shown), shown, group=annotator.group)
