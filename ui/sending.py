"""Sending images of the Generate page to people who rank them: which items, and into which project.

What annotators see of an item is the store's: its display order, and tokens for its images.
"""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise
from typing import Any

from imgalign.errors import InputError
from imgalign.preferences import validation
from imgalign.preferences.coverage import coverage, queued_projects
from imgalign.preferences.records import comparisons_of
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted, there_are
from ui.image_request import Typed, whole
from ui.shelf import Shelf

PAIRS, CHECKPOINTS, REWRITES, TOGETHER = (
    *("base against aligned", "checkpoints against each other"),
    *("plain against rewritten", "all images of a prompt"),
)
COMPARISONS = (PAIRS, CHECKPOINTS)
"""What tests a model; a reward that learned from it would have seen its own test."""
GROUP = 4
"""The fewest candidates per ranking when all images of a prompt are ranked together."""
MAX_IMAGES = 9
"""Candidates that the keys 1 to 9 can rank."""
MOST_ANNOTATORS = 50

_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was stored: items that are new, those that were there already, and where."""

    new: int
    known: int
    project: str

    def line(self) -> str:
        """Example: "Stored 4 items in the project default-compare"."""
        place = f"the project {self.project}"
        if not self.new and not self.known:
            return "Nothing to rank: the images of each item are equal"
        if not self.new:
            return f"Nothing was sent again: {there_are(self.known, 'item')} in {place}"
        rest = f"; {self.known} more {_are(self.known)} there already" if self.known else ""
        return f"Stored {counted(self.new, 'item')} in {place}{rest}"


def send(
    store: Store,
    shelf: Shelf,
    value: dict[str, Any] | None,
    *,
    how: str,
    overlap: Typed,
    project: str | None = "default",
) -> Sent:
    """Store the images with their provenance and queue items to rank; again, only what is new.

    `how` is PAIRS, CHECKPOINTS or REWRITES (items of two images of one seed) or TOGETHER (items of
    about GROUP candidates). Pairs are queued in random order: what two sets next to each other have
    in common would be the base. The prompt of an item is what was asked, also where an image is of
    its rewrite. Equal images of an item are one candidate; an item with fewer than two is left out.
    """
    annotators = whole("annotators per item", overlap, least=1, below=MOST_ANNOTATORS + 1)
    if not value or not value["groups"]:
        raise InputError("nothing to send: generate images first")
    project = (project or "").strip()
    if not project:
        raise InputError("project: choose one, or write the name of a new one")
    validation.name("project", project)
    _refuse_missing_rows(value["rows"], how)
    # Everything is looked up before anything is stored: all of it is sent, or nothing.
    items = [
        (group["prompt"], [shelf.get(image_id) for image_id in chosen])
        for group in value["groups"]
        for chosen in _candidates(value["rows"], group["seeds"], how)
    ]
    if how != TOGETHER:
        random.SystemRandom().shuffle(items)
    compared = list(dict.fromkeys(row["checkpoint"] for row in value["rows"] if row["checkpoint"]))
    source = f"generate: {', '.join(compared) or 'base'}"
    source += f", rewritten by {value['rewriter']}" if _has_rewrites(value["rows"]) else ""
    with _ONE_AT_A_TIME:
        before = coverage(store, project=project, source=source, simulated=False).prompts
        queued = set()
        for prompt, kept in items:
            image_ids = list(dict.fromkeys(store.add_image(k.png, k.provenance) for k in kept))
            if len(image_ids) >= 2:
                queued.add(
                    store.add_item(
                        prompt, image_ids, source=source, project=project, overlap=annotators
                    )
                )
    known = len(queued & before.keys())
    return Sent(new=len(queued) - known, known=known, project=project)


def proposed_project(how: str, project: str) -> str:
    """Where these items belong by default: comparisons apart from what rewards are trained on."""
    return comparisons_of(project) if how in COMPARISONS else project


def projects(store: Store, project: str) -> list[str]:
    """All that can be chosen: the app's own, that of its comparisons, and those that have items."""
    own = [project, proposed_project(PAIRS, project)]
    return list(dict.fromkeys([*own, *queued_projects(store)]))


def way_for(rows: Sequence[Mapping[str, Any]], how: str) -> str:
    """How rows that were just drawn are proposed to be ranked: what was chosen, where they fit.

    Images of base and checkpoint are not mixed unasked: the run would be tested by rankings that
    others learn from.
    """
    compares = any(row["checkpoint"] for row in rows)
    if how == TOGETHER and compares:
        return PAIRS
    try:
        _refuse_missing_rows(rows, how)
    except InputError:
        return PAIRS if compares else TOGETHER
    return how


def _refuse_missing_rows(rows: Sequence[Mapping[str, Any]], how: str) -> None:
    number = len({row["key"] for row in rows if row["checkpoint"] and not row["rewritten"]})
    if how == PAIRS and number < 1:
        raise InputError(f"{PAIRS}: choose a checkpoint and generate first, or send them together")
    if how == CHECKPOINTS and number < 2:
        raise InputError(f"{CHECKPOINTS}: compare with two or more and generate first")
    if how == REWRITES and not _has_rewrites(rows):
        raise InputError(f"{REWRITES}: switch rewriting on and generate first")


def _has_rewrites(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["rewritten"] for row in rows)


def _candidates(
    rows: Sequence[Mapping[str, Any]], seeds: Sequence[Mapping[str, Any]], how: str
) -> list[list[str]]:
    """Image ids of each item: pairs, or about equal groups of GROUP and more, of whole seeds."""
    if how != TOGETHER:
        pairs = [[cell.get(key) for key in pair] for cell in seeds for pair in _pairs(rows, how)]
        return [[each for each in pair if each] for pair in pairs if all(pair)]
    units = [[cell[row["key"]] for row in rows if cell.get(row["key"])] for cell in seeds]
    units = [unit for unit in units if unit]
    number = min(max(sum(map(len, units)) // GROUP, 1), len(units))
    bounds = [len(units) * part // number for part in range(number + 1)] if units else [0]
    groups = [list(chain.from_iterable(units[i:j])) for i, j in pairwise(bounds)]
    assert all(len(group) <= MAX_IMAGES for group in groups)
    return groups


def _pairs(rows: Sequence[Mapping[str, Any]], how: str) -> list[tuple[str, str]]:
    """Keys of the rows that are ranked against each other."""
    if how == REWRITES:  # the two rows of a side stand one below the other
        return [(a["key"], b["key"]) for a, b in pairwise(rows) if b["rewritten"]]
    return [
        (a["key"], b["key"])
        for a, b in combinations(rows, 2)
        if a["rewritten"] == b["rewritten"]
        and b["checkpoint"]
        and bool(a["checkpoint"]) == (how == CHECKPOINTS)
    ]


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
