"""The demo on several seeds, and its control with permuted rewards.

    python benchmarks/demo_seeds.py --out runs/demo-seeds --results benchmarks/results

Runs `imgalign demo` once per seed, and with `--shuffled` for the controls, each in a folder of its
own; finished folders are not run again. Writes NAME.json and prints a table. Seeds differ in
candidates, annotators, splits, adapter and order; prompts and the noise of the compared images are
the same for all, so the spread over seeds is for these prompts only, while the intervals, which are
over prompts, generalise to others.

With ONEDNN_MAX_CPU_ISA=AVX2 and ATEN_CPU_CAPABILITY=avx2 in the environment, a machine with AVX-512
computes as one without it; use another --out and --name for that.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from algorithms import record

from imgalign.evaluate.comparison import Change, oracle_of, win_rate
from imgalign.evaluate.evaluation import load_evaluation
from imgalign.statistics import Estimate

SECONDS = "seconds.json"


def run(folder: Path, *, seed: int, shuffled: bool) -> None:
    """One demo, unless it is finished."""
    if (folder / SECONDS).is_file():
        return
    command = [sys.executable, "-m", "imgalign", "demo", "--out", str(folder), "--seed", str(seed)]
    started = time.monotonic()
    subprocess.run(command + ["--shuffled"] * shuffled, check=True)
    threads = os.environ.get("OMP_NUM_THREADS")
    facts = {"seconds": time.monotonic() - started, "threads": threads}
    (folder / SECONDS).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def estimate(value: Estimate) -> dict[str, float | None]:
    """Value and 95 % interval."""
    return {"value": value.value, "low": value.low, "high": value.high}


def change(value: Change | None) -> dict[str, dict[str, float | None]] | None:
    """Before, after, and their paired difference."""
    if value is None:
        return None
    return {
        "base": estimate(value.before),
        "aligned": estimate(value.after),
        "difference": estimate(value.difference),
    }


def measured(folder: Path, *, seed: int, shuffled: bool) -> dict[str, object]:
    """Results of one demo."""
    evaluation = load_evaluation(folder / "run")
    report = json.loads((folder / "reward" / "report.json").read_text(encoding="utf-8"))
    own, drift = evaluation.summary, evaluation.drift
    exact = win_rate(evaluation.pairs, oracle_of, seed=seed)
    assert own.win_rate is not None
    assert exact is not None
    assert drift is not None
    return {
        "seed": seed,
        "shuffled": shuffled,
        "win_rate": estimate(own.win_rate.rate),
        "pairs": own.win_rate.num_pairs,
        "ties": own.win_rate.ties,
        "oracle_tie": evaluation.oracle_tie,
        "win_rate_without_ties_by_tolerance": estimate(exact.rate),
        "prompts": evaluation.num_prompts,
        "oracle": change(own.oracle),
        "faithful": change(own.faithful),
        "reward": change(own.proxy),
        "diversity": change(evaluation.diversity.change) if evaluation.diversity else None,
        "kl_nats": drift.nats,
        "kl_budget_nats": drift.budget_nats,
        "reward_accuracy": report["test"]["accuracy"],
        "reward_zero_shot": report["test"]["baseline"],
        "annotators_ceiling": report["test"]["ceiling"]["value"],
        "share_of_ceiling": report["test"]["share_of_ceiling"],
        "bayes_optimal_accuracy": report["test"]["truth"]["value"],
        "share_of_bayes_optimal": report["test"]["share_of_truth"],
        **json.loads((folder / SECONDS).read_text(encoding="utf-8")),
    }


def shown(value: object) -> str:
    """Example: "81 % (75 to 86)"."""
    assert isinstance(value, dict)
    parts = [round(100 * value[name]) for name in ("value", "low", "high")]
    return "{} % ({} to {})".format(*parts)


def table(rows: list[dict[str, object]]) -> str:
    """Markdown, one line per run."""
    lines = [
        "| seed | reward | oracle win rate | ties | oracle reward by | faithful: base | aligned "
        "| KL, nats (budget) | reward's accuracy | of annotators' ceiling | of Bayes-optimal "
        "| minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        faithful, accuracy, seconds = row["faithful"], row["reward_accuracy"], row["seconds"]
        oracle = row["oracle"]
        assert isinstance(oracle, dict)
        gain = oracle["difference"]
        assert isinstance(faithful, dict)
        assert isinstance(accuracy, dict)
        assert isinstance(seconds, float)
        lines.append(
            f"| {row['seed']} | {'shuffled' if row['shuffled'] else 'fitted'} "
            f"| {shown(row['win_rate'])} | {row['ties']} of {row['pairs']} "
            f"| {gain['value']:+.2f} ({gain['low']:+.2f} to {gain['high']:+.2f}) "
            f"| {shown(faithful['base'])} | {shown(faithful['aligned'])} "
            f"| {row['kl_nats']:.1f} ({row['kl_budget_nats']:g}) "
            f"| {accuracy['micro']:.1%} | {row['share_of_ceiling']:.1%} "
            f"| {row['share_of_bayes_optimal']:.1%} | {seconds / 60:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then collect the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--controls", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--name", default="demo")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    plan = [(seed, False) for seed in given.seeds] + [(seed, True) for seed in given.controls]
    rows = []
    for seed, shuffled in plan:
        folder = given.out / f"{'shuffled' if shuffled else 'seed'}-{seed}"
        run(folder, seed=seed, shuffled=shuffled)
        rows.append(measured(folder, seed=seed, shuffled=shuffled))
    command = " ".join(["python benchmarks/demo_seeds.py", *sys.argv[1:]])
    record(given.results / f"{given.name}.json", command, runs=rows)
    print(table(rows))


if __name__ == "__main__":
    main()
