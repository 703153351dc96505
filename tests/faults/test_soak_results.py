"""Claims: a long form of these tests can be stopped and goes on where it was; its counts are of all
sittings, with the command and the hardware of each; what was not survived is done again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from soak_results import Drill, SoakResults, numbers_of, ranges, table
from source_tree import ROOT

ORIGIN = ("command", "hardware", "versions")
KILLED = {"injected": {"kill": 3}, "survived": {"kill": 3}}


def results(tmp_path: Path, *, soak: int = 10) -> SoakResults:
    return SoakResults.read(tmp_path / "faults.json", soak=soak)


def test_counts_are_those_of_all_sittings_and_each_has_its_origin(tmp_path, monkeypatch):
    for number in range(2):
        results(tmp_path).add(Drill(name="a", number=number), KILLED, passed=True)
    monkeypatch.setattr("soak_results.hardware", lambda: {"processor": "another"})
    results(tmp_path).add(Drill(name="a", number=2), KILLED, passed=True)
    found = json.loads((tmp_path / "faults.json").read_text(encoding="utf-8"))
    assert (found["injected"], found["survived"]) == (9, 9)
    assert found["kinds"] == {"kill": {"injected": 9, "survived": 9}}
    assert [each["injected"] for each in found["sittings"]] == [6, 3]
    assert all(each[name] for each in (found, *found["sittings"]) for name in ORIGIN)
    assert found["hardware"] == {"processor": "another"}
    assert "| kill | 9 | 9 |" in table(found)


def test_what_was_survived_is_not_done_again_and_what_was_not_is(tmp_path):
    first = results(tmp_path)
    first.add(Drill(name="a", number=0), KILLED, passed=True)
    first.add(Drill(name="a", number=1), {"injected": {"kill": 1}, "survived": {}}, passed=False)
    first.add(Drill(name="b"), KILLED, passed=True)
    again = results(tmp_path)
    assert [again.is_done(Drill(name="a", number=each)) for each in range(3)] == [
        *(True, False, False)
    ]
    assert again.is_done(Drill(name="b"))
    assert (again.injected["kill"], again.survived["kill"]) == (7, 6)
    longer = results(tmp_path, soak=20)
    assert longer.is_done(Drill(name="a", number=0))
    assert not longer.is_done(Drill(name="b"))


@pytest.mark.parametrize("numbers", [{0}, {3, 1, 2}, {0, 1, 5, 7, 8, 9}])
def test_ranges_of_numbers_are_read_as_they_were_written(numbers):
    assert numbers_of(ranges(numbers)) == numbers


def sitting(folder: Path, *, soak: int) -> str:
    """Run the tests of a folder that counts as tests/faults does."""
    places = os.pathsep.join([str(ROOT / "tests" / "stand_ins"), str(ROOT)])
    own = {"IMGALIGN_SOAK": str(soak), "IMGALIGN_SOAK_RESULTS": str(folder / "faults.json")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-s", str(folder)],
        env=os.environ | own | {"PYTHONPATH": places},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 2), done.stdout + done.stderr
    return done.stdout


WITHOUT_TORCH = """
import sys
from types import ModuleType

origin = ModuleType("imgalign.evaluate.origin")
origin.command_line = lambda: "pytest"
origin.hardware = origin.library_versions = dict
sys.modules["imgalign.evaluate.origin"] = origin
"""
DRILLS = """
from pathlib import Path
from fault_counts import repeated

@repeated(1)
def test_drill(faults, number):
    print(f"drill {number} is done")
    with faults.inject("kill"):
        if number == 1 and not Path("stopped").exists():
            Path("stopped").touch()
            raise KeyboardInterrupt
"""


@pytest.mark.slow
def test_a_sitting_that_is_stopped_goes_on_where_it_was(tmp_path):
    ours = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(WITHOUT_TORCH + ours, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_drills.py").write_text(DRILLS, encoding="utf-8")
    assert "drill 0 is done" in sitting(tmp_path, soak=3)
    longer = sitting(tmp_path, soak=4)
    assert "drill 0 is done" not in longer
    assert "drill 3 is done" in longer
    assert "kill: 3 injected, 3 survived" in longer  # in this sitting
    assert "kill: 4 injected, 4 survived" in longer
    assert "is done" not in sitting(tmp_path, soak=4)


def test_the_page_shows_the_counts_and_each_sitting_says_where_they_come_from():
    file = ROOT / "benchmarks" / "results" / "faults.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert table(found) in (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    for what in ("injected", "survived"):
        assert found[what] == sum(each[what] for each in found["sittings"])
        assert found[what] == sum(each[what] for each in found["kinds"].values())
    assert all(each[name] for each in (found, *found["sittings"]) for name in ORIGIN)
