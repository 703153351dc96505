"""Rankings of short texts by somebody who likes the colours that come late in COLOURS."""

import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from imgalign.preferences.records import Ranking, ranks, tie_groups
from imgalign.preferences.texts import text_id

COLOURS = ("blue", "gray", "pink", "red!")
"""Of one length, so that length says nothing."""
ANIMALS = ("cat", "dog", "fox", "owl")


def make_text_rankings(
    count: int, *, candidates: int = 3, seed: int = 0
) -> tuple[list[Ranking], dict[str, str]]:
    """Rankings of prompts that are all different, and their texts by id."""
    rng = random.Random(seed)
    rankings: list[Ranking] = []
    texts: dict[str, str] = {}
    for number in range(count):
        animal = rng.choice(ANIMALS)
        colours = rng.sample(COLOURS, candidates)
        own = {text_id(text): text for text in (f"{colour} {animal}" for colour in colours)}
        texts |= own
        likes = [float(COLOURS.index(colour)) for colour in colours]
        rankings.append(judgement(f"{animal} {number}", own, likes))
    return rankings, texts


def judgement(prompt: str, texts: Mapping[str, str], utilities: list[float]) -> Ranking:
    """One judgement of texts, given by id, in the order of their utilities."""
    return Ranking(
        ranking_id=prompt,
        prompt=prompt,
        sample_ids=tuple(texts),
        samples="texts",
        order=tuple(range(len(texts))),
        ranking=tie_groups(utilities),
        verdict="ranked",
        reason=None,
        annotator="ann",
        group="cosy",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def write_text_table(path: Path, rankings: Iterable[Ranking], texts: Mapping[str, str]) -> Path:
    """The rankings as JSON lines, and one row that says nothing."""
    rows: list[dict[str, object]] = [
        {
            "prompt": each.prompt,
            "completions": [texts[sample] for sample in each.sample_ids],
            "ranks": ranks(each),
        }
        for each in rankings
    ]
    rows.append({"prompt": "p", "completions": ["x", "x"], "ranks": [0, 1]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
