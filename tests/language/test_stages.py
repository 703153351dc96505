"""Every stage of aligning a language model runs, as in the benchmark but small.

Whether they raise the oracle's utility is what the whole benchmark measures.
"""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "language.py"
VARIANTS = ("best-of-n", "dpo", "kto", "ppo", "ppo-ptx-1")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Mapping[str, Mapping[str, Any]]:
    out = tmp_path_factory.mktemp("stages")
    where = ["--out", str(out / "runs"), "--results", str(out)]
    command = [sys.executable, str(BENCHMARK), "--small", "--seeds", "0", *where]
    subprocess.run([*command, "--variants", *VARIANTS], check=True, capture_output=True)
    found = json.loads((out / "language.json").read_text(encoding="utf-8"))
    return {row["variant"]: row for row in found["runs"]}


def test_supervised_fine_tuning_learns_what_demonstrations_say(rows):
    # Nats per token, of 1,600 examples seen once, on others of the same kind: 0.015 here.
    gained = rows["sft"]["demonstrations_log_prob"] - rows["start"]["demonstrations_log_prob"]
    assert gained > 0.01


@pytest.mark.parametrize("name", VARIANTS)
def test_two_iterations_of_each_algorithm_move_the_model_a_little(rows, name):
    assert 0 < rows[name]["kl_nats"] < 2
    assert math.isfinite(rows[name]["reward"])
    assert rows[name]["pretraining_log_prob"] == pytest.approx(
        rows["sft"]["pretraining_log_prob"], abs=0.2
    )
    assert 0 <= rows[name]["utility"]["value"] <= 7
