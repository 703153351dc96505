"""Validation of values from outside, before any row is written.

Types are checked as well, because clients are not trusted. Every failure is an InputError.
"""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from math import inf, isfinite, nan
from typing import Any, get_args

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, String

from imgalign.errors import InputError
from imgalign.preferences.records import (
    UNKNOWN_NUMBER,
    Answer,
    Provenance,
    Submission,
    TextProvenance,
    TieGroups,
    Verdict,
)
from imgalign.preferences.schema import UtcDateTime

VERDICTS: tuple[str, ...] = get_args(Verdict)
CHOICES = ("first", "second", None)
MAX_NAME = 200
MAX_INTEGER = 2**63 - 1
MAX_OVERLAP = 10_000
"""Annotators that a lead may ask to judge one gold item."""
MAY_BE_UNKNOWN = frozenset({"seed", "steps", "max_new_tokens"})
"""Whole numbers in the provenance of a sample that was made elsewhere."""
SAMPLE_ID = re.compile("[0-9a-f]{64}")


def name(what: str, value: object) -> None:
    """Check a non-empty identifier that every database can store."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{what}: expected a name, got {value!r}")
    if len(value) > MAX_NAME:
        raise InputError(f"{what}: expected at most {MAX_NAME} characters, got {len(value)}")
    text(what, value)


def text(what: str, value: object) -> None:
    """Check None, or text that every database can store: no NUL, no lone surrogate."""
    if value is None:
        return
    if not isinstance(value, str):
        raise InputError(f"{what}: expected text, got {value!r}")
    surrogate = not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value)
    if surrogate or "\0" in value:
        raise InputError(f"{what}: contains characters that cannot be stored")


def column(of: Column[Any], value: object) -> Any:
    """Convert a value from a file to the column's type; JSON columns are left to `judgement`."""
    if value is None:
        if not of.nullable:
            raise InputError(f"{of.name}: expected a value, got none")
        return None
    if isinstance(of.type, UtcDateTime):
        return _moment(of.name, value)
    if isinstance(of.type, String):
        text(of.name, value)
        if of.type.length is not None and len(str(value)) > of.type.length:
            raise InputError(f"{of.name}: expected at most {of.type.length} characters")
        if of.name in ("image_id", "text_id") and not SAMPLE_ID.fullmatch(str(value)):
            raise InputError(f"{of.name}: expected a SHA-256 in lower-case hex, got {value!r:.80}")
    elif isinstance(of.type, Integer):
        largest = MAX_INTEGER if isinstance(of.type, BigInteger) else 2**31 - 1
        known = value != UNKNOWN_NUMBER or of.name not in MAY_BE_UNKNOWN
        if known and _index(of.name, value) > largest:
            raise InputError(f"{of.name}: expected at most {largest}, got {value}")
    elif isinstance(of.type, Float):
        return _number(of.name, value)
    elif isinstance(of.type, Boolean) and not isinstance(value, bool):
        raise InputError(f"{of.name}: expected true or false, got {value!r:.80}")
    return value


def _number(what: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) else nan
    except OverflowError:
        number = inf
    if isinstance(value, bool) or not isfinite(number):
        raise InputError(f"{what}: expected a number, got {value!r:.80}")
    return number


def _moment(what: str, value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InputError(f"{what}: expected an ISO time with its zone, got {value!r:.80}")


def provenance(value: Provenance | TextProvenance) -> None:
    """Check that texts and numbers fit their columns and the time has a time zone."""
    for each in fields(value):
        if each.type in (str, str | None):
            text(f"provenance.{each.name}", getattr(value, each.name))
        elif each.type is float:
            _number(f"provenance.{each.name}", getattr(value, each.name))
    if not 0 <= value.seed <= MAX_INTEGER and value.seed != UNKNOWN_NUMBER:
        raise InputError(f"provenance.seed: expected 0 to 2**63 - 1, got {value.seed}")
    if value.created_at.tzinfo is None:
        raise InputError("provenance.created_at: expected a time with its zone")


def item(prompt: str, sample_ids: Sequence[str], *, project: str, overlap: int) -> None:
    """Check that an item has a prompt, one or more different samples, an overlap of 1 or more."""
    name("project", project)
    text("prompt", prompt)
    if not prompt.strip():
        raise InputError("item: expected a prompt, got an empty one")
    if not sample_ids:
        raise InputError("item: expected at least one candidate, got none")
    if len(set(sample_ids)) < len(sample_ids):
        raise InputError("item: two candidates are the same image or text; drop one of them")
    if overlap < 1:
        raise InputError(f"item: expected an overlap of at least 1, got {overlap}")


def submission(sent: Submission) -> Submission:
    """Check a submission; returns it in canonical form, each tie group in ascending order."""
    name("key", sent.key)
    for each in sent.replaces:
        name("replaces", each)
    if sent.client_ms is not None:
        _index("client_ms", sent.client_ms)
    ranking = judgement(verdict=sent.verdict, reason=sent.reason, ranking=sent.ranking)
    return replace(sent, ranking=ranking)


def judgement(*, verdict: object, reason: object, ranking: object) -> TieGroups | None:
    """Check that verdict, reason and ranking agree; returns tie groups in canonical form."""
    text("reason", reason)
    if verdict not in VERDICTS:
        raise InputError(f"verdict: expected one of {', '.join(VERDICTS)}, got {verdict!r}")
    if verdict == "ranked":
        if ranking is None:
            raise InputError("ranking: expected tie groups with the verdict 'ranked', got none")
        if reason is not None:
            raise InputError("reason: goes with 'skipped' or 'all_bad', not with 'ranked'")
    elif ranking is not None:
        raise InputError(f"ranking: expected none with the verdict {verdict!r}")
    if verdict == "skipped" and not str(reason or "").strip():
        raise InputError("reason: expected why the item was skipped, got none")
    return None if ranking is None else _tie_groups(ranking)


def fits(*, order: object, ranking: object, num_candidates: int) -> None:
    """Check that order and tie groups, if any, hold exactly the candidates of the item."""
    _each_once("order", "candidate", _indices("order", order), num_candidates)
    if ranking is not None:
        groups = _tie_groups(ranking)
        found = [index for group in groups for index in group]
        _each_once("ranking", "candidate", found, num_candidates)


def expected_order(value: object, *, num_candidates: int) -> TieGroups:
    """Check the order that a gold item expects; returns it in canonical form."""
    groups = _tie_groups(value)
    found = [index for group in groups for index in group]
    _each_once("expected order", "candidate", found, num_candidates)
    if len(groups) < 2:
        raise InputError("expected order: all are tied, so that every answer would be right")
    return groups


def fits_screen(ranking: TieGroups | None, num_positions: int) -> None:
    """Check that tie groups, if any, hold exactly the positions that were shown."""
    if ranking is not None:
        found = [position for group in ranking for position in group]
        _each_once("ranking", "position", found, num_positions)


def answers(values: Sequence[Answer], *, num: int, by_judge: bool) -> None:
    """Check the answers behind a judgement of `num` candidates: an AI judge has some, each about
    two of them, and nobody else has any.
    """
    if bool(values) != by_judge:
        raise InputError(
            f"answers: expected {'some' if by_judge else 'none'} with a judgement of "
            f"{'an AI judge' if by_judge else 'an annotator who is no AI judge'}"
        )
    for each in values:
        _index("answers.principle", each.principle)
        places = _indices("answers", (each.first, each.second))
        if places[0] == places[1] or max(places) >= num:
            raise InputError(f"answers: expected two of {num} candidates, got {places}")
        if each.choice not in CHOICES:
            raise InputError(f"answers: expected first, second or none, got {each.choice!r:.80}")


def propensity(value: float | None) -> None:
    """Check the probability with which an item was chosen, if something was drawn."""
    if value is not None and not 0 < value <= 1:
        raise InputError(f"propensity: expected above 0 and at most 1, or none, got {value}")


def content(sent: Submission) -> tuple[object, ...]:
    """The fields in which two submissions under one key must agree; the others may differ."""
    return (sent.item_id, sent.verdict, sent.reason, sent.ranking)


def _each_once(what: str, noun: str, found: Sequence[int], num: int) -> None:
    if sorted(found) != list(range(num)):
        raise InputError(
            f"{what}: expected each {noun} 0 to {num - 1} exactly once, got {sorted(found)}"
        )


def _tie_groups(value: object) -> TieGroups:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"ranking: expected tie groups, got {value!r}")
    groups = tuple(tuple(sorted(_indices("ranking", group))) for group in value)
    if not all(groups):
        raise InputError("ranking: a tie group is empty")
    return groups


def _indices(what: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"{what}: expected a list of whole numbers, got {values!r}")
    return tuple(_index(what, value) for value in values)


def _index(what: str, value: object) -> int:
    # bool is a subclass of int, so True would pass for 1.
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise InputError(f"{what}: expected a whole number from 0, got {value!r}")
    return value
