"""The documents name files that exist."""

import re
from pathlib import Path
from typing import get_args

import pytest

from imgalign.algorithms.objectives import AnyDirectConfig

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:imgalign|reward_models|ui|tests|docs|configs|benchmarks)/[\w./-]+)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_within_the_repository_leads_somewhere(document):
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:|#", target):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_every_path_that_the_guide_names_exists():
    paths = PATH.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(paths) > 30
    for path in paths:
        assert "NAME" in path or (ROOT / path).exists(), path


def test_every_command_of_make_that_the_guide_names_is_a_target():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^    |`)make (\w+)", text, re.M))
    assert {"install", "test"} <= named
    missing = named - set(re.findall(r"^(\w+):", makefile, re.M))
    assert not missing, f"CONTRIBUTING.md names what is no target of the Makefile: {missing}"


def test_recipes_are_listed_and_begin_with_the_command_that_runs_them():
    recipes = {path.name: path.read_text(encoding="utf-8") for path in CONFIGS.glob("*.yaml")}
    page = (CONFIGS / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+\.yaml)`", page, re.M))
    assert sorted(recipes) == sorted(listed), "list the recipes of configs in configs/README.md"
    for name, text in recipes.items():
        begins = re.match(r"(#.*\n)+", text)
        head = begins[0] if begins else ""
        command = re.search(rf"^# imgalign (train|loop) configs/{name}", head, re.M)
        assert command, f"configs/{name}: begin with its purpose and '# imgalign train configs/...'"
        said = "# Result: " in head or "ot yet run" in head
        assert said, f"configs/{name}: say '# Result: ...' or '# Not yet run.' at its head"


def test_every_direct_method_has_its_row_on_their_page():
    page = (ROOT / "docs" / "algorithms" / "direct.md").read_text(encoding="utf-8")
    names = [kind.model_fields["name"].default for kind in get_args(AnyDirectConfig)]
    missing = [name for name in names if f"\n| `{name}` |" not in page]
    assert not missing, f"add rows to the first table of docs/algorithms/direct.md: {missing}"


def test_the_guide_says_how_to_add_each_kind_of_part_in_five_steps():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (Add .*?)$(.*?)(?=^## |\Z)", text, re.M | re.S)
    kinds = ["a loss", "a loss of rankings or likes", "an algorithm", "a model family"]
    kinds += ["a reward", "a page to the app"]
    assert [title for title, _ in sections] == [f"Add {kind}" for kind in kinds]
    for title, body in sections:
        assert re.findall(r"^(\d)\. ", body, re.M) == ["1", "2", "3", "4", "5"], title


def files_of(name: str) -> set[Path]:
    """Python files of a folder, or of a name with * and {a,b}."""
    if name.endswith("/"):
        return set((ROOT / name).rglob("*.py"))
    inner = re.search(r"\{(.*)\}", name)
    options = inner[1].split(",") if inner else [""]
    names = [name.replace(inner[0], each) if inner else name for each in options]
    return {path for each in names for path in ROOT.glob(each)}


def test_lines_of_what_is_shared_and_what_is_not_are_counted_within_five_percent():
    text = (ROOT / "docs" / "modalities.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*) \| (both|images|texts) \| ([\d,]+) \|$", text, re.M)
    assert {kind for _, kind, _ in rows} == {"both", "images", "texts"}
    for what, _, written in rows:
        counted, _, without = what.partition(" without ")
        files = {path for name in re.findall(r"`(.*?)`", counted) for path in files_of(name)}
        left_out = [name.rstrip("/") for name in re.findall(r"`(.*?)`", without)]
        kept = [path for path in files if not set(left_out) & set(path.parts)]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in kept)
        near = pytest.approx(int(written.replace(",", "")), rel=0.05)
        assert lines == near, f"docs/modalities.md: {what}: write {lines:,}, it says {written}"
