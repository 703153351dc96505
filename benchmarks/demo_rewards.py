"""The first three stages of the demo, for what begins with its reward: images, rankings, reward.

    python benchmarks/demo_rewards.py runs/bench/demos --seeds 0 1 2 --jobs 2

Each seed has a folder `seed-N` of its own, from which `imgalign demo --out FOLDER --seed N` goes
on. What is finished is not done again. Left out: training and the comparison.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imgalign.demo import DemoConfig, Journal, learn_reward, make_candidates, simulate
from imgalign.preferences.store import Store
from imgalign.storybook.simulate import annotators_of

LEARNED = 3
"""The stage after which there is a reward."""


def prepare(folder: Path, *, seed: int, group: str, num_prompts: int) -> None:
    """Make the images, rank them and fit the reward, unless that is done."""
    settings = DemoConfig(num_prompts=num_prompts)
    asked = {"seed": seed, "group": group, "shuffled": False, "overrides": []}
    journal = Journal.begin(folder, asked | settings.model_dump(mode="json"))
    journal.write(journal.done)
    if journal.done >= LEARNED:
        return
    with Store.open(folder / "imgalign.db", images=folder / "images", seed=seed) as store:
        if journal.done < 1:
            make_candidates(store, settings, seed=seed)
            journal.write(1)
        annotators = annotators_of(group, settings.num_annotators, seed=seed)
        report = learn_reward(
            store, simulate(store, annotators, seed=seed), folder / "reward", seed=seed
        )
        print("\n".join(report.lines()))
    journal.write(LEARNED)


def main() -> None:
    """Prepare each seed, one in a process where several are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--group", default="cosy")
    parser.add_argument("--prompts", type=int, default=DemoConfig().num_prompts)
    parser.add_argument("--jobs", type=int, default=1, help="Processes at once, a thread each.")
    given = parser.parse_args()

    def alone(seed: int) -> None:
        command = [sys.executable, __file__, str(given.out), "--seeds", str(seed)]
        command += ["--group", given.group, "--prompts", str(given.prompts)]
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)

    if len(given.seeds) > 1:
        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(alone, given.seeds))
        return
    (seed,) = given.seeds
    folder = given.out / f"seed-{seed}"
    prepare(folder, seed=seed, group=given.group, num_prompts=given.prompts)


if __name__ == "__main__":
    main()
