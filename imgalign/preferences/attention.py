"""Attention items: sets that anybody who looks at them gets right.

One image belongs to the prompt, the others were made for prompts of the project that are clearly
different from it, and from any that the first was made for.
An annotator gets such an item as any other, among those that are open, and nothing that an
annotator can reach tells it apart. Its other images do not belong to its prompt, so that its
judgements are counted as progress and read by `quality.py`, and by nothing that learns or rates.

An item that turns out to be unfair is withdrawn: nobody is asked it any more, and `quality.py` does
not read its judgements either. They stay on record, and it can be brought back.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, func, select

from imgalign.errors import InputError, StoreError
from imgalign.preferences import adding, queries, tallies, validation
from imgalign.preferences.quality import as_expected, best_first
from imgalign.preferences.records import ATTENTION, utc_now
from imgalign.preferences.schema import annotators, candidates, items, provenances, rankings
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionItem:
    """An attention item, and how it was answered. Example: 7 of 9 ranked its first image best.

    Answers are judgements of people that count, skips left out.
    """

    item_id: str
    prompt: str
    num_images: int
    judged: int
    right: int
    withdrawn_since: datetime | None


def attention_items(store: Store, project: str) -> list[AttentionItem]:
    """The attention items of a project, withdrawn ones too, in the order of the queue."""
    of_project = (items.c.project == project, queries.is_attention())
    columns = (items.c.item_id, items.c.prompt, items.c.withdrawn_at)
    shown = (
        select(*columns, func.count().label("images"))
        .join(candidates, candidates.c.item_id == items.c.item_id)
        .where(*of_project)
        .group_by(items.c.sequence, *columns)
        .order_by(items.c.sequence)
    )
    given = (
        select(rankings.c.item_id, rankings.c.tie_groups)
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(
            *of_project,
            rankings.c.verdict != "skipped",
            annotators.c.judge_id.is_(None),
            queries.counted(),
        )
    )
    with store.database.read() as connection:
        rows = connection.execute(shown).all()
        answers = connection.execute(given).all()
    num_images = {row.item_id: row.images for row in rows}
    judged = Counter(row.item_id for row in answers)
    right = Counter(
        row.item_id
        for row in answers
        if as_expected(queries.to_tie_groups(row.tie_groups), best_first(num_images[row.item_id]))
    )
    return [
        AttentionItem(
            item_id=row.item_id,
            prompt=row.prompt,
            num_images=row.images,
            judged=judged[row.item_id],
            right=right[row.item_id],
            withdrawn_since=row.withdrawn_at,
        )
        for row in rows
    ]


def withdraw(store: Store, item_id: str, *, project: str) -> None:
    """Ask nobody an attention item any more, and let its judgements tell nothing of who gave them;
    doing it again changes nothing.

    Who has it on the screen may still submit. StoreError for what is no attention item of the
    project.
    """
    with store.database.write() as connection:
        if not _is_withdrawn(connection, item_id, project):
            tallies.item_withdrawn(connection, item_id, since=utc_now())


def bring_back(store: Store, item_id: str, *, project: str) -> None:
    """Let a withdrawn attention item be as before; StoreError as `withdraw`."""
    with store.database.write() as connection:
        if _is_withdrawn(connection, item_id, project):
            tallies.item_brought_back(connection, item_id)


def _is_withdrawn(connection: Connection, item_id: str, project: str) -> bool:
    this = select(items.c.withdrawn_at).where(
        items.c.item_id == item_id, items.c.project == project, queries.is_attention()
    )
    found = connection.execute(this).first()
    if found is None:
        raise StoreError(
            f"item {item_id[:12]}: no attention item of project {project!r}; reload the list"
        )
    return found.withdrawn_at is not None


@dataclass(slots=True)
class _Known:
    """What items can be built from."""

    shown: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """(prompt, images) of each item with two images or more, in the order of the queue."""
    prompts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Every prompt that an image was made or shown for, by the image; the images in the order of
    the queue, which is the same in any database."""
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
    images: dict[str, list[str]] = {item_id: [] for item_id in prompt_of}
    for some in _portions(prompt_of):
        of_them = select(candidates.c.item_id, candidates.c.image_id)
        of_them = of_them.where(candidates.c.item_id.in_(some)).order_by(candidates.c.candidate)
        for item_id, image_id in connection.execute(of_them):
            images[item_id].append(image_id)
    for item_id, its in images.items():
        for image_id in its:
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
