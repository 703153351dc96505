"""Recipes: the YAML files of configs/, in a checkout or as installed."""

from pathlib import Path

from imgalign.errors import InputError

INSTALLED = Path(__file__).parent / "configs"
CHECKOUT = Path(__file__).parent.parent / "configs"


def recipes() -> list[Path]:
    """All recipes that came with imgalign, by name."""
    return sorted(shipped().glob("*.yaml"))


def find_recipe(path: Path) -> Path:
    """`path` if it is a file, else the shipped recipe of that name; InputError otherwise."""
    if path.is_file():
        return path
    known = {recipe.name: recipe for recipe in recipes()}
    if path.name in known:
        return known[path.name]
    if f"{path.name}.yaml" in known:
        return known[f"{path.name}.yaml"]
    raise InputError(f"{path}: no such recipe; there are {', '.join(known)}")


def shipped() -> Path:
    """Where the recipes are."""
    return INSTALLED if INSTALLED.is_dir() else CHECKOUT
