"""The form that a run is started from: what it holds, how its lines are read, where it is kept.

A run keeps the form it was started from, so that it can be started again with changes. For a run of
a terminal the form is worked out: the recipe that differs least, and the differences.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from imgalign.config import load_config, plain, read_mapping, settings_of
from imgalign.errors import ImgalignError, InputError
from imgalign.files import read_json, write_atomically
from imgalign.runs.folder import CONFIG
from ui import recipes
from ui.libraries import load_libraries
from ui.links import in_the_app
from ui.runs import Runs

PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
ASSIGNMENT = re.compile(rf"({PATH.pattern})\s*(?:[=:]|\s)\s*(.*)")
"""Also as YAML has it, or without any sign."""
CLOSE = 0.72
"""Of difflib: 1 is the same text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a person chose and typed. Example: recipe "storybook_dpo", overrides "seed=3"."""

    recipe: str
    reward: str = ""
    """Folder of a reward model; empty for what the recipe says."""
    overrides: str = ""

    @property
    def changes(self) -> list[str]:
        """The overrides, the reward model's among them; empty lines and comments are left out."""
        # Values of overrides are YAML, and any JSON text is.
        reward = [f"reward.path={json.dumps(self.reward)}"] if self.reward else []
        return reward + lines_of(self.overrides)


FORM = TypeAdapter(Form)


class Fix(NamedTuple):
    """A line that names no setting, and what was probably meant."""

    line: str
    meant: str
    text: str
    """All overrides with the line replaced."""


def lines_of(overrides: str) -> list[str]:
    """The overrides of a form, without spaces around '='; empty lines and comments are left out."""
    lines = [line.strip() for line in overrides.splitlines()]
    return [_without_spaces(line) for line in lines if line and not line.startswith("#")]


def _without_spaces(line: str) -> str:
    key, equals, value = line.partition("=")
    plain_key = equals and PATH.fullmatch(key.strip())
    return f"{key.strip()}={value.strip()}" if plain_key else line


def fix_of(recipe: str, overrides: str) -> Fix | None:
    """The first line that names no setting of a recipe, where one is close enough to be meant.

    Only offered: a person decides whether it was meant.
    """
    from imgalign.train.config import TrainConfig

    config = load_config(TrainConfig, recipes.read(recipe).path)
    here = [setting.path for setting in settings_of(TrainConfig, config)]
    known = {setting.path for setting in settings_of(TrainConfig)} | set(here)
    sections = {path[:dot] for path in known for dot, sign in enumerate(path) if sign == "."}
    for line in overrides.splitlines():
        stripped = line.strip()
        match = ASSIGNMENT.fullmatch(stripped)
        if match is None or stripped.startswith("#"):
            continue
        key, value = match.groups()
        path = key if key in known | sections else nearest(key, here) or nearest(key, sorted(known))
        meant = f"{path}={value}"
        if path is not None and meant != _without_spaces(stripped):
            return Fix(stripped, meant, overrides.replace(line, meant, 1))
    return None


def nearest(key: str, paths: Sequence[str]) -> str | None:
    """The one path that a wrong one means; None for none, or for several that fit as well.

    Example: "iterations" and "run.iteratons" are "run.iterations".
    """
    last = key.rpartition(".")[2]
    same = [path for path in paths if path.rpartition(".")[2] == last]
    if "." in key or not same:
        close = difflib.get_close_matches(key, same or paths, n=1, cutoff=CLOSE)
        if close:
            return close[0]
    if same:
        return same[0] if len(same) == 1 else None
    names = {path.rpartition(".")[2]: path for path in paths}
    found = difflib.get_close_matches(last, list(names), n=1, cutoff=CLOSE)
    meant = [path for path in paths if found and path.rpartition(".")[2] == found[0]]
    return meant[0] if len(meant) == 1 else None


class Wrong(NamedTuple):
    """What is wrong in a line of the overrides. Example: line 2, path "epochz", "unknown key"."""

    line: int
    path: str
    said: str


def wrong_in(error: ImgalignError, overrides: str) -> tuple[list[Wrong], str]:
    """What an error says of each line of the overrides, counted from 1, and all else that it says.

    An error of settings names each wrong one, with ';' between them.
    """
    paths = {}
    for number, line in enumerate(overrides.splitlines(), start=1):
        key, equals, _ = line.partition("=")
        if equals and not line.strip().startswith("#"):
            paths[key.strip()] = number
    parts: list[list[str]] = []
    for part in in_the_app(str(error)).split("; "):
        where = part.partition(":")[0]
        path = next((each for each in paths if f"{where}.".startswith(f"{each}.")), None)
        if path is None and parts and not PATH.fullmatch(where):
            parts[-1][1] += f"; {part}"  # of the message before
        else:
            parts.append([path or "", part])
    wrong = sorted(Wrong(paths[path], path, said) for path, said in parts if path)
    return wrong, "; ".join(said for path, said in parts if not path)


# --- the form of a run


def fitted_into(form: Form, offered: Iterable[str]) -> tuple[str, str]:
    """The reward and the overrides of a form where only some rewards are offered.

    One that is not is written among the overrides: another one is never taken in its place.
    """
    same = [
        each for each in offered if each and Path(each).resolve() == Path(form.reward).resolve()
    ]
    if not form.reward or same:
        return (same[0] if form.reward else ""), form.overrides
    line = f"reward.path={json.dumps(form.reward, ensure_ascii=False)}"
    return "", f"{form.overrides.rstrip()}\n{line}".lstrip()


def keep(runs: Runs, name: str, form: Form) -> None:
    """Write the form of a run that is about to start."""
    path = runs.form_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(form)) + "\n")


def kept(runs: Runs, name: str) -> Form | None:
    """The form that a run was started from; None for a run of a terminal."""
    try:
        return FORM.validate_python(read_json(runs.form_path(name)))
    except (OSError, ValueError, ValidationError):
        return None


def form_of(runs: Runs, name: str) -> Form:
    """The form with which a run can be started again; InputError where nobody knows it."""
    form = kept(runs, name)
    if form is not None and form.recipe in recipes.names():
        return form
    path = runs.path(name) / CONFIG
    if not path.is_file():
        raise InputError(
            f"{path.parent}: its settings are not known, expected its form or {CONFIG}, found "
            "neither; choose a recipe"
        )
    load_libraries()
    from imgalign.train.config import flat

    return worked_out(flat(read_mapping(path)))


def worked_out(settings: Mapping[str, Any]) -> Form:
    """The recipe that differs least from these settings, and the differences as overrides."""
    load_libraries()
    from imgalign.train.config import TrainConfig, flat

    found: list[tuple[int, str, list[str]]] = []
    for name in recipes.names():
        try:
            config = load_config(TrainConfig, recipes.read(name).path)
        except ImgalignError:
            continue
        usual = flat(config.model_dump(mode="json", by_alias=True))
        # A number type that was chosen for the machine is no wish.
        lines = [
            f"{path}={plain(value)}"
            for path, value in settings.items()
            if usual.get(path) != value and (path, usual.get(path)) != ("policy.dtype", "auto")
        ]
        found.append((len(lines), name, lines))
    if not found:
        raise InputError("recipes: none can be read, so nothing can be started from this run")
    _, recipe, lines = min(found)
    reward = [line for line in lines if line.startswith("reward.path=")]
    return Form(
        recipe=recipe,
        reward=str(settings["reward.path"]) if reward and settings["reward.path"] else "",
        overrides="\n".join(line for line in lines if line not in reward),
    )
