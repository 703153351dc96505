"""Does a rewriter that trains for as many passes as the weights win more? Its curve over training.

    python benchmarks/rewriter_longer.py runs/demo-seeds/seed-* --out runs/rewriter-or-weights

`benchmarks/rewriter_or_weights.py` stops the rewriter before it has made PASSES passes of the image
network. Here it goes on for longer, and each of its checkpoints is judged as there, on the held-out
ideas and on those trained on. Finished runs and judged checkpoints are not repeated. Writes
rewriter_longer.json and prints a table.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from algorithms import record
from rewriter_or_weights import PASSES, RUNS, Arms, Trial, images_drawn, judged, line

from imgalign.runs.checkpoint import checkpoints, step_of
from imgalign.runs.folder import METRICS
from imgalign.runs.metrics import read_metrics

NAME = "longer"
SETTINGS = ("run.iterations=84", "run.keep_checkpoints=7")
LABEL = "rewriter after {} iterations"


def rows_of(trial: Trial) -> Iterator[dict[str, Any]]:
    """The rewriter before it saw an image, and each checkpoint."""
    arms, records = Arms(trial), read_metrics(trial.folder / NAME / METRICS)
    saved = checkpoints(trial.folder / NAME)
    folders = {0: trial.folder / "untrained"} | {step_of(each): each for each in saved}
    for given in trial.sets_of(NAME)[:2]:
        plain = None
        for step, folder in folders.items():
            kept = trial.folder / "judged" / given.name / f"{LABEL.format(step)}.json"
            if not kept.exists():
                plain = plain or arms.draw(given.prompts, given.seeds)
                found = judged(trial, given, plain, arms.rewritten(given, folder))
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found), encoding="utf-8")
            so_far = [each for each in records if float(each["step"] or 0) <= step]
            row = {"arm": LABEL.format(step), "ideas": given.name, "seed": trial.seed, "step": step}
            row |= {"passes": trial.steps_drawn(NAME) * images_drawn(so_far)}
            yield row | json.loads(kept.read_text(encoding="utf-8"))


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/rewriter-or-weights"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for trial in [Trial(demo, given.out) for demo in given.demos]:
        trial.train("untrained", RUNS["untrained"])
        trial.train(NAME, (*RUNS["rewriter"], *SETTINGS))
        for row in rows_of(trial):
            rows.append(row)
            print(f"{line(row)} {row['passes']:.0f}", flush=True)
    demos = " ".join(f"runs/demo-seeds/{demo.name}" for demo in given.demos)
    command = f"python benchmarks/rewriter_longer.py {demos}"
    record(given.results / "rewriter_longer.json", command, passes=PASSES, runs=rows)


if __name__ == "__main__":
    main()
