"""Unions in settings: sections that say by tags which of several kinds they are.

Works on any pydantic model. A union may be one of unions: then a section has several tags, the
outermost first. Left out: what is wrong with a setting, in words (explain.py).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

Model = type[pydantic.BaseModel]


def tag_keys(field: FieldInfo) -> list[str]:
    """The keys that say which member of a union a section is, outermost first.

    Empty where a field is no union. Example: ["kind", "train"] for a union of unions.
    """
    names = [field.discriminator] if isinstance(field.discriminator, str) else []
    names += inner_discriminators(field.annotation)
    fields = type(field.default).model_fields if names else {}
    return [fields[name].alias or name for name in dict.fromkeys(names)]


def inner_discriminators(annotation: Any) -> Iterator[str]:
    """Those of the unions inside a union."""
    for member in get_args(annotation):
        for note in get_args(member)[1:] if get_origin(member) is Annotated else ():
            if isinstance(note, FieldInfo) and isinstance(note.discriminator, str):
                yield note.discriminator


def tag_in(model: Model, key: str) -> str | None:
    """What a member of a union calls itself under one of its keys. Example: "adaptive"."""
    for name, field in model.model_fields.items():
        choices = get_args(field.annotation)
        if key == (field.alias or name) and get_origin(field.annotation) is Literal:
            return str(choices[0]) if len(choices) == 1 else None
    return None


def tags_of(model: Model) -> list[str]:
    """The texts by which unions know a member. Example: ["adaptive"]."""
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


def with_tags(model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with the default's tags in every union section that names no member."""
    tagged = dict(values)
    for name, field in model.model_fields.items():
        key = field.alias or name
        section = tagged.get(key)
        if not isinstance(section, dict):
            continue
        section = {**kinds_in(field, section), **section}
        member = member_in(field, section)
        tagged[key] = section if member is None else with_tags(member, section)
    return tagged


def kinds_in(field: FieldInfo, section: Mapping[str, Any]) -> dict[str, Any]:
    """The tags of a union's section by key; where it has none, the default's, or else the first."""
    members, found = list(models_in(field.annotation)), {}
    for key in tag_keys(field):
        usual = [tag_in(type(field.default), key), *(tag_in(member, key) for member in members)]
        known = [tag_in(member, key) for member in members]
        found[key] = section.get(key, next((tag for tag in usual if tag in known), None))
        members = [member for member in members if tag_in(member, key) == found[key]]
    return found


def member_in(field: FieldInfo, section: Mapping[str, Any]) -> Model | None:
    """The model that a section is of; None where its tags name none, or there is no one model."""
    kinds = kinds_in(field, section)
    members = [
        member
        for member in models_in(field.annotation)
        if all(tag_in(member, key) == tag for key, tag in kinds.items())
    ]
    return members[0] if len(members) == 1 else None


def switch_kinds(
    model: Model, values: dict[str, Any], before: Mapping[str, Any], typed: Collection[str]
) -> Iterator[str]:
    """Make `values` fit where an override names another kind of a section than the file does.

    What the file has for the section stays where the new kind has it too, and goes where only other
    kinds have it. `before` are the file's values, `typed` the paths that overrides set in `values`;
    what was typed always stays. Yields a line per switch. Example: "algorithm.kl.kind=fixed:
    replaces the algorithm.kl section; kept: coefficient; dropped: target_nats".
    """
    yield from _switches(model, model, values, before, typed, "")


def _switches(
    root: Model,
    model: Model,
    values: dict[str, Any],
    before: Mapping[str, Any],
    typed: Collection[str],
    prefix: str,
) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        path = f"{prefix}{key}"
        section, former = values.get(key), before.get(key)
        if not (isinstance(section, dict) and isinstance(former, dict)) or path in typed:
            continue
        member = member_in(field, section)
        if member is None:
            continue
        kinds, formerly = kinds_in(field, section), kinds_in(field, former)
        if changed := [tag for tag in kinds if kinds[tag] != formerly[tag]]:
            known = {key for each in models_at(root, path.split(".")) for key in keys_of(each)}
            inside = {each.removeprefix(f"{path}.") for each in typed}
            ours = [key for key in former if key in known - inside - {*kinds} and key in section]
            kept, dropped = _fit(member, section, ours, inside)
            said = [f"kept: {', '.join(kept)}"] if kept else []
            said += [f"dropped: {', '.join(dropped)}"] if dropped else []
            if said:
                named = f"{path}.{changed[0]}={kinds[changed[0]]}"
                yield f"{named}: replaces the {path} section; {'; '.join(said)}"
        yield from _switches(root, member, section, former, typed, f"{path}.")


def _fit(
    member: Model, section: dict[str, Any], ours: Iterable[str], typed: Collection[str]
) -> tuple[list[str], list[str]]:
    """Drop those of `ours` that the member lacks, or has in other kinds only: (kept, dropped)."""
    fields = {field.alias or name: field for name, field in member.model_fields.items()}
    kept, dropped = [], []
    for key in ours:
        inner, field = section[key], fields.get(key)
        has_kinds = field is not None and bool(tag_keys(field)) and isinstance(inner, dict)
        if field is None or (has_kinds and member_in(field, inner) is None):
            dropped.append(key)
            del section[key]
            stays = {k: v for k, v in inner.items() if f"{key}.{k}" in typed} if has_kinds else {}
            section |= {key: stays} if stays else {}
        elif not any(each.startswith(f"{key}.") for each in typed):
            kept.append(key)
    return kept, dropped


# --- where something lies


def owners_along(
    model: Model, location: Sequence[int | str]
) -> list[tuple[str | None, list[Model]]]:
    """Part by part of pydantic's location of an error: a key, and the models that it leads into.

    The parts after the key of a union are its tags, whatever keys there are of those names, and
    have None for a key. Example: "data.folder.folder" is the key `folder` of the kind "folder" of
    `data`.
    """
    path: list[tuple[str | None, list[Model]]] = []
    owners, tags = [model], 0
    for part in location:
        if tags:
            owners, tags = [owner for owner in owners if part in tags_of(owner)], tags - 1
            path.append((None, owners))
            continue
        fields = fields_named(owners, str(part))
        owners = [each for field in fields for each in models_in(field.annotation)]
        tags = max((len(tag_keys(field)) for field in fields), default=0)
        path.append((str(part), owners))
    return path


def keys_along(model: Model, location: Sequence[int | str]) -> list[str]:
    """A location as keys, without the tags of unions."""
    return [name for name, _ in owners_along(model, location) if name is not None]


def models_at(model: Model, keys: Sequence[str]) -> list[Model]:
    """The models that keys lead into, through all members of the unions on their way."""
    owners = [model]
    for key in keys:
        owners = [
            each for field in fields_named(owners, key) for each in models_in(field.annotation)
        ]
    return owners


def tag_keys_at(model: Model, keys: Sequence[str]) -> list[str]:
    """The keys of the tags of a union that keys lead to. Example: ["from"] for ["data"]."""
    *outer, last = keys
    fields = fields_named(models_at(model, outer), last)
    return tag_keys(fields[0]) if fields else []


def fields_named(owners: Iterable[Model], key: str) -> list[FieldInfo]:
    """What some models have under a key."""
    return [
        field
        for owner in owners
        for name, field in owner.model_fields.items()
        if key == (field.alias or name)
    ]


def keys_of(model: Model) -> list[str]:
    """The keys of a section."""
    return [field.alias or name for name, field in model.model_fields.items()]


def paths_of(model: Model, prefix: str = "") -> Iterator[str]:
    """The paths of all settings below a model. Example: "policy", "policy.kind", ..."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        for inner in models_in(field.annotation):
            yield from paths_of(inner, f"{key}.")
