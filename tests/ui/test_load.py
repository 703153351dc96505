"""Several annotators at once on a real server: the small version of `benchmarks/load.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_annotators_at_once_lose_and_double_nothing(tmp_path: Path):
    out = tmp_path / "load.json"
    options = {
        "--annotators": "10",
        "--seconds": "6",
        "--seconds-per-set": "0.3",
        "--open": "200",
        "--rankings": "50",
        "--viewers": "1",
        "--folder": str(tmp_path / "store"),
        "--out": str(out),
    }
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py")]
    done = subprocess.run(
        [*command, *(word for option in options.items() for word in option)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(out.read_text("utf-8")).values()
    assert found["faults"] == []
    assert found["votes"] >= 10
    assert found["milliseconds"]["results page"]["median"] > 0
    wrong = ("lost", "doubled", "never acknowledged", "wrongly taken back")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert found["counts that are wrong"] == []
