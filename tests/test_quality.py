"""The page on what tests notice shows the results of the mutants."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    place = ROOT / "benchmarks" / "mutants.py"
    spec = importlib.util.spec_from_file_location("mutants", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(script):
    return json.loads(script.RESULTS.read_text(encoding="utf-8"))


def test_the_page_has_the_counts_and_all_survivors_of_the_results(script, results):
    text = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    assert script.page(results) in text
    _, mutants, killed, equivalent, left = zip(
        *map(script.counts_of, results["modules"]), strict=True
    )
    said = f"{sum(mutants) - sum(killed)} survive: {sum(equivalent)} are equivalent"
    assert f"All {sum(mutants):,} were run" in text
    assert said in text
    assert f"and {sum(left)} are left" in text
    assert {module["path"] for module in results["modules"]} == {
        path for path, _ in script.MODULES.values()
    }


def test_each_survivor_is_a_change_and_has_a_reason(results):
    for module in results["modules"]:
        assert (ROOT / module["path"]).is_file()
        for survivor in module["survivors"]:
            assert survivor["why"].endswith("."), survivor
            assert survivor["was"] != survivor["now"]


def test_a_removal_leaves_code_without_what_was_removed(script):
    source = "def f(x):\n    if x > 1 and g(x, key=2.0):\n        return -min(x, 3)\n    return x\n"
    removed = [script.changed(source, code) for code in script.removals(source)]
    changes = [(each.was, each.now) for each in removed]
    assert ("return x", "return None") in changes
    condition = "if x > 1 and g(x, key=2.0):"
    for now in ("if (True):", "if (x > 1):", "if x > 1 and g(x):", "if x > 1 and g(x, key=2.2):"):
        assert (condition, now) in changes
    assert ("return -min(x, 3)", "return -max(x, 3)") in changes
    assert len(set(changes)) == len(changes)
