"""docs/settings.md, made from the settings that the commands read. To write it again:

python -m imgalign.cli.settings_page > docs/settings.md
"""

import inspect
import sys
from collections.abc import Collection, Iterable, Iterator

from pydantic.fields import FieldInfo

from imgalign.config import Setting, plain, settings_of
from imgalign.evaluate.config import EvaluateConfig
from imgalign.loop.config import LoopConfig
from imgalign.train.config import TrainConfig
from imgalign.unions import Model, models_in, tag_in, tag_keys
from reward_models.text_training import TextFitConfig
from reward_models.training import FitConfig

INTRODUCTION = """\
# Settings

A recipe is a YAML file with these sections; `section.key=value` after it on the command line
changes a setting, and what neither says has its default. The value of an override is YAML, so a
whole section can be given: `'algorithm.kl={kind: adaptive, target_nats: 5}'`. Unknown settings, and
settings without an effect, are errors.

Some sections come in several kinds, which a key of theirs names, such as `algorithm.name`. Where
the column "only with" is filled, a setting belongs to these kinds alone. An override that names
another kind, such as `algorithm.name=supervised`, keeps what the recipe has for both kinds and
drops the rest of that section; one line says which. What was typed is never dropped.

    imgalign train RECIPE --explain     # every setting of a recipe with its value there

This page is written by `python -m imgalign.cli.settings_page > docs/settings.md`.
"""

PAGES: tuple[tuple[str, str, Model], ...] = (
    ("Training: `imgalign train RECIPE`", "", TrainConfig),
    (
        "Evaluation: `imgalign evaluate RUN`",
        "The first argument of the command is `aligned`.",
        EvaluateConfig,
    ),
    ("Rounds: `imgalign loop FILE`", "", LoopConfig),
    ("Reward models of images: `imgalign reward train`", "", FitConfig),
    ("Reward models of texts: `imgalign reward train --samples texts`", "", TextFitConfig),
)
HEADER = "| setting | default | only with | meaning |\n|---|---|---|---|\n"


def document() -> str:
    """The text of docs/settings.md."""
    return "\n".join([INTRODUCTION, *(block for page in PAGES for block in blocks(*page))])


def blocks(title: str, note: str, model: Model) -> Iterator[str]:
    """A heading, a table of what is in no section, and for each section its kinds and a table."""
    yield f"## {title}\n{f'{first_paragraph(model)} {note}'.strip()}\n"
    settings = list(settings_of(model))
    alone = [setting for setting in settings if "." not in setting.path]
    if alone:
        yield table(alone)
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        inside = [setting for setting in settings if setting.path.startswith(f"{name}.")]
        if not inside:
            continue
        yield f"### `{name}`\n{field.description}\n"
        members = dict(kinds_below(field, name))
        if members:
            outer_first = sorted(members, key=lambda kind: kind.count("."))
            yield "".join(f"- `{kind}`: {first_paragraph(members[kind])}\n" for kind in outer_first)
        yield table(inside, kinds=kinds_of(field, name))


def table(settings: Iterable[Setting], *, kinds: Collection[str] = ()) -> str:
    """One row for each setting; one that several kinds have alike comes once.

    `kinds` are all of the section, if it comes in several.
    """
    rows: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for setting in settings:
        key = (setting.path, plain(setting.default), setting.meaning)
        rows.setdefault(key, []).append(setting.only_with)
    return HEADER + "".join(
        f"| `{path}` | {shown(default)} | {limits(only_with, kinds)} | {escaped(meaning)} |\n"
        for (path, default, meaning), only_with in rows.items()
    )


def limits(each: Iterable[tuple[str, ...]], kinds: Collection[str]) -> str:
    """Example: "`rollouts`, `images`" for both; an inner kind comes after a semicolon.

    Empty for what all kinds have.
    """
    levels = [list(dict.fromkeys(level)) for level in zip(*each, strict=True)]
    names = [
        [kind.rpartition(": ")[2] for kind in level]
        for level in levels
        if set(level) != {kind for kind in kinds if same_key(kind, level[0])}
    ]
    return "; ".join(", ".join(f"`{name}`" for name in level) for level in names)


def same_key(kind: str, other: str) -> bool:
    """Whether two kinds are of one section. Example: "policy.train: lora", "policy.train: full"."""
    return kind.partition(": ")[0] == other.partition(": ")[0]


def kinds_of(field: FieldInfo, path: str) -> list[str]:
    """What a section can be. Example: ["policy.train: lora", "policy.train: full"]."""
    found = [
        f"{path}.{tag}: {tag_in(member, tag)}"
        for tag in tag_keys(field)
        for member in models_in(field.annotation)
    ]
    return list(dict.fromkeys(found))


def kinds_below(field: FieldInfo, path: str) -> Iterator[tuple[str, Model]]:
    """What a section and those inside it can be. Example: ("algorithm.name: grpo", GRPOConfig)."""
    for member in models_in(field.annotation):
        if tags := tag_keys(field):
            yield ", ".join(f"{path}.{tag}: {tag_in(member, tag)}" for tag in tags), member
        for name, inner in member.model_fields.items():
            yield from kinds_below(inner, f"{path}.{inner.alias or name}")


def first_paragraph(model: Model) -> str:
    """Of a docstring, in one line."""
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


def shown(default: str) -> str:
    """A default in a table."""
    return default if default == "required" else f"`{escaped(default)}`"


def escaped(text: str) -> str:
    """Fit for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(document())
