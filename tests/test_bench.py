"""`make bench` repeats the tables of docs/benchmarks.md: it can be stopped, goes on where it was,
leaves what is recorded alone, and sets each figure beside the recorded one."""

import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
ORIGIN = {"hardware": {"processor": "one"}, "versions": {"torch": "2"}}


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def script(name: str):
    """One of the benchmarks, as a module."""
    return importlib.import_module(name)


def fake(name: str, code: str, **more: Any):
    command = [sys.executable, "-c", code]
    return script("bench_parts").Part(
        name=name, measures="nothing", minutes=1.0, command=command, **more
    )


def measure(parts, folder: Path, origin=ORIGIN) -> list[str]:
    bench = script("bench")
    return bench.measure(parts, folder, bench.Done(folder, origin))


def test_what_is_measured_is_not_measured_again_but_on_other_hardware_or_by_other_commands(
    tmp_path, capsys
):
    def parts(text: str):
        return [fake("one", f"open({str(tmp_path / 'marks')!r}, 'a').write({text!r})")]

    assert measure(parts("a"), tmp_path) == []
    assert "[1/1] one: nothing" in (said := capsys.readouterr().out)
    assert "about a minute; about a minute left in all" in said
    assert measure(parts("a"), tmp_path) == []
    assert "1 of 1 parts are in" in capsys.readouterr().out
    assert (tmp_path / "marks").read_text() == "a"
    measure(parts("b"), tmp_path)
    measure(parts("b"), tmp_path, {**ORIGIN, "hardware": {"processor": "another"}})
    assert (tmp_path / "marks").read_text() == "abb"


def test_a_part_that_fails_is_named_with_what_it_said_and_the_others_are_measured(tmp_path, capsys):
    parts = [
        fake("broken", "raise SystemExit('no network')"),
        fake("after", "pass", needs="broken"),
        fake("whole", "pass"),
    ]
    assert measure(parts, tmp_path) == ["broken", "after"]
    said = capsys.readouterr().out
    assert "failed with 1: no network" in said
    assert "left out: broken is missing" in said
    assert list(json.loads((tmp_path / "bench.json").read_text())) == ["whole"]


DRIVER = """
import sys
sys.path.insert(0, {benchmarks!r})
from types import SimpleNamespace
import bench
bench.finished = lambda *_: SimpleNamespace(said='{{"hardware": {{}}, "versions": {{}}}}')
bench.parts_of = lambda *_, **__: [
    bench.Part(name=n, measures="", minutes=1, command=[sys.executable, "-c", c])
    for n, c in {parts!r}
]
sys.argv = ["bench.py", "--results", {folder!r}]
sys.exit(bench.main())
"""
SAVES = """
import signal, sys, time
def save(*_):
    time.sleep(1)
    open({saved!r}, "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, save)
open({begun!r}, "w").close()
signal.pause()
"""
HANGS = """
import subprocess, sys
subprocess.run([sys.executable, "-c", {saves!r}])
"""


@pytest.mark.slow
def test_it_can_be_stopped_with_all_that_it_has_started_which_may_save_and_says_how_to_go_on(
    tmp_path,
):
    begun, saved = tmp_path / "begun", tmp_path / "saved"
    saves = SAVES.format(begun=str(begun), saved=str(saved))
    parts = [("quick", "pass"), ("long", HANGS.format(saves=saves))]
    code = DRIVER.format(benchmarks=str(BENCHMARKS), parts=parts, folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as driver:
        wait_for(lambda: begun.exists() and any(tmp_path.glob("*/bench.json")))
        driver.send_signal(signal.SIGINT)
        said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "stopped; what is finished is in" in said
    (done,) = tmp_path.glob("*/bench.json")
    assert list(json.loads(done.read_text())) == ["quick"]
    assert saved.exists()  # it was waited for


def test_results_of_other_code_or_another_machine_are_in_a_folder_of_their_own(tmp_path):
    bench = script("bench")
    other = {**ORIGIN, "code": "0", "hardware": {"processor": "another"}}
    origins = [{**ORIGIN, "code": "0"}, {**ORIGIN, "code": "1"}, other]
    folders = [bench.folder_of(tmp_path, each) for each in origins]
    assert len(set(folders)) == 3
    assert {each.parent for each in folders} == {tmp_path}
    assert folders[0] == bench.folder_of(tmp_path, dict(reversed(origins[0].items())))


def test_what_is_measured_and_what_measures_it_is_the_code_and_results_are_not(
    tmp_path, monkeypatch
):
    bench = script("bench")
    for name in ("imgalign/losses.py", "benchmarks/loop.py", "benchmarks/results/loop.json"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "RECORDED", tmp_path / "benchmarks" / "results")
    before = bench.code_hash()
    (tmp_path / "benchmarks/results/loop.json").write_text("2")
    assert bench.code_hash() == before
    (tmp_path / "benchmarks/loop.py").write_text("2")
    between = bench.code_hash()
    (tmp_path / "imgalign/losses.py").write_text("2")
    assert len({before, between, bench.code_hash()}) == 3


@pytest.mark.parametrize("tiny", [False, True])
def test_each_part_calls_a_script_with_options_that_it_has_and_writes_into_the_folder(
    tmp_path, tiny
):
    parts_module = script("bench_parts")
    for part in parts_module.parts_of(tmp_path, tmp_path / "peers", tiny=tiny):
        source = Path(part.command[1]).read_text(encoding="utf-8")
        options = [word for word in part.command if word.startswith("--")]
        assert options
        assert [each for each in options if f'"{each}"' not in source] == [], part.name
        assert str(parts_module.RECORDED) not in " ".join(part.command[2:])
        assert str(tmp_path) in " ".join(part.command)


AT_WORK = """
import os, sys, time
from pathlib import Path
folder, name, awaited = Path({folder!r}), *sys.argv[1:]
(folder / "at work" / name).touch()
until = time.monotonic() + 60
while awaited and not (folder / awaited).exists():
    assert time.monotonic() < until
    time.sleep(0.01)
(folder / f"{{name}} saw").write_text(" ".join(sorted(os.listdir(folder / "at work"))))
(folder / "at work" / name).unlink()
"""


def test_two_parts_of_one_thread_are_measured_at_once_but_none_of_one_file(tmp_path):
    (tmp_path / "at work").mkdir()
    code = AT_WORK.format(folder=str(tmp_path))
    awaited = {"a": "at work/c", "b": "", "c": "a saw", "d": ""}
    more: dict[str, dict[str, Any]] = {"a": {"lane": "x"}, "b": {"lane": "x"}, "d": {"cores": 2}}
    parts = [
        replace(
            fake(name, "", **more.get(name, {})), command=[sys.executable, "-c", code, name, other]
        )
        for name, other in awaited.items()
    ]
    assert measure(parts, tmp_path) == []
    saw = {name: (tmp_path / f"{name} saw").read_text().split() for name in awaited}
    assert saw["a"] == ["a", "c"]
    assert "a" not in saw["b"]
    assert saw["d"] == ["d"]


def test_all_of_it_takes_less_than_an_hour_and_each_claim_is_of_several_turns(tmp_path):
    parts = script("bench_parts").parts_of(tmp_path, tmp_path)
    assert script("bench").Turns(parts).left() < 60
    for part in parts:
        if part.name.startswith("cost"):
            assert " --repetitions 2 " in " ".join(part.command)
        assert "--repetitions 1" not in " ".join(part.command)


def test_the_results_of_the_long_forms_are_not_written_over(capsys, monkeypatch):
    bench = script("bench")
    monkeypatch.setattr(sys, "argv", ["bench.py", "--results", str(BENCHMARKS / "results")])
    with pytest.raises(SystemExit):
        bench.main()
    assert "has the results of the long forms" in capsys.readouterr().err


@pytest.fixture
def recorded(tmp_path) -> Path:
    bench_page = script("bench_page")
    folder = tmp_path / "recorded"
    folder.mkdir()
    for name in bench_page.FILES:
        shutil.copy(BENCHMARKS / "results" / name, folder)
    return folder


def test_a_machine_that_measures_what_is_recorded_agrees_in_everything(recorded):
    bench_page = script("bench_page")
    text = bench_page.page(recorded, BENCHMARKS / "results")
    found = re.findall(r": (\d+) of (\d+) agree", text)
    assert len(found) == 2
    assert all(agreeing == count and int(count) > 20 for agreeing, count in found)
    assert "| no |" not in text


def test_a_figure_that_differs_is_shown_with_both_values_and_their_ratio(recorded):
    bench_page = script("bench_page")
    facts = json.loads((recorded / "reward_cache.json").read_text(encoding="utf-8"))
    for name in ("median", "low", "high"):
        facts["cpu_seconds"]["anew"][name] *= 2
    facts["times_as_fast"] *= 2
    (recorded / "reward_cache.json").write_text(json.dumps(facts), encoding="utf-8")
    text = bench_page.write_page(recorded, BENCHMARKS / "results")
    assert (
        "| a pass of a reward fit, anew: CPU seconds | 1.34 (1.31 to 1.36) | 2.67 (2.61 to 2.71) "
        "| 2.00 | no |"
    ) in text
    assert text.count("| no |") == 2
    assert text in (recorded / "bench.md").read_text(encoding="utf-8")


def test_a_part_that_was_not_measured_to_its_end_is_named_first(recorded):
    text = script("bench_page").page(recorded, BENCHMARKS / "results", failed=["peer-ddpo"])
    assert text.startswith("Not measured to the end: peer-ddpo; ")


def test_the_documents_have_the_tables_of_the_results():
    cost_curves = script("cost_curves")
    time_to_taste = script("time_to_taste")
    results = BENCHMARKS / "results"
    curves = json.loads((results / "cost_curves.json").read_text(encoding="utf-8"))
    assert cost_curves.table(curves) in (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    taste = json.loads((results / "time_to_taste.json").read_text(encoding="utf-8"))
    assert time_to_taste.table(taste["checkpoints"]) in (results / "README.md").read_text("utf-8")
