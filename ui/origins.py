"""Which rankings runs learned from, as far as their files say so, and the reward models they used.

A run of rankings names a project in its settings, one with a reward model has learned from what
that has. Runs of other data have learned from no project. Neither gradio nor torch here.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from imgalign.config import read_mapping
from imgalign.errors import ImgalignError
from imgalign.preferences.fit_report import LearnedFrom
from imgalign.preferences.records import holds_comparisons
from imgalign.runs.folder import CONFIG
from ui import forms, recipes
from ui.fits import Fit
from ui.runs import Run, Runs


class Origin(NamedTuple):
    """What something learned from, and when it began to, in seconds since 1970."""

    learned_from: LearnedFrom
    begun: float

    def includes(self, project: str, *, since: float) -> bool:
        """Whether that was a project, whose first judgement is of `since`.

        Who learns from all projects leaves out blind comparisons, and what was judged later.
        """
        named = self.learned_from.project
        if named is not None:
            return named == project
        return not holds_comparisons(project) and since <= self.begun


def of_fit(runs: Runs, fit: Fit) -> Origin | None:
    """What a reward model learned from; None where nothing says so."""
    return None if fit.learned_from is None else Origin(fit.learned_from, runs.begun(fit.name))


def of_run(runs: Runs, fits: Sequence[Fit], run: Run) -> Origin | None:
    """What a run learned from; None where nothing says so, and for other data than rankings."""
    settings = settings_of(runs, run)
    data, reward = (_section(settings, name) for name in ("data", "reward"))
    if data.get("from") == "rankings":
        project, group = (_text(data.get(name)) for name in ("project", "group"))
        return Origin(LearnedFrom(project=project, group=group), runs.begun(run.name))
    folder = _text(reward.get("path"))
    if data.get("from", "rollouts") != "rollouts" or folder is None:
        return None
    used = [fit for fit in fits if fit.folder.resolve() == Path(folder).resolve()]
    return of_fit(runs, used[0]) if used else None


def makes_texts(runs: Runs, run: Run) -> bool:
    """Whether it trains a model of texts, which the Generate page cannot show beside its base."""
    return _section(settings_of(runs, run), "policy").get("kind") == "language"


def settings_of(runs: Runs, run: Run) -> Mapping[str, Any]:
    """The settings of a run, or as it begins those of its form; empty where nobody knows them."""
    path = runs.folder / run.name / CONFIG
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (ImgalignError, OSError):
        pass
    try:
        form = forms.kept(runs, run.name)
        if form is None:
            return {}
        settings = {name: dict(section) for name, section in _sections(form.recipe).items()}
    except (ImgalignError, OSError):
        return {}
    for line in form.changes:
        path_of, _, value = line.partition("=")
        section, _, key = path_of.partition(".")
        settings.setdefault(section, {})[key] = _value(value)
    return settings


@lru_cache(maxsize=128)
def _read(path: Path, changed: int) -> Mapping[str, Any]:
    return read_mapping(path)


def _sections(recipe: str) -> Mapping[str, Mapping[str, Any]]:
    found = recipes.read(recipe).settings
    return {name: each for name, each in found.items() if isinstance(each, dict)}


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
