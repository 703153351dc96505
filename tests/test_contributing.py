"""Claims: what contributors and those who cite read says what is so: hooks, citation, changelog."""

import re
import tomllib
from pathlib import Path

import yaml

import imgalign

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_hooks_fetch_nothing_and_call_the_programs_that_tests_call():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [repository["repo"] for repository in HOOKS["repos"]] == ["local"]
    hooks = HOOKS["repos"][0]["hooks"]
    programs = set()
    for hook in hooks:
        assert hook["language"] == "system", hook["id"]
        assert "additional_dependencies" not in hook
        folder, _, program = hook["entry"].split()[0].rpartition("/")
        assert folder == ".venv/bin"
        assert f"$(BIN)/{program}" in makefile.partition("\ntest:")[2].partition("\n\n")[0]
        programs.add(program)
    assert programs == {"ruff", "mypy"}
    assert {hook["entry"].partition(" ")[2].split(" -")[0] for hook in hooks} == {
        *("check", "format", "")
    }


def test_hooks_need_the_versions_that_tests_need():
    extras = PROJECT["optional-dependencies"]
    own = {each for each in extras["hooks"] if not each.startswith("pre-commit")}
    assert {re.match(r"\w+", each)[0] for each in own} == {"ruff", "mypy"}
    assert own < set(extras["test"])
    assert f"pre-commit>={HOOKS['minimum_pre_commit_version'].partition('.')[0]}" in extras["hooks"]


def test_the_citation_names_what_is_installed():
    """Its required keys, and no others than CFF 1.2.0 has for them."""
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert CITATION["message"]
    assert CITATION["authors"] == [{"name": "imgalign"}]
    for key, name in (("title", "name"), ("abstract", "description"), ("license", "license")):
        assert CITATION[key] == PROJECT[name]
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert CITATION["version"] == imgalign.__version__


def test_each_version_in_the_changelog_is_a_release_note():
    _, *notes = re.split(r"^## ", CHANGELOG, flags=re.M)
    versions = []
    for note in notes:
        heading, _, body = note.partition("\n")
        match = re.fullmatch(r"\[(\d+\.\d+\.\d+)\](?: - (?:unreleased|\d{4}-\d\d-\d\d))?", heading)
        assert match, heading
        versions.append(match[1])
        _, *sections = re.split(r"^### ", body, flags=re.M)
        kinds = [section.partition("\n")[0] for section in sections]
        assert kinds == list(dict.fromkeys(kinds))
        assert set(kinds) <= set(KINDS), heading
        for section in sections:
            lines = [line for line in section.splitlines()[1:] if line]
            assert lines, section
            assert all(line.startswith(("- ", "  ")) for line in lines), section
    assert versions[0] == imgalign.__version__
    in_order = sorted(versions, key=lambda each: [*map(int, each.split("."))], reverse=True)
    assert versions == in_order


def test_the_version_is_written_in_one_place_that_the_others_follow():
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
