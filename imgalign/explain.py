"""Settings in words: what pydantic found wrong with them, one line per setting.

Works on any pydantic model, and knows unions: sections that say by a tag which of several kinds
they are. config.py reads the values.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic.fields import FieldInfo

from imgalign.unions import (
    Model,
    fields_named,
    keys_along,
    keys_of,
    models_at,
    models_in,
    owners_along,
    paths_of,
    tag_in,
    tag_keys,
    tag_keys_at,
    tags_of,
)

EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "path_type": "a path",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a section of 'key: value' lines",
    "model_type": "a section of 'key: value' lines",
    "model_attributes_type": "a section of 'key: value' lines",
}
LENGTHS = {"too_short": "min_length", "too_long": "max_length"}
WHOLE = ("int_type", "int_from_float")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a setting. Example: where "run.patience", text "expected ..., got 0"."""

    where: str
    """The setting's path; empty for one that is about all of them."""
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


@dataclass(frozen=True, slots=True)
class Instead:
    """In the annotation of a setting that one kind of a section has: what to do with the others.

    Example: `adapter: Annotated[str | None, Instead("merge it first")]`.
    """

    cure: str


def problems_of(model: Model, error: pydantic.ValidationError) -> list[Problem]:
    """Everything that pydantic found wrong, but for what only follows from something else."""
    found = error.errors()
    wrong = [each["loc"] for each in found]
    # A list without its wrong values may be too short: that is no second problem.
    problems = {
        problem.where: problem
        for each in found
        if each["type"] != "too_short"
        or not any(loc != each["loc"] and loc[: len(each["loc"])] == each["loc"] for loc in wrong)
        for problem in [explain(model, each)]
    }
    return list(problems.values())


def explain(model: Model, error: Mapping[str, Any]) -> Problem:
    """One of pydantic's errors: where, what was expected, what came, and what was meant."""
    kind, came, location = error["type"], error["input"], error["loc"]
    names = keys_along(model, location)
    where = ".".join(names)
    if kind == "extra_forbidden":
        return Problem(where, _unknown(model, location))
    if kind in LENGTHS:
        count = error["ctx"][LENGTHS[kind]]
        bound = "at least" if kind == "too_short" else "at most"
        return Problem(where, f"expected {bound} {_values(count)}, got {shown(came)}")
    if kind == "missing" and isinstance(location[-1], int):
        # pydantic names each value that a tuple lacks; the last one says how many there should be.
        count = location[-1] + 1
        return Problem(".".join(names[:-1]), f"expected {_values(count)}, got {shown(came)}")
    if kind == "missing":
        return Problem(where, f"required, but not given; add {where}=VALUE")
    if kind == "value_error":
        return _of_a_validator(names, str(error["ctx"]["error"]))
    if kind == "union_tag_invalid":
        context = error["ctx"]
        # pydantic names a field with an alias by both: 'source' | 'from'.
        tag = context["discriminator"].rpartition(" | ")[2].strip("'")
        named = came.get(tag) if isinstance(came, dict) else context["tag"]
        text = f"expected one of {context['expected_tags']}, got {shown(named)}"
        return Problem(f"{where}.{tag}", text + _which_has(model, names, named))
    if kind == "literal_error":
        choices = error["ctx"]["expected"].replace(" or ", ", ")
        return Problem(where, f"expected one of {choices}, got {shown(came)}")
    expected = EXPECTED.get(kind)
    if expected is None:
        number = "a number " if kind.startswith(("greater_than", "less_than")) else ""
        message = error["msg"].removeprefix("Input should be ")
        expected = f"{number}{message[0].lower()}{message[1:]}"
    return Problem(where, f"expected {expected}, got {shown(came)}{_meant(model, names, error)}")


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"


def _of_a_validator(names: Sequence[str], reason: str) -> Problem:
    """What a validator says of its model: "key: text", or text about several of its keys."""
    match = re.fullmatch(r"([\w.]+): (.+)", reason, flags=re.DOTALL)
    if match is None:
        return Problem(".".join(names), reason)
    return Problem(".".join([*names, match[1]]), match[2])


def shown(value: Any) -> str:
    """A value that came, short enough for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = "a section" if isinstance(value, dict) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def touches(one: str, other: str) -> bool:
    """Whether two paths are the same or one leads through the other. Example: "run", "run.seed"."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


# --- settings under names that they have no more


def renamed_in(
    values: Mapping[str, Any], renamed: Mapping[str, str], prefix: str = ""
) -> Iterator[Problem]:
    """The settings among `values` that have another name now, each with what is in its place."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from renamed_in(value, renamed, f"{path}.")
        elif new := _replacement(path, renamed):
            yield Problem(path, f"is now {new}")


def _replacement(path: str, renamed: Mapping[str, str]) -> str | None:
    """What is in the place of a setting, or of the section around it."""
    if path in renamed or "." not in path:
        return renamed.get(path)
    section, _, key = path.rpartition(".")
    around = _replacement(section, renamed)
    return around and f"{around}.{key}"


# --- what was meant


def _unknown(model: Model, location: tuple[int | str, ...]) -> str:
    """What was probably meant by a key: in another kind of the section, here, or elsewhere."""
    wrong, path = str(location[-1]), owners_along(model, location[:-1])
    owners = path[-1][1] if path else [model]
    if path and path[-1][0] is None:
        return _of_another_kind(model, wrong, location, path) or _misspelt(model, wrong, owners)
    return _misspelt(model, wrong, owners)


def _of_another_kind(
    model: Model,
    wrong: str,
    location: Sequence[int | str],
    path: Sequence[tuple[str | None, list[Model]]],
) -> str:
    """Which kind of a section has the key that this one lacks; empty where none has."""
    names = [name for name, _ in path if name is not None]
    tags = tag_keys_at(model, names)
    first = len(path) - next(i for i, (name, _) in enumerate(reversed(path)) if name is not None)
    for place in range(len(path) - 1, first - 1, -1):  # the inner kinds first
        tag, siblings = tags[place - first], path[place - 1][1]
        union = f"{'.'.join(names)}.{tag}={location[place]}"
        kinds, beyond = _kinds_with(wrong, siblings, tag), ""
        if not kinds and place == first:
            kinds = _kinds_with(wrong, models_at(model, names), tag)
            beyond = _which_has(model, names, kinds[0]) if len(kinds) == 1 else ""
        if kinds:
            other = f"{'.'.join(names)}.{tag}={_either(kinds)}"
            only = f"has no effect with {union}, only with {other}{beyond}"
            return "; ".join([only, *_instead(fields_named(siblings, wrong))])
    return ""


def _misspelt(model: Model, wrong: str, owners: Sequence[Model]) -> str:
    """What a key was probably meant to be, among those of its section or of others."""
    known = sorted({key for owner in owners for key in keys_of(owner)})
    close = difflib.get_close_matches(wrong, known, n=1)
    if close:
        return f"unknown key (did you mean {close[0]!r}?)"
    elsewhere = dict.fromkeys(path for path in paths_of(model) if path.rpartition(".")[2] == wrong)
    if elsewhere:
        return f"unknown key (did you mean {' or '.join(map(repr, elsewhere))}?)"
    return f"unknown key (known here: {', '.join(known)})"


def _kinds_with(key: str, members: Iterable[Model], tag: str) -> list[str]:
    """The tags, under one of their keys, of those members of a union that have a key."""
    tags = [tag_in(member, tag) for member in members if key in keys_of(member)]
    return list(dict.fromkeys(each for each in tags if each is not None))


def _instead(fields: Iterable[FieldInfo]) -> list[str]:
    """The cures in the annotations of these fields."""
    cures = [each.cure for field in fields for each in field.metadata if isinstance(each, Instead)]
    return list(dict.fromkeys(cures))


def _either(kinds: Sequence[str]) -> str:
    """Example: "folder, images or table"."""
    *others, last = kinds
    return f"{', '.join(others)} or {last}" if others else last


def _which_has(model: Model, names: Sequence[str], kind: Any) -> str:
    """Of which kind of the section around it this kind is. Example: "; 'value' is of ...".

    `names` leads to a union. Empty where there is no such kind.
    """
    if len(names) < 2 or not isinstance(kind, str):
        return ""
    *outer, last = names
    parents = [
        parent
        for parent in models_at(model, outer)
        for field in fields_named([parent], last)
        if any(kind in tags_of(member) for member in models_in(field.annotation))
    ]
    keys = tag_keys_at(model, outer)
    if not parents or not keys:
        return ""
    tags = list(dict.fromkeys(str(tag_in(parent, keys[0])) for parent in parents))
    return f"; {kind!r} is of {'.'.join(outer)}.{keys[0]}={_either(tags)}"


def _meant(model: Model, names: Sequence[str], error: Mapping[str, Any]) -> str:
    """What was probably meant by a value of another type."""
    kind, came = error["type"], error["input"]
    if kind in ("tuple_type", "list_type") and isinstance(came, str | int | float):
        return f" (did you mean [{came}]?)"
    if kind in WHOLE and isinstance(came, float) and came.is_integer() and abs(came) < 2**53:
        return f" (did you mean {int(came)}?)"
    for field in fields_named(models_at(model, names[:-1]), names[-1]) if names else []:
        for tag in tag_keys(field):
            if came in [tag_in(member, tag) for member in models_in(field.annotation)]:
                return f" (did you mean {'.'.join(names)}.{tag}={came}?)"
    return ""
