"""Recipes as a person reads them: what the header says, and what every setting comes to.

No gradio here. The table of settings is the one behind `imgalign train RECIPE --explain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgalign.config import Setting, find_config, load_config, read_mapping, recipes, settings_of
from imgalign.errors import ConfigError
from ui.libraries import load_libraries


@dataclass(frozen=True, slots=True)
class Recipe:
    """One file, its header without the '#', and what it learns from."""

    name: str
    path: Path
    header: str
    source: str
    """What it learns from: `data.from`."""

    @property
    def needs_reward(self) -> bool:
        """Whether it samples images, which only a reward model can judge."""
        return self.source == "rollouts"


FIRST = "storybook_dpo"
"""The recipe that a visitor gets: it needs rankings, which the app collects, and nothing else."""


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
    data = read_mapping(path).get("data")
    source = data.get("from", "rollouts") if isinstance(data, dict) else "rollouts"
    text = path.read_text(encoding="utf-8")
    return Recipe(name, path, header_of(text), str(source))


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


def explain(name: str, overrides: Sequence[str] = ()) -> Explained:
    """The settings of a recipe with these overrides; ConfigError names each wrong one.

    The first call waits for torch and diffusers, which the app loads at its start.
    """
    load_libraries()
    from imgalign.train.config import TrainConfig

    notes: list[str] = []
    config = load_config(TrainConfig, read(name).path, overrides, say=notes.append)
    return Explained(list(settings_of(TrainConfig, config)), notes)
