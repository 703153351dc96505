"""Settings in words: what pydantic found wrong with them, one line per setting.

Works on any pydantic model; config.py reads the values.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

Model = type[pydantic.BaseModel]

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


def explain(model: Model, error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in a line: where, what was expected, what came."""
    kind, came, location = error["type"], error["input"], error["loc"]
    where = ".".join(_names(model, location)) or "settings"
    if kind == "extra_forbidden":
        return f"{where}: {_unknown(model, location)}"
    if kind == "missing":
        return f"{where}: required, but not given"
    if kind == "value_error":
        reason = str(error["ctx"]["error"])
        return f"{where}: {reason}" if location else reason
    if kind == "union_tag_invalid":
        context = error["ctx"]
        # pydantic names a field with an alias by both: 'source' | 'from'.
        tag = context["discriminator"].rpartition(" | ")[2].strip("'")
        return f"{where}.{tag}: expected one of {context['expected_tags']}, got {context['tag']!r}"
    if kind == "literal_error":
        choices = error["ctx"]["expected"].replace(" or ", ", ")
        return f"{where}: expected one of {choices}, got {shown(came)}"
    expected = EXPECTED.get(kind)
    if expected is None:
        number = "a number " if kind.startswith(("greater_than", "less_than")) else ""
        message = error["msg"].removeprefix("Input should be ")
        expected = f"{number}{message[0].lower()}{message[1:]}"
    return f"{where}: expected {expected}, got {shown(came)}"


def shown(value: Any) -> str:
    """A value that came, short enough for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = "a section" if isinstance(value, dict) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- unions: sections that say by a tag which of several kinds they are


def tag_of(field: FieldInfo) -> str | None:
    """The key that says which member of a union a section is; None where a field is no union."""
    if not isinstance(field.discriminator, str):
        return None
    member = type(field.default).model_fields[field.discriminator]
    return member.alias or field.discriminator


def tags_of(model: Model) -> list[str]:
    """The texts by which a union knows a member. Example: ["adaptive"]."""
    return [
        get_args(field.annotation)[0]
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    ]


def models_in(annotation: Any) -> Iterator[Model]:
    """The models inside a type, e.g. of `FixedKLConfig | AdaptiveKLConfig` or `list[...]`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


# --- where something lies, and what was meant


def _owners(model: Model, location: Iterable[int | str]) -> list[tuple[str | None, list[Model]]]:
    """Part by part, the key that it is (None for a union's tag) and the models it leads into."""
    path: list[tuple[str | None, list[Model]]] = []
    owners = [model]
    for part in location:
        fields = [
            field
            for owner in owners
            for name, field in owner.model_fields.items()
            if part == (field.alias or name)
        ]
        tagged = [owner for owner in owners if part in tags_of(owner)]
        if fields or not tagged:
            owners = [each for field in fields for each in models_in(field.annotation)]
            path.append((str(part), owners))
        else:
            owners = tagged
            path.append((None, owners))
    return path


def _names(model: Model, location: Sequence[int | str]) -> list[str]:
    """A location as keys, without the tags of unions."""
    return [name for name, _ in _owners(model, location) if name is not None]


def _inside(model: Model, location: Sequence[int | str]) -> list[Model]:
    """The models that a location leads into."""
    path = _owners(model, location)
    return path[-1][1] if path else [model]


def _unknown(model: Model, location: tuple[int | str, ...]) -> str:
    """What was probably meant by a key: in another kind of the section, here, or elsewhere."""
    wrong, owners = str(location[-1]), _inside(model, location[:-1])
    here = [tag for owner in owners for tag in tags_of(owner)]
    others = [
        tag
        for sibling in _inside(model, _names(model, location[:-1]))
        if wrong in _keys(sibling) and sibling not in owners
        for tag in tags_of(sibling)
    ]
    if here and others:
        only = ", ".join(map(repr, dict.fromkeys(others)))
        return f"has no effect with {here[0]!r}, only with {only}"
    known = sorted({key for owner in owners for key in _keys(owner)})
    close = difflib.get_close_matches(wrong, known, n=1)
    if close:
        return f"unknown key (did you mean {close[0]!r}?)"
    elsewhere = dict.fromkeys(path for path in _paths(model) if path.rpartition(".")[2] == wrong)
    if elsewhere:
        return f"unknown key (did you mean {' or '.join(map(repr, elsewhere))}?)"
    return f"unknown key (known here: {', '.join(known)})"


def _keys(model: Model) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _paths(model: Model, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        for inner in models_in(field.annotation):
            yield from _paths(inner, f"{key}.")
