"""Attention items: sets that anybody who looks at them gets right.

One image belongs to the prompt, the others were made for prompts of the project that are clearly
different from it, and from any that the first was made for.
An annotator gets such an item as any other, among those that are open, and nothing that an
annotator can reach tells it apart. Its other images do not belong to its prompt, so that its
judgements are counted as progress and read by `quality.py`, and by nothing that learns or rates.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from imgalign.errors import InputError
from imgalign.preferences import adding, queries, tallies, validation
from imgalign.preferences.records import ATTENTION, utc_now
from imgalign.preferences.schema import annotators, candidates, items, provenances
from imgalign.preferences.schema import tallies as progress
from imgalign.preferences.store import Store

LATEST = 5_000
"""Items to build from: the latest of a project."""
MOST_ITEMS = 100
AT_ONCE = 400
"""Ids of one query: databases take some hundreds."""
STEM = 3
"""Leading letters by which words are compared, so that "fox" and "foxes" are one."""
MOST_SHARED = 0.1
"""Share of the words of the shorter of two clearly different prompts that both may have."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
"""A character of Chinese or Japanese, which have no spaces, or a word."""
_SAYS_NOTHING = frozenset(
    re.findall(
        r"\w+",
        "a an and are at by for from her his in is it its of on or the to with photo photograph "
        "picture image painting drawing illustration style quality detailed",
    )
)
"""Words that any two prompts may have in common."""


@dataclass(slots=True)
class _Known:
    """What items can be built from."""

    shown: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """(prompt, images) of each item with two images or more, in the order of the queue."""
    prompts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Every prompt that an image was made or shown for, by the image."""
    used: Counter[str] = field(default_factory=Counter)
    """How many attention items each prompt has."""


def add_attention(
    store: Store, project: str, *, count: int, overlap: int, seed: int | None = None
) -> list[str]:
    """Queue so many attention items among the open ones, each of another prompt; their ids.

    They are built from the images and prompts of the project's other items, the same ones by the
    same seed; prompts that have fewer attention items come first. The image that belongs is
    candidate 0. InputError where there are too few prompts or images.
    """
    if not 1 <= count <= MOST_ITEMS:
        raise InputError(f"attention items: expected 1 to {MOST_ITEMS}, got {count}")
    if not 1 <= overlap <= validation.MAX_OVERLAP:
        raise InputError(f"annotators: expected 1 to {validation.MAX_OVERLAP}, got {overlap}")
    chance = random.Random(seed)
    with store.database.write() as connection:
        known = _known(connection, project)
        built = _built(known, count, chance)
        if len(built) < count:
            raise InputError(
                f"attention items: expected at most {len(built)}, got {count}; each needs a prompt "
                f"of project {project!r} with images of prompts that share no words with it"
            )
        earlier = select(func.count()).where(items.c.project == project, queries.is_attention())
        number, now = connection.execute(earlier).scalar_one(), utc_now()
        added = [
            adding.add_item(
                connection,
                prompt,
                images,
                source=f"{ATTENTION}{number + place}",
                project=project,
                overlap=overlap,
                now=now,
            )
            for place, (prompt, images) in enumerate(built)
        ]
        _mix(connection, project, added, chance)
    return added


def _known(connection: Connection, project: str) -> _Known:
    found = _Known()
    latest = (
        select(items.c.item_id, items.c.prompt, items.c.source)
        .where(items.c.project == project, items.c.samples == "images")
        .order_by(items.c.sequence.desc())
        .limit(LATEST)
    )
    prompt_of: dict[str, str] = {}
    for row in reversed(connection.execute(latest).all()):
        if row.source.startswith(ATTENTION):
            found.used[row.prompt] += 1
        else:
            prompt_of[row.item_id] = row.prompt
    images: dict[str, list[str]] = defaultdict(list)
    for some in _portions(prompt_of):
        of_them = select(candidates.c.item_id, candidates.c.image_id)
        of_them = of_them.where(candidates.c.item_id.in_(some)).order_by(candidates.c.candidate)
        for item_id, image_id in connection.execute(of_them):
            images[item_id].append(image_id)
            found.prompts[image_id].add(prompt_of[item_id])
    for some in _portions(list(found.prompts)):
        made = select(
            provenances.c.image_id, provenances.c.prompt, provenances.c.original_prompt
        ).where(provenances.c.image_id.in_(some))
        for image_id, *prompts in connection.execute(made):
            found.prompts[image_id] |= {each for each in prompts if each is not None}
    found.shown = [
        (prompt, tuple(images[item_id]))
        for item_id, prompt in prompt_of.items()
        if len(images[item_id]) > 1
    ]
    return found


def _portions(ids: Iterable[str]) -> list[list[str]]:
    every = list(ids)
    return [every[start : start + AT_ONCE] for start in range(0, len(every), AT_ONCE)]


def _built(known: _Known, count: int, chance: random.Random) -> list[tuple[str, list[str]]]:
    """(prompt, images) of so many attention items, or of as many as can be built."""
    words = {prompt: _words(prompt) for of in known.prompts.values() for prompt in of}
    sets_of: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for prompt, images in known.shown:
        sets_of[prompt].append(images)
    prompts = list(sets_of)
    chance.shuffle(prompts)
    every = list(known.prompts)
    built: list[tuple[str, list[str]]] = []
    for prompt in sorted(prompts, key=lambda each: known.used[each]):
        if len(built) == count:
            break
        images = chance.choice(sets_of[prompt])
        own = chance.choice(images)
        near = {
            other
            for other, its in words.items()
            if not all(_differ(words[each], its) for each in known.prompts[own])
        }
        others = [each for each in every if not known.prompts[each] & near]
        if len(others) >= len(images) - 1:
            chosen = chance.sample(others, len(images) - 1)
            built.append((prompt, [own, *chosen]))
    return built


def _words(prompt: str) -> frozenset[str]:
    """What a prompt asks for, in stems. Example: "a photo of red foxes" is "red" and "fox"."""
    found = set(_WORD.findall(prompt.lower()))
    return frozenset(word[:STEM] for word in found - _SAYS_NOTHING)


def _differ(one: frozenset[str], other: frozenset[str]) -> bool:
    fewer = min(len(one), len(other))
    return fewer > 0 and len(one & other) <= MOST_SHARED * fewer


def _mix(connection: Connection, project: str, added: list[str], chance: random.Random) -> None:
    """Let new items come among open ones, and not one after another at the end of the queue.

    Of open items only those that no annotator has come to yet change places with them: whoever is
    past a place would get all that are put there at once.
    """
    farthest = (
        select(func.coalesce(func.max(progress.c.first), 0))
        .join(annotators, annotators.c.annotator_id == progress.c.annotator_id)
        .where(progress.c.project == project, annotators.c.judge_id.is_(None))
        .scalar_subquery()
    )
    ahead = (
        select(items.c.item_id)
        .where(items.c.project == project, items.c.sequence >= farthest)
        .where(queries.is_open(), ~queries.is_attention())
        .order_by(items.c.sequence)
    )
    open_ones = list(connection.execute(ahead).scalars())
    chosen = chance.sample(open_ones, min(len(added), len(open_ones)))
    for item_id, other in zip(added, chosen, strict=False):
        tallies.places_swapped(connection, item_id, other)
