"""AI judges as annotators of a store, and rankings of theirs apart from those of people.

Each judge is an annotator of its own, marked and with its provenance, so that its rankings are
known by their annotator. Nothing reads them unless it asks for them.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from sqlalchemy import insert, select

from imgalign.errors import InputError
from imgalign.preferences import identity, schema, validation
from imgalign.preferences.exclusions import num_left_out
from imgalign.preferences.queries import AnyRow
from imgalign.preferences.records import (
    Annotator,
    JudgedBy,
    JudgeProvenance,
    Ranking,
    Samples,
    holds_comparisons,
    utc_now,
)
from imgalign.preferences.samples import rankings_of
from imgalign.preferences.store import Store

log = logging.getLogger(__name__)

FIELDS = tuple(JudgeProvenance.__dataclass_fields__)
SHOWN = 60
"""Characters of a model's name in the name of an annotator."""


def add_judge(store: Store, judge: JudgeProvenance) -> Annotator:
    """Register an AI judge as an annotator; its group is the constitution's name.

    Doing it again changes nothing. InputError for a provenance that cannot be stored.
    """
    for name in FIELDS:
        value = getattr(judge, name)
        if not isinstance(value, int):
            validation.text(f"judge.{name}", value)
    model = judge.model.rstrip("/").rpartition("/")[2][-SHOWN:]
    with store.database.write() as connection:
        known = select(schema.judges.c.judge_id).where(schema.judges.c.judge_id == judge.judge_id)
        if connection.execute(known).first() is None:
            row = {**asdict(judge), "judge_id": judge.judge_id, "created_at": utc_now()}
            connection.execute(insert(schema.judges).values(**row))
        return identity.register(
            connection,
            f"ai {model} {judge.judge_id[:8]}",
            display=None,
            group=judge.constitution_name,
            client=None,
            judge_id=judge.judge_id,
            now=utc_now(),
        )


def judges(store: Store) -> dict[str, JudgeProvenance]:
    """All AI judges of a store by their id, in the order in which they came."""
    statement = select(schema.judges).order_by(schema.judges.c.created_at)
    with store.database.read() as connection:
        rows = connection.execute(statement).mappings().all()
    return {row["judge_id"]: to_judge(row) for row in rows}


def check_row(row: AnyRow) -> None:
    """InputError unless the id of a row of `judges`, as a mapping, is what the rest of it says."""
    if to_judge(row).judge_id != row["judge_id"]:
        raise InputError(f"judge {row['judge_id'][:12]} is not what its id says; was it changed?")


def to_judge(row: AnyRow) -> JudgeProvenance:
    """A record of a row of `judges`, as a mapping."""
    return JudgeProvenance(**{name: row[name] for name in FIELDS})


def chosen_rankings(
    store: Store,
    samples: Samples,
    *,
    judged_by: JudgedBy = "people",
    group: str | None = None,
    annotator: str | None = None,
    project: str | None = None,
    where: str | None = None,
    option: str = "--judged-by ",
) -> list[Ranking]:
    """Rankings of one kind of samples, by people, by AI judges or by both; no filter takes all.

    Those of excluded annotators are left out, and those of blind comparisons unless their project
    is named: they test what was learned. The log says how many are, and how many others.
    InputError where all are of another kind, by others, or of other names than the filters: it
    begins with `where`, and says what there is or which `option` asks for it.
    """
    filters = {"project": project, "group": group, "annotator": annotator}
    asked = " and ".join(f"{name} {value!r}" for name, value in filters.items() if value)
    where = where or f"rankings{f' of {asked}' if asked else ''}"
    found = list(store.rankings(project=project, group=group, annotator=annotator, judged_by="all"))
    left_out = num_left_out(store.database, project=project, group=group, annotator=annotator)
    if left_out:
        log.warning("%s: %d by excluded annotators are left out", where, left_out)
    if not found and (others := names_of(store.rankings(judged_by="all"), filters)):
        raise InputError(f"{where}: expected rankings, got none; there are: {others}")
    kept = rankings_of(samples, found, where=where)
    chosen = rankings_by(judged_by, kept, where=where, option=option)
    return chosen if project else without_comparisons(chosen, where=where)


def without_comparisons(rankings: Iterable[Ranking], *, where: str) -> list[Ranking]:
    """Those that something may learn from unasked; InputError where there are only others."""
    found = list(rankings)
    tests = {each.project for each in found if holds_comparisons(each.project)}
    kept = [each for each in found if each.project not in tests]
    if not tests:
        return kept
    number, named = len(found) - len(kept), ", ".join(sorted(tests))
    if not kept:
        raise InputError(
            f"{where}: expected some to learn from, got {number} of blind comparisons alone, "
            f"which test what was learned ({named}); rank candidates, or name that project"
        )
    log.warning(
        "%s: %d of blind comparisons left out, which test what was learned (%s); name their "
        "project to take them",
        *(where, number, named),
    )
    return kept


def names_of(rankings: Iterable[Ranking], filters: Mapping[str, str | None]) -> str:
    """What rankings have under the names of filters that are given: "group cosy, group warm"."""
    found = {
        f"{name} {getattr(ranking, name)}"
        for ranking in rankings
        for name, value in filters.items()
        if value
    }
    return ", ".join(sorted(found))


def rankings_by(
    judged_by: JudgedBy,
    rankings: Iterable[Ranking],
    *,
    where: str = "rankings",
    option: str = "--judged-by ",
) -> list[Ranking]:
    """Rankings by people, by AI judges or by both, as `chosen_rankings` has them."""
    found = list(rankings)
    num_ai = sum(ranking.judge_id is not None for ranking in found)
    of = {"people": len(found) - num_ai, "ai": num_ai}
    names = {"people": "people", "ai": "AI judges"}
    if judged_by == "all":
        if all(of.values()):
            log.info("%s: %d by people and %d by AI judges, mixed", where, of["people"], num_ai)
        return found
    other: JudgedBy = "ai" if judged_by == "people" else "people"
    if of[other] and not of[judged_by]:
        raise InputError(
            f"{where}: expected some by {names[judged_by]}, got {of[other]} by {names[other]}; "
            f"choose them with {option}{other}, or let {names[judged_by]} rank first"
        )
    if of[other]:
        log.warning(
            "%s: %d by %s are left out; %sall takes them too",
            where,
            of[other],
            names[other],
            option,
        )
    return [ranking for ranking in found if (ranking.judge_id is None) == (judged_by == "people")]
