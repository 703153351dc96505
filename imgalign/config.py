"""Settings: frozen pydantic models, read from YAML and `section.key=value`, wrong ones refused.

Each owner keeps its own `Config` beside the code that reads it; this module reads, checks, explains
and writes them. The YAML is stricter than PyYAML's: 1e-4 is a number, yes and no are text, 0123 is
not octal, a key given twice is an error. Left out: what any setting means.
"""

import copy
import difflib
import json
import logging
import os
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import pydantic
import yaml
from pydantic.fields import FieldInfo

from imgalign.environment import checked_device
from imgalign.errors import ConfigError, InputError
from imgalign.explain import Problem, problems_of, renamed_in, shown, touches
from imgalign.unions import (
    Model,
    models_in,
    switch_kinds,
    tag_in,
    tag_keys,
    with_tags,
)

C = TypeVar("C", bound="Config")
PathOrText = TypeVar("PathOrText", str, Path)

RECIPE_FOLDERS = (
    Path(__file__).parent / "configs",  # an installed wheel
    Path(__file__).parents[1] / "configs",  # a checkout
)


log = logging.getLogger(__name__)

LARGEST_YAML = 2**20
"""Bytes."""
DEEPEST_YAML = 50
MOST_ALIASES = 100
MOST_VALUES = 100_000

MISSING = object()

Seed = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
"""What torch's generators take."""


def expand_home(path: PathOrText) -> PathOrText:
    """A path whose leading ~ is the home folder, as the shell makes of it; others as they are."""
    return type(path)(os.path.expanduser(path))


PathText = Annotated[str, pydantic.AfterValidator(expand_home)]
"""Text that may be a path, such as the name of a model or its folder."""

Device = Annotated[str, pydantic.AfterValidator(checked_device)]
"""auto, cpu, cuda or cuda:1."""


class Config(pydantic.BaseModel):
    """Base of all settings: frozen, no unknown keys, a docstring under each field."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Paths of settings that have another name now, and what is in their place. Of a section that
    moved as a whole, its own path is enough. Example: {"samples": "run.samples"}."""

    @pydantic.field_validator("*", mode="after")
    @classmethod
    def _home_is_expanded(cls, value: Any) -> Any:
        return expand_home(value) if isinstance(value, Path) else value


def load_config(
    model: type[C],
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    say: Callable[[str], object] = log.info,
) -> C:
    """Settings from a YAML file (None: the defaults), then `section.key=value` in order.

    A path that does not exist is looked up among the shipped recipes: `configs/storybook_grpo.yaml`
    and `storybook_grpo` work from any folder. Values of overrides are YAML. Types are strict: "1"
    is not a number and 1 is not text. An override that names another kind of a section keeps what
    both kinds have; `say` gets a line about what it drops, by default the log does. ConfigError
    names each wrong key, InputError a missing file.
    """
    file = None if path is None else find_config(path)
    before = {} if file is None else read_mapping(file)
    values = copy.deepcopy(before)
    typed = [_apply_override(values, override) for override in overrides]
    if renamed := list(renamed_in(values, model.renamed)):
        raise _refused(renamed, file=file, before=before, typed=typed)
    for line in switch_kinds(model, values, before, typed):
        say(line)
    try:
        # JSON, because strict mode there still takes a list for a tuple and text for a path.
        return model.model_validate_json(json.dumps(with_tags(model, values)), strict=True)
    except pydantic.ValidationError as error:
        problems = problems_of(model, error)
        raise _refused(problems, file=file, before=before, typed=typed) from None


def checked(model: type[C], **values: Any) -> C:
    """Settings from Python values, such as a command's options; ConfigError names each wrong one.

    Example: "guidance_scale: expected a number greater than or equal to 1, got 0.5".
    """
    try:
        return model(**values)
    except pydantic.ValidationError as error:
        raise _refused(problems_of(model, error)) from None


def dump_config(config: Config, path: Path) -> None:
    """Write all settings, defaults included, such that `load_config` gives an equal object."""
    path.write_text(as_yaml(config.model_dump(mode="json", by_alias=True)), encoding="utf-8")


def as_yaml(values: Mapping[str, Any]) -> str:
    """Settings as a recipe has them."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def recipes() -> list[Path]:
    """The shipped recipes, by name."""
    return sorted(path for folder in RECIPE_FOLDERS for path in folder.glob("*.yaml"))


def find_config(path: Path) -> Path:
    """The file itself if it exists, else the shipped recipe that it names."""
    if path.is_file():
        return path
    shipped = {recipe.name: recipe for recipe in recipes()}
    if path.parent in (Path("."), Path("configs")):
        for name in (path.name, f"{path.name}.yaml"):
            if name in shipped:
                return shipped[name]
    names = [recipe.stem for recipe in shipped.values()]
    close = difflib.get_close_matches(path.stem, names, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    raise InputError(f"{path}: no such file{meant}; shipped recipes: {', '.join(names) or 'none'}")


def read_mapping(path: Path) -> dict[str, Any]:
    """The `key: value` lines of a YAML file; ConfigError for anything else, or without bounds."""
    with path.open("rb") as file:
        content = file.read(LARGEST_YAML + 1)
    if len(content) > LARGEST_YAML:
        raise ConfigError(f"{path}: expected settings, got more than {LARGEST_YAML} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected a text file in utf-8") from None
    values = _parse(text, where=str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, got {shown(values)}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> str:
    """Set it; returns its path. Example: "run.iterations"."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r}: expected section.key=value")
    for depth, part in enumerate(parts[:-1], start=1):
        section = values.setdefault(part, {})
        if section is None:
            section = values[part] = {}
        if not isinstance(section, dict):
            name = ".".join(parts[:depth])
            raise ConfigError(f"override {override!r}: {name} is {shown(section)}, not a section")
        values = section
    values[parts[-1]] = _parse(text, where=f"override {override!r}")
    return ".".join(parts)


def _refused(
    problems: Sequence[Problem],
    *,
    file: Path | None = None,
    before: Mapping[str, Any] | None = None,
    typed: Collection[str] = (),
) -> ConfigError:
    """All problems in a line; those of what is in the file come last, with its name.

    `before` is what is in it, `typed` the paths that were set by overrides.
    """

    def of_file(where: str) -> bool:
        found: Any = before
        for key in where.split("."):
            found = found.get(key, MISSING) if isinstance(found, dict) else MISSING
        there = found is not MISSING and not any(touches(where, path) for path in typed)
        return file is not None and (there or not typed)

    elsewhere = [str(each) for each in problems if not of_file(each.where)]
    in_file = "; ".join(str(each) for each in problems if of_file(each.where))
    return ConfigError("; ".join(elsewhere + ([f"{file}: {in_file}"] if in_file else [])))


# --- YAML, without its surprises


def _parse(text: str, *, where: str) -> Any:
    try:
        values = yaml.load(text, Loader=_Loader)
        _refuse_bombs(values)
        json.dumps(values)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise ConfigError(f"{where}:{line} {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None
    except (TypeError, ValueError):
        raise ConfigError(
            f"{where}: expected text, numbers, true, false, null, lists and sections only"
        ) from None
    return values


def _refuse_bombs(values: Any) -> None:
    """Aliases make one value stand in many places: refuse what would be too much written out."""
    waiting, seen = [values], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        if seen + len(waiting) > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES} values, aliases written out")


class _Loader(yaml.SafeLoader):
    """Numbers and truth values as in YAML 1.2; keys are text and none may come twice.

    Nesting and aliases are bounded: a few hundred bytes could else fill the memory.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.depth = self.aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self.aliases += isinstance(event, yaml.AliasEvent)
        self.depth += 1
        if self.depth > DEEPEST_YAML or self.aliases > MOST_ALIASES:
            what = (
                f"nested deeper than {DEEPEST_YAML}"
                if self.depth > DEEPEST_YAML
                else f"more than {MOST_ALIASES} aliases"
            )
            raise yaml.composer.ComposerError(problem=what, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            problem = None
            if not isinstance(key, yaml.ScalarNode):
                problem = "expected plain text as a key"
            elif key.value in seen:
                problem = f"key {key.value!r} is given twice"
            if problem:
                raise yaml.composer.ComposerError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
            if key.tag != MERGE:
                key.tag = "tag:yaml.org,2002:str"
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes the text that _Loader would take for something else; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


MERGE = "tag:yaml.org,2002:merge"
DIGITS = r"[0-9][0-9_]*"
SCALARS = {
    "tag:yaml.org,2002:bool": r"true|True|TRUE|false|False|FALSE",
    "tag:yaml.org,2002:null": r"~|null|Null|NULL|",
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9][0-9_]*)",
    "tag:yaml.org,2002:float": (
        rf"[-+]?({DIGITS}\.?[0-9_]*|\.{DIGITS})[eE][-+]?[0-9]+"
        rf"|[-+]?({DIGITS}\.[0-9_]*|\.{DIGITS})"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
    MERGE: "<<",
}
for _yaml_class in (_Loader, _Dumper):
    _yaml_class.yaml_implicit_resolvers = {
        None: [(tag, re.compile(rf"(?:{pattern})\Z")) for tag, pattern in SCALARS.items()]
    }


# --- every setting, explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. Example: path "optimizer.learning_rate", value 0.005, default 0.0003."""

    path: str
    value: Any
    default: Any
    """`REQUIRED` where there is none."""
    meaning: str
    only_with: tuple[str, ...] = ()
    """The members of unions that have it. Example: ("algorithm.name: grpo",)."""

    @property
    def is_default(self) -> bool:
        """Whether its value is its default."""
        return plain(self.value) == plain(self.default)


REQUIRED = "required"


def settings_of(
    model: Model,
    config: pydantic.BaseModel | None = None,
    *,
    prefix: str = "",
    only_with: tuple[str, ...] = (),
) -> Iterator[Setting]:
    """Every setting of a model; of unions the chosen member's, or without a config all members'."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        default = REQUIRED if field.is_required() else field.default
        value = default if config is None else getattr(config, name)
        chosen = value if config is not None and isinstance(value, pydantic.BaseModel) else None
        members = list(models_in(field.annotation)) if chosen is None else [type(chosen)]
        tags = tag_keys(field)
        for tag in tags:
            usual = tag_in(type(field.default), tag)
            yield Setting(
                path=f"{path}.{tag}",
                value=usual if chosen is None else tag_in(type(chosen), tag),
                default=usual,
                meaning=meaning_of(field, tag),
                only_with=only_with,
            )
        absent = chosen is None and (config is not None or default is None)
        if not tags and (not members or absent):
            yield Setting(
                path=path,
                value=value,
                default=default,
                meaning=meaning_of(field),
                only_with=only_with,
            )
        if config is not None and chosen is None:
            continue
        for member in members:
            here = (*only_with, *(f"{path}.{tag}: {tag_in(member, tag)}" for tag in tags))
            for inner in settings_of(member, chosen, prefix=f"{path}.", only_with=here):
                if inner.path not in [f"{path}.{tag}" for tag in tags]:
                    yield inner


def meaning_of(field: FieldInfo, tag: str | None = None) -> str:
    """What a setting means, in one line, and what there is to choose from; of a union, by a tag.

    Example: "What rewards are compared with. One of `group`, `rank`."
    """
    members = list(models_in(field.annotation))
    meaning, choices = field.description, []
    if tag is not None:
        choices = list(dict.fromkeys(tag_in(member, tag) for member in members))
        if tag != tag_keys(field)[0]:
            own = type(field.default).model_fields
            meaning = next(
                each.description for key, each in own.items() if tag in (key, each.alias)
            )
    elif get_origin(field.annotation) is Literal:
        choices = list(get_args(field.annotation))
    meaning = " ".join((meaning or "").split())
    named = ", ".join(f"`{choice}`" for choice in choices)
    return f"{meaning} One of {named}." if len(choices) > 1 else meaning


def explained(config: Config) -> Iterator[str]:
    """Every setting on a line with its value, and its default where that is another; its meaning.

    Example: "optimizer.learning_rate: 0.005 (default 0.0003)", then "    After warm-up. ...".
    """
    for setting in settings_of(type(config), config):
        beside = "" if setting.is_default else f" (default {plain(setting.default)})"
        beside = f" ({REQUIRED})" if setting.default == REQUIRED else beside
        yield f"{setting.path}: {plain(setting.value)}{beside}"
        yield from textwrap.wrap(
            setting.meaning,
            96,
            initial_indent="    ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )


def plain(value: Any) -> str:
    """A value as a recipe has it on one line. Example: "[conv2, to_q]"."""
    if isinstance(value, tuple):
        value = list(value)
    text: str = yaml.dump(
        str(value) if isinstance(value, Path) else value,
        Dumper=_Dumper,
        default_flow_style=True,
        width=10_000,
        allow_unicode=True,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def refuse_ineffective(config: Config, names: Sequence[str], why: str) -> None:
    """ValueError for the first of these settings that is not at its default: it changes nothing."""
    for name in names:
        field = type(config).model_fields[name]
        if getattr(config, name) != field.default:
            raise ValueError(f"{field.alias or name}: has no effect {why}")
