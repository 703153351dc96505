"""Claims: of every section that comes in several kinds, a setting which only another kind has is
refused under the name that a person wrote, and both kinds are named as one would write them."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, get_args

import pytest
from pydantic import BaseModel

from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.train.config import TrainConfig


class Union(NamedTuple):
    """Example: at "algorithm.kl", key "kind", inside ("algorithm.name=ppo",)."""

    at: str
    key: str
    members: dict[str, list[type[BaseModel]]]
    """Several where a member is a union itself."""
    inside: tuple[str, ...]


def unions(model: type[BaseModel], at: str = "", inside: tuple[str, ...] = ()) -> Iterator[Union]:
    """All there are below a model, once for each way there."""
    for name, field in model.model_fields.items():
        path = f"{at}{field.alias or name}"
        yield from unions_in(field.annotation, field.discriminator, path, inside)


def unions_in(annotation: Any, name: Any, path: str, inside: tuple[str, ...]) -> Iterator[Union]:
    """Those of a field; of unions inside a union, the outer one first."""
    members = [each for each in get_args(annotation) or [annotation]]
    if name is None:
        for section in filter(is_model, members):
            yield from unions(section, f"{path}.", inside)
        return
    by_tag = {}
    for member in members:
        leaves = [*models(member)]
        tag = leaves[0].model_fields[str(name)]
        by_tag[get_args(tag.annotation)[0]] = (member, leaves)
        key = tag.alias or str(name)
    yield Union(path, key, {kind: leaves for kind, (_, leaves) in by_tag.items()}, inside)
    for kind, (member, _) in by_tag.items():
        within = (*inside, f"{path}.{key}={kind}")
        if is_model(member):
            yield from unions(member, f"{path}.", within)
        else:
            inner, note = get_args(member)
            yield from unions_in(inner, note.discriminator, path, within)


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if is_model(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from models(inner)


def keys(models: Iterable[type[BaseModel]]) -> set[str]:
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


UNIONS = list(unions(TrainConfig))


def test_the_unions_are_found():
    assert {f"{each.at}.{each.key}" for each in UNIONS} == {
        *("policy.kind", "policy.train", "algorithm.name", "data.from"),
        *("algorithm.kl.kind", "algorithm.baseline.kind", "algorithm.beta.kind"),
        "algorithm.weighting.kind",
    }


@pytest.mark.parametrize("union", UNIONS, ids=lambda union: " ".join((*union.inside, union.at)))
def test_a_setting_of_another_kind_is_refused_by_its_own_name_and_with_both_kinds(union):
    wrong = []
    tag = f"{union.at}.{union.key}"
    for kind, member in union.members.items():
        for key in set().union(*map(keys, union.members.values())) - keys(member):
            having = [other for other, each in union.members.items() if key in keys(each)]
            *others, last = having
            only = f"{', '.join(others)} or {last}" if others else last
            overrides = [*union.inside, f"{tag}={kind}", f"{union.at}.{key}=1"]
            with pytest.raises(ConfigError) as caught:
                load_config(TrainConfig, None, overrides)
            said = f"{union.at}.{key}: has no effect with {tag}={kind}, only with {tag}={only}"
            problems = re.split(r"; (?=[\w.]+: )", str(caught.value))
            if not any(re.match(rf"{re.escape(said)}(;|$)", problem) for problem in problems):
                wrong.append((overrides, problems))
    assert not wrong


@pytest.mark.parametrize("kind", ["folder", "images"])
def test_a_key_that_is_called_like_a_kind_is_no_kind(kind):
    algorithm = "algorithm={name: supervised, weighting: {kind: equal}}"
    for value, said in [
        ("{x: 1}", "data.folder: expected text, got a section"),
        ("1", "data.folder: expected text, got 1"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load_config(TrainConfig, None, [algorithm, f"data.from={kind}", f"data.folder={value}"])
        assert str(caught.value) == said
    with pytest.raises(ConfigError, match=r"^data\.folder: required, but not given"):
        load_config(TrainConfig, None, [algorithm, f"data.from={kind}"])
