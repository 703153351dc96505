"""The documents name files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


def test_the_guide_says_how_to_add_each_kind_of_part_in_five_steps():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (Add .*?)$(.*?)(?=^## |\Z)", text, re.M | re.S)
    kinds = ["a loss", "an algorithm", "a model family", "a reward", "a page to the app"]
    assert [title for title, _ in sections] == [f"Add {kind}" for kind in kinds]
    for title, body in sections:
        assert re.findall(r"^(\d)\. ", body, re.M) == ["1", "2", "3", "4", "5"], title
