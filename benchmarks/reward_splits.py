"""How a demo's reward accuracy varies with the split of its prompts.

    python benchmarks/reward_splits.py runs/demo-seeds/seed-* --results benchmarks/results

A demo tests its reward on one fifth of its prompts, about forty. Fits the reward of each finished
demo again on other splits of the same rankings, and gives accuracy as a share of the annotators'
agreement and of the Bayes-optimal accuracy. Splits of one demo share most of their training
rankings, so the spread over them is that of a reported number, not of independent studies. Writes
reward_splits.json.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from algorithms import record

from imgalign.demo import JOURNAL
from imgalign.images import read_tensor
from imgalign.preferences.store import Store
from imgalign.storybook.simulate import annotators_of, rank_queue
from reward_models.fit import FitConfig, fit


def measured(demo: Path, *, splits: int) -> list[dict[str, float]]:
    """Each split's accuracy and shares."""
    asked = json.loads((demo / JOURNAL).read_text(encoding="utf-8"))["asked"]
    seed = asked["seed"]
    rows = []
    with Store.open(f"sqlite:///{demo}/imgalign.db", images=demo / "images", seed=seed) as store:
        annotators = annotators_of(asked["group"], asked["num_annotators"], seed=seed)
        # Nothing is left to rank; this returns the annotators' noiseless utilities.
        utilities = rank_queue(store, annotators, seed=seed).utilities
        for split in range(splits):
            with tempfile.TemporaryDirectory() as folder:
                found = fit(
                    store.rankings(),
                    lambda image_id: read_tensor(store.image_path(image_id)),
                    FitConfig(seeds=(seed,), split_seed=split),
                    Path(folder) / "reward",
                    oracle=lambda ranking: utilities[ranking.item_id],
                ).test
            assert found.share_of_ceiling is not None
            assert found.share_of_truth is not None
            rows.append(
                {
                    "seed": seed,
                    "split": split,
                    "prompts": found.accuracy.num_prompts,
                    "accuracy": found.accuracy.micro,
                    "share_of_ceiling": found.share_of_ceiling,
                    "share_of_bayes_optimal": found.share_of_truth,
                }
            )
            print(rows[-1])
    return rows


def main() -> None:
    """Fit, then write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    rows = [row for demo in given.demos for row in measured(demo, splits=given.splits)]
    summary = {
        name: {
            "mean": statistics.fmean(row[name] for row in rows),
            "standard_deviation": statistics.stdev(row[name] for row in rows),
            "lowest": min(row[name] for row in rows),
            "highest": max(row[name] for row in rows),
        }
        for name in ("accuracy", "share_of_ceiling", "share_of_bayes_optimal")
    }
    command = "python benchmarks/reward_splits.py runs/demo-seeds/seed-*"
    record(given.results / "reward_splits.json", command, summary=summary, fits=rows)
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
