"""The page on other trainers shows the results of the comparisons."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    place = ROOT / "benchmarks" / "compare_peers.py"
    monkeypatch.syspath_prepend(str(place.parent))
    spec = importlib.util.spec_from_file_location("compare_peers", place)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare_peers", module)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables_of_the_results(script):
    results = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert list(results) == list(script.COMPARISONS)
    assert {each["repetitions"] for each in results.values()} == {3}  # none is of a short form
    assert script.page(results) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
