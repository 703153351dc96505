"""Compare algorithms on the same rewards, prompts, images per iteration and evaluation.

    python benchmarks/algorithms.py runs/demo-seeds/seed-* --out runs/algorithms

Trains each recipe on the reward of each finished demo (`benchmarks/demo_seeds.py` makes them) with
the demo's seed, and compares it with the base as the demo does. Finished runs are not repeated.
Writes algorithms.json and prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgalign.config import find_config, read_mapping
from imgalign.demo import JOURNAL, DemoConfig
from imgalign.evaluate.comparison import Change
from imgalign.evaluate.evaluation import FILE, FOLDER, load_evaluation
from imgalign.evaluate.origin import hardware, library_versions
from imgalign.runs.metrics import read_metrics
from imgalign.statistics import Estimate

RECIPES = ("storybook_grpo", "storybook_supervised")


def asked(demo: Path) -> dict[str, Any]:
    """What a demo was asked for: its seed, its group and more."""
    return dict(json.loads((demo / JOURNAL).read_text(encoding="utf-8"))["asked"])


def run(recipe: str, demo: Path, folder: Path, *, settings: Sequence[str] = ()) -> None:
    """Train and compare, unless that is done."""
    seed, group, reward = asked(demo)["seed"], asked(demo)["group"], demo / "reward"
    program, sizes = [sys.executable, "-m", "imgalign"], DemoConfig()
    if not (folder / FOLDER / FILE).is_file():
        resume = ["--resume"] if folder.exists() else []
        source = f"reward.path={json.dumps(str(reward))}"
        if of_rankings(recipe):
            source = f"data.database={json.dumps(str(demo / 'imgalign.db'))}"
        given = [setting.partition("=")[0] for setting in settings]
        own = [] if {source.partition("=")[0], "data.from"} & set(given) else [source]
        train = ["train", recipe, *own, f"seed={seed}", *settings]
        train += ["--out", str(folder), *resume]
        subprocess.run(program + train, check=True)
        compared = [
            f"num_prompts={sizes.num_evaluation_prompts}",
            f"images_per_prompt={sizes.evaluation_images_per_prompt}",
            f"sampler.num_inference_steps={sizes.comparison_steps}",
            f"seed={seed}",
        ]
        judged = ["--reward", str(reward), "--group", group]
        subprocess.run([*program, "evaluate", str(folder), *compared, *judged], check=True)


def of_rankings(recipe: str) -> bool:
    """Whether a recipe learns from rankings, and so from no reward model."""
    settings = read_mapping(find_config(Path(recipe)))
    return bool(settings["data"]["from"] == "rankings")


def estimate(value: Estimate) -> list[float | None]:
    """Value and 95 % interval."""
    return [value.value, value.low, value.high]


def difference(change: Change | None) -> list[float | None] | None:
    """Aligned minus base."""
    return None if change is None else estimate(change.difference)


def measured(recipe: str, seed: int, folder: Path) -> dict[str, object]:
    """Results of one run."""
    found, records = load_evaluation(folder), read_metrics(folder / "metrics.jsonl")
    assert found.summary.win_rate is not None
    assert found.drift is not None
    rewards = [float(record["reward_mean"] or 0) for record in records if "reward_mean" in record]
    return {
        "recipe": recipe,
        "seed": seed,
        "win_rate": estimate(found.summary.win_rate.rate),
        "ties": found.summary.win_rate.ties,
        "pairs": found.summary.win_rate.num_pairs,
        "oracle": difference(found.summary.oracle),
        "faithful": difference(found.summary.faithful),
        "reward": difference(found.summary.proxy),
        "diversity": difference(found.diversity.change) if found.diversity else None,
        "kl_nats": found.drift.nats,
        "last_training_reward": rewards[-1] if rewards else None,
        "iterations": len(records) - 1,
        "optimizer_steps": sum(float(record.get("optimizer_steps") or 0) for record in records),
        "seconds_learning": sum(float(record.get("seconds_learning") or 0) for record in records),
        "minutes": sum(float(record.get("seconds") or 0) for record in records) / 60,
        "hardware": found.origin.hardware,
    }


def shown(value: object, *, percent: bool = False, signed: bool = False) -> str:
    """Example: "81 % (75 to 86)"."""
    assert isinstance(value, list)
    factor, form = (100, "+.1f" if signed else ".0f") if percent else (1, "+.2f")
    texts = [format(factor * each, form) for each in value]
    return f"{texts[0]}{' %' if percent else ''} ({texts[1]} to {texts[2]})"


def table(rows: list[dict[str, object]]) -> str:
    """Markdown, one line per run."""
    lines = [
        "| recipe | seed | oracle win rate | ties | oracle reward by | faithful by, points "
        "| diversity by | KL, nats | optimizer steps | seconds learning |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['recipe']} | {row['seed']} | {shown(row['win_rate'], percent=True)} "
        f"| {row['ties']} of {row['pairs']} | {shown(row['oracle'])} "
        f"| {shown(row['faithful'], percent=True, signed=True)} | {shown(row['diversity'])} "
        f"| {row['kl_nats']:.1f} | {row['optimizer_steps']:.0f} | {row['seconds_learning']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def processor_minutes() -> float:
    """Of this process and all that it started and waited for: the same beside other work."""
    spent = os.times()
    return (spent.user + spent.system + spent.children_user + spent.children_system) / 60


def record(file: Path, command: str, **facts: object) -> None:
    """Write facts as JSON, with the command, the hardware and the versions they come from."""
    origin = {"command": command, "hardware": hardware(), "versions": library_versions()}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(origin | facts, indent=1) + "\n", encoding="utf-8")


def save(file: Path, rows: list[dict[str, object]], **more: object) -> None:
    """Write what all runs came to, with the command and the hardware, and print the table."""
    command = f"python benchmarks/{file.stem}.py runs/demo-seeds/seed-*"
    record(file, command, **more, runs=rows)
    print(table(rows))


def main() -> None:
    """Run what is missing, then collect the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    rows = []
    for recipe in given.recipes:
        for demo in given.demos:
            folder = given.out / f"{Path(recipe).stem}-{demo.name}"
            run(recipe, demo, folder)
            rows.append(measured(recipe, asked(demo)["seed"], folder))
    save(given.results / "algorithms.json", rows)


if __name__ == "__main__":
    main()
