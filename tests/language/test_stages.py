"""Every stage of aligning a language model raises the oracle's utility, as in the benchmark but
with few texts and iterations; how far each goes is what the whole benchmark measures."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "language.py"
VARIANTS = ("best-of-n", "dpo", "ipo", "kto", "grpo", "grpo-no-kl", "ppo", "ppo-ptx-1")

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


@pytest.mark.parametrize("name", ["sft", *VARIANTS])
def test_each_stage_raises_what_the_oracle_says_of_texts_for_unseen_ideas(rows, name):
    # Of 7, against its own start; 0.34 to 0.77 here, where rounding decides by about 0.1.
    assert rows[name]["change"]["value"] > 0.15
    assert rows[name]["win_rate"]["value"] > 0.5


@pytest.mark.parametrize("name", ["best-of-n", "ppo"])
def test_the_interval_of_the_strongest_does_not_touch_the_start(rows, name):
    assert rows[name]["change"]["low"] > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_ten_iterations_of_each_algorithm_move_the_model_a_little(rows, name):
    assert 0 < rows[name]["kl_nats"] < 2
    assert math.isfinite(rows[name]["reward"])
    assert rows[name]["pretraining_log_prob"] == pytest.approx(
        rows["sft"]["pretraining_log_prob"], abs=0.2
    )


def test_the_kl_term_keeps_the_model_nearer_to_where_it_started(rows):
    assert rows["grpo"]["kl_nats"] < rows["grpo-no-kl"]["kl_nats"]


def test_ppo_keeps_more_of_the_pretraining_likelihood_with_ptx(rows):
    assert rows["ppo-ptx-1"]["pretraining_log_prob"] > rows["ppo"]["pretraining_log_prob"]
