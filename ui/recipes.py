"""Recipes as a person reads them: what the header says, and the settings that matter.

No gradio here, and no check of the settings: the training process does that, with the code that
owns them, and its one-line answer is shown.
"""

from dataclasses import dataclass
from pathlib import Path

from imgalign.config import find_config, read_mapping, recipes


@dataclass(frozen=True, slots=True)
class Recipe:
    """One file: its header without the '#', and its settings as flat `section.key` pairs."""

    name: str
    path: Path
    header: str
    settings: tuple[tuple[str, str], ...]


def names() -> list[str]:
    """The shipped recipes by name, and any .yaml file in `configs/` of the working folder."""
    local = sorted(Path("configs").glob("*.yaml"))
    return list(dict.fromkeys(path.stem for path in [*local, *recipes()]))


def read(name: str) -> Recipe:
    """One recipe; InputError if it is missing, ConfigError if it is no settings."""
    path = find_config(Path("configs") / f"{name}.yaml")
    values = read_mapping(path)
    text = path.read_text(encoding="utf-8")
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        header.append(line.lstrip("#").strip())
    return Recipe(name, path, "\n".join(header).strip(), tuple(_flat(values)))


def _flat(values: dict[str, object], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", _show(value)))
    return found


def _show(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        text = ", ".join(str(each) for each in value[:3])
        return f"{text}, … ({len(value)})" if len(value) > 3 else text
    return str(value)
