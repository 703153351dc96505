"""The settings that matter most as controls, with their values and meanings.

A control writes a line of the overrides (assets/controls.js), so these stay the one place where a
run differs from its recipe. No gradio here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from imgalign.config import Setting, plain
from imgalign.errors import ImgalignError
from imgalign.preferences.coverage import ProjectRankings
from imgalign.preferences.records import holds_comparisons
from ui import forms, recipes
from ui.forms import Form

Choices: TypeAlias = tuple[tuple[str, str], ...]

CHOSEN: Mapping[str, str] = {"data.project": "Learn from", "data.group": "Rankings of"}
"""Names on the page of what is chosen from what there is, before all others."""
MATTER: Mapping[str, str] = {
    "run.iterations": "Iterations",
    "optimizer.learning_rate": "Learning rate",
    "algorithm.kl.coefficient": "KL coefficient",
    "algorithm.beta.value": "Beta",
    "data.prompts_per_iteration": "Prompts an iteration",
    "data.group_size": "Samples of a prompt",
    "data.rankings_per_iteration": "Rankings an iteration",
    "data.num_storybook": "Examples",
    "policy.batch_size": "Batch size",
    "seed": "Seed",
    "policy.lora_rank": "LoRA rank",
    "run.kl_budget_nats": "KL budget (nats)",
}
"""Names on the page, the most important first; a recipe shows the first MOST of those it has."""
MOST = 8
"""Of those that are typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control. Example: path "run.iterations", value "20" where the recipe has "160"."""

    path: str
    name: str
    value: str
    usual: str
    """What the recipe says itself."""
    meaning: str
    choices: Choices = ()
    """(label, value) of all that there is; empty for what is typed."""
    problem: str = ""
    """What is wrong with what was typed."""


class Settings(NamedTuple):
    """The settings of a form: as they are, as they were before its overrides, what was typed."""

    now: Mapping[str, Setting]
    usual: Mapping[str, Setting]
    typed: Mapping[str, str] = {}
    """Where the overrides are wrong: then the others are as before them."""
    problems: Mapping[str, str] = {}

    def control(self, path: str, name: str, choices: Choices = ()) -> Control:
        """One of them as a control."""
        setting = self.now[path]
        value = self.typed.get(path, plain(setting.value))
        known = {each for _, each in choices}
        return Control(
            path=path,
            name=name,
            value=value,
            usual=plain(self.usual[path].value if path in self.usual else setting.default),
            meaning=setting.meaning.replace("`", ""),
            choices=(*choices, (value, value)) if choices and value not in known else choices,
            problem=self.problems.get(path, ""),
        )


def settings_in(read: Callable[[str], Mapping[str, Setting]], overrides: str) -> Settings:
    """The settings that `read` makes of overrides, where they are wrong without them.

    What was typed stays in its control, to be mended there. ImgalignError where they are wrong
    without overrides too.
    """
    usual = read("")
    try:
        return Settings(read(overrides), usual)
    except ImgalignError as error:
        lines = (line.partition("=") for line in forms.lines_of(overrides))
        problems = {each.path: each.said for each in forms.wrong_in(error, overrides)[0]}
        return Settings(usual, usual, {path: value for path, _, value in lines}, problems)


def controls(
    recipe: str | None, reward: str, overrides: str, judged: Sequence[ProjectRankings] = ()
) -> list[Control]:
    """The controls of a recipe, at what the overrides make of it; none where it cannot be read.

    `judged` is what there is to learn from for recipes that learn from rankings.
    """
    try:
        found = settings_in(lambda changes: _settings(recipe, reward, changes), overrides)
    except ImgalignError:  # the page says why
        return []
    now, control = found.now, found.control
    if "data.samples" in now:
        judged = [each for each in judged if each.samples == now["data.samples"].value]
    project = now["data.project"].value if "data.project" in now else None
    there = {"data.project": projects(judged), "data.group": groups(judged, project)}
    chosen = [control(path, name, there[path]) for path, name in CHOSEN.items() if path in now]
    typed_in = [control(path, name) for path, name in MATTER.items() if path in now]
    return chosen + typed_in[:MOST]


def projects(judged: Sequence[ProjectRankings]) -> Choices:
    """What a run can learn from; blind comparisons, which test earlier ones, come last."""
    ordered = sorted(judged, key=lambda each: holds_comparisons(each.project))
    named = tuple(
        (f"{each.project}: {each.rankings} {_said(each)}", plain(each.project)) for each in ordered
    )
    return (("all projects, without blind comparisons", plain(None)), *named)


def _said(judged: ProjectRankings) -> str:
    if holds_comparisons(judged.project):
        return "blind comparisons"
    return "rankings" if judged.compared else "likes and dislikes"


def groups(judged: Sequence[ProjectRankings], project: object) -> Choices:
    """Whose rankings a run can learn from."""
    own = [each for each in judged if project is None or each.project == project]
    names = sorted({name for each in own for name in each.groups if name})
    return (("everybody", plain(None)), *((name, plain(name)) for name in names))


def _settings(recipe: str | None, reward: str, overrides: str) -> dict[str, Setting]:
    if not recipe:
        return {}
    form = Form(recipe=recipe, reward=reward, overrides=overrides)
    found = recipes.explain(recipe, form.changes).settings
    return {setting.path: setting for setting in found}
