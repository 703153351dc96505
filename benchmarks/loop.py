"""The loop on several seeds: is each round better than the one before it?

    python benchmarks/loop.py --seeds 0 1 2 --out runs/loops
    python benchmarks/loop.py --seeds 0 --name loop_dpo "align={recipe: storybook_dpo}" reward=none

Runs `imgalign loop` with CONFIG, and the settings that are given, once per seed; a finished one is
not run again, and one that was stopped goes on. The loop decides by votes; the oracle, which it
never sees, is measured beside them. Writes NAME.json and prints a table.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from algorithms import difference, estimate, processor_minutes, record, shown

from imgalign.loop.journal import Journal
from imgalign.loop.page import compared
from imgalign.loop.rounds import rounds_of

CONFIG = "configs/storybook_loop.yaml"
FINISHED = "finished.json"
"""Beside a loop's own files: the processor minutes that it took, once it has ended."""


def run(folder: Path, *, seed: int, settings: Sequence[str]) -> None:
    """One loop to its end, unless it is there."""
    if (folder / FINISHED).is_file():
        return
    goes_on, before = folder.exists(), processor_minutes()
    command = [sys.executable, "-m", "imgalign", "loop", CONFIG, f"seed={seed}", *settings]
    subprocess.run([*command, "--out", str(folder)], check=True)
    minutes = None if goes_on else processor_minutes() - before
    facts = {"processor_minutes": minutes}
    (folder / FINISHED).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def rows_of(folder: Path, *, seed: int) -> Iterator[dict[str, Any]]:
    """Each round, against the one that it started from and against the base."""
    spent = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    for one in rounds_of(Journal.begin(folder, {})):
        found = compared(folder, one)
        step, total = found.against_start.summary, found.against_base.summary
        votes = one.votes
        assert votes is not None
        assert votes.rate_of_these_annotators is not None
        assert step.win_rate is not None
        assert total.win_rate is not None
        assert found.against_base.diversity is not None
        yield {
            "seed": seed,
            "round": one.number,
            "from_round": one.start.round,
            "kept": one.improved,
            "votes": estimate(votes.rate_of_these_annotators),
            "num_votes": votes.num_votes,
            "win_rate": estimate(step.win_rate.rate),
            "win_rate_against_base": estimate(total.win_rate.rate),
            "oracle_against_base": difference(total.oracle),
            "faithful_against_base": difference(total.faithful),
            "reward_against_base": difference(total.proxy),
            "diversity_against_base": difference(found.against_base.diversity.change),
            "kl_from_base_nats": one.kl_from_base,
            "rankings": one.num_rankings,
            "minutes": sum(one.seconds.values()) / 60,
            "processor_minutes_of_loop": spent["processor_minutes"],
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, one line per round."""
    lines = [
        "| seed | round | votes, over the one before | oracle, over the one before "
        "| oracle, over the base | oracle reward, from the base's | faithful by, points "
        "| KL from the base, nats |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['seed']} | {row['round']} | {shown(row['votes'], percent=True)} "
        f"| {shown(row['win_rate'], percent=True)} "
        f"| {shown(row['win_rate_against_base'], percent=True)} "
        f"| {shown(row['oracle_against_base'])} "
        f"| {shown(row['faithful_against_base'], percent=True, signed=True)} "
        f"| {row['kl_from_base_nats']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help="settings of the loop, as section.key=value")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/loops"))
    parser.add_argument("--name", default="loop")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_intermixed_args()
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        folder = given.out / f"{given.name}-{seed}"
        run(folder, seed=seed, settings=given.settings)
        rows += rows_of(folder, seed=seed)
    command = " ".join(
        ["python benchmarks/loop.py --seeds", *map(str, given.seeds), *given.settings]
    )
    record(given.results / f"{given.name}.json", command, settings=given.settings, runs=rows)
    print(table(rows))


if __name__ == "__main__":
    main()
