"""Recipes as a person reads them: what the header says, and what every setting comes to.

No gradio here. The table of settings is the one behind `imgalign train RECIPE --explain`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from imgalign.config import Setting, find_config, load_config, read_mapping, recipes, settings_of
from imgalign.errors import ConfigError, InputError
from ui.libraries import load_libraries

if TYPE_CHECKING:
    from imgalign.train.config import TrainConfig


ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*=.*")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One file, its header without the '#', and what it learns from."""

    name: str
    path: Path
    header: str
    source: str
    """What it learns from: `data.from`."""
    goal: str
    """What somebody wants who takes it, in a few plain words; of one's own recipes the name."""
    gives: str
    """What one gets for it; of one's own recipes how the header begins."""
    settings: Mapping[str, Any]
    """What is in the file."""
    of_likes: bool
    """Whether it learns from single samples that were liked or not; from rankings it may, too."""

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the file; empty where it has none."""
        found = self.settings.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def makes_texts(self) -> bool:
        """Whether it trains a model of texts."""
        return self.section("policy").get("kind") == "language"

    @property
    def needs_reward(self) -> bool:
        """Whether it samples, which only a reward model can judge."""
        return self.source == "rollouts"

    @property
    def scored(self) -> str:
        """What its reward model scores: "images" or "texts"."""
        return "texts" if self.makes_texts and "drawn" not in self.section("reward") else "images"


FIRST = "storybook_dpo"
"""The recipe that a visitor gets: it needs rankings, which the app collects, and nothing else."""
LIKES = "storybook_likes"
"""The recipe for a visitor who liked and disliked images one by one."""


class Goal(NamedTuple):
    """What somebody wants, and what the recipe gives for it."""

    name: str
    gives: str


GOALS: Mapping[str, Goal] = {
    "storybook_dpo": Goal("Quick taste", "a first aligned model in minutes"),
    "storybook_likes": Goal(
        "My likes and dislikes", "an aligned model of images that were judged one by one"
    ),
    "storybook_grpo": Goal(
        "Strong and close to the base", "a high win rate with the least drift from the base"
    ),
    "storybook_online_dpo": Goal(
        "Learn while it draws", "its own samples are ranked as it goes; seeds differ more"
    ),
    "sd15_dpo": Goal("My pairs", "a LoRA for Stable Diffusion 1.5"),
    "storybook_supervised": Goal(
        "Baseline: its best samples", "what other recipes with a reward have to beat"
    ),
    "storybook_sft": Goal(
        "Baseline: the best ranked", "what other recipes with rankings have to beat"
    ),
    "rewriter_sft": Goal("Prompt rewriter, first stage", "a model that writes picture prompts"),
    "rewriter_dpo": Goal("Prompt rewriter to my taste", "picture prompts as people ranked them"),
    "rewriter_likes": Goal("Prompt rewriter by likes", "prompts like those that were liked"),
    "rewriter_grpo": Goal("Prompt rewriter by a reward", "picture prompts that a reward prefers"),
    "rewriter_drawn": Goal("Prompt rewriter by its images", "prompts whose images are preferred"),
}
"""The shipped recipes in the order of the page; of one that is not here its header says it."""


def names() -> list[str]:
    """One's own recipes in `configs/` of the working folder, then the shipped ones, FIRST first.

    Settings of loops are left out: they are no training of their own.
    """
    shipped = [path.stem for path in recipes() if not is_loop(path)]
    local = (path for path in Path("configs").glob("*.yaml") if not is_loop(path))
    own = sorted({path.stem for path in local} - set(shipped))
    return [*own, *sorted(shipped, key=lambda name: name != FIRST)]


def is_loop(path: Path) -> bool:
    """Whether a file has settings of `imgalign loop`, which names a recipe in its turn."""
    try:
        return "align" in read_mapping(path)
    except ConfigError:
        return False  # it is shown, with what is wrong


def read(name: str) -> Recipe:
    """One recipe; InputError if it is missing, ConfigError if it is no settings."""
    path = find_config(Path("configs") / f"{name}.yaml")
    settings = read_mapping(path)
    data = settings.get("data")
    source = data.get("from", "rollouts") if isinstance(data, dict) else "rollouts"
    header = header_of(path.read_text(encoding="utf-8"))
    said = first_words(header)
    shipped = name in {each.stem for each in recipes()}
    goal = GOALS.get(name, Goal(said, "")) if shipped else Goal(name, said if said != name else "")
    of_likes = source == "rankings" and algorithm_of(settings) == _algorithm_of_likes()
    return Recipe(name, path, header, str(source), goal.name, goal.gives, settings, of_likes)


def algorithm_of(settings: Mapping[str, Any]) -> object:
    """What a file names as its algorithm; None for the default."""
    section = settings.get("algorithm")
    return section.get("name") if isinstance(section, dict) else None


@cache
def _algorithm_of_likes() -> object:
    """That of the shipped recipe."""
    (path,) = (each for each in recipes() if each.stem == LIKES)
    return algorithm_of(read_mapping(path))


def first_words(header: str) -> str:
    """The first line of a header, up to its first comma, full stop or colon."""
    return re.split(r"[,.:;(]", header.partition("\n")[0])[0].strip()


def header_of(text: str) -> str:
    """The comment at the top of a file; a line that is set in goes on with the one before."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said = line.lstrip("#")
        if lines and said.startswith("  "):
            lines[-1] += f" {said.strip()}"
        else:
            lines.append(said.strip())
    return "\n".join(lines).strip()


@dataclass(frozen=True, slots=True)
class Explained:
    """Every setting of a recipe with its overrides."""

    settings: Sequence[Setting]
    notes: Sequence[str]
    """What the overrides took out of the recipe, a line each."""


def settings_with(
    recipe: Recipe,
    overrides: Sequence[str] = (),
    *,
    say: Callable[[str], object] = lambda line: None,
) -> "TrainConfig":
    """The settings of a recipe with these overrides; ConfigError names each wrong one."""
    refuse_options(overrides)
    load_libraries()
    from imgalign.train.config import TrainConfig

    return load_config(TrainConfig, recipe.path, overrides, say=say)


def refuse_options(overrides: Sequence[str]) -> None:
    """InputError for a line that is no setting, such as an option of the command line."""
    for override in overrides:
        if not ASSIGNMENT.fullmatch(override):
            raise InputError(f"override {override!r}: expected section.key=value")


def explain(name: str, overrides: Sequence[str] = ()) -> Explained:
    """The settings of a recipe with these overrides; ConfigError names each wrong one.

    The first call waits for torch and diffusers, which the app loads as the page is opened.
    """
    notes: list[str] = []
    config = settings_with(read(name), overrides, say=notes.append)
    return Explained(list(settings_of(type(config), config)), notes)
