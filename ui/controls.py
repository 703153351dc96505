"""The settings that matter most as controls, with their values and meanings.

A control writes a line of the overrides (assets/controls.js), so these stay the one place where a
run differs from its recipe. No gradio here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from imgalign.config import Setting, plain
from imgalign.errors import ImgalignError
from ui import forms, recipes
from ui.forms import Form

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control. Example: path "run.iterations", value "20" where the recipe has "160"."""

    path: str
    name: str
    value: str
    usual: str
    """What the recipe says itself."""
    meaning: str


def controls(recipe: str | None, reward: str, overrides: str) -> list[Control]:
    """The controls of a recipe, at what the overrides make of it; none where it cannot be read."""
    try:
        usual = _settings(recipe, reward, "")
    except ImgalignError:  # the page says why
        return []
    typed: dict[str, str] = {}
    try:
        now = _settings(recipe, reward, overrides)
    except ImgalignError:  # what was typed stays in its control, to be mended there
        now = usual
        lines = (line.partition("=") for line in forms.lines_of(overrides))
        typed = {path: value for path, _, value in lines}
    return [
        Control(
            path=path,
            name=name,
            value=typed.get(path, plain(now[path].value)),
            usual=plain(usual[path].value if path in usual else now[path].default),
            meaning=now[path].meaning.replace("`", ""),
        )
        for path, name in MATTER.items()
        if path in now
    ][:MOST]


def _settings(recipe: str | None, reward: str, overrides: str) -> dict[str, Setting]:
    if not recipe:
        return {}
    form = Form(recipe=recipe, reward=reward, overrides=overrides)
    found = recipes.explain(recipe, form.changes).settings
    return {setting.path: setting for setting in found}
