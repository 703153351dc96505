"""How long imgalign and TRL's DDPOTrainer take to the same oracle win rate, on one reward.

    python benchmarks/time_to_taste.py runs/demo-seeds/seed-* --environments runs/peers
    python benchmarks/time_to_taste.py runs/demo-seeds/seed-* --environments runs/peers
        --iterations 6 --epochs 15 --every 15 --jobs 2 --results runs/bench

For each demo with a reward (`demo_seeds.py` makes whole ones, `demo_rewards.py` no more): the
recipe of the demo and the peer are trained with one thread on the demo's reward, from the same
model, on the same training prompts, with as many images and denoising steps an iteration.
Everything else is what each side's defaults are, but for the peer's learning rate
(`--learning-rate`, searched on seed 0: see the results).
Each saved checkpoint is compared with the base as the demo does. CPU seconds are of training,
rewards included; for imgalign with its measurements on held-out prompts, which the peer has not.
What is finished is not run again. Writes time_to_taste.json and .png and prints a table. The second
command is a short form, to the first checkpoint of each side.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import sd15
import torch
from algorithms import asked, estimate, record
from compare_peers import python_of

from imgalign.demo import DemoConfig
from imgalign.diffusion.loading import load_pipeline
from imgalign.evaluate.evaluation import FILE, load_evaluation
from imgalign.evaluate.origin import command_line
from imgalign.runs.folder import METRICS
from imgalign.runs.metrics import read_metrics
from imgalign.storybook.scenes import evaluation_prompts
from imgalign.train.data.rollouts import PromptsConfig

Row: TypeAlias = dict[str, Any]

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RECIPE, PEER = "storybook_grpo", "trl-0.23.1"
OURS, THEIRS = "imgalign, GRPO", "TRL 0.23.1, DDPOTrainer"
RATES = (0.6, 0.7, 0.8, 0.85)
ONE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def call(command: Sequence[str]) -> None:
    """Run with one thread, without the paths of this environment."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, env=clean | ONE, check=True)


def ours(demo: Path, folder: Path, given: argparse.Namespace) -> list[tuple[int, float, Path]]:
    """Train the recipe; each checkpoint with the CPU seconds until it was there."""
    last = folder / f"step-{given.iterations:06d}"
    if not (folder / "latest.json").is_file() or not last.is_dir():
        resume = ["--resume"] if folder.exists() else []
        settings = [f"reward.path={json.dumps(str(demo / 'reward'))}", "run.keep_checkpoints=9"]
        settings += [f"seed={asked(demo)['seed']}", f"run.iterations={given.iterations}"]
        train = ["train", RECIPE, *settings, "--out", str(folder), *resume]
        call([sys.executable, "-m", "imgalign", *train])
    found, spent = [], 0.0
    for each in read_metrics(folder / METRICS):
        spent += float(each.get("cpu_seconds") or 0)
        step = int(each["step"] or 0)
        checkpoint = folder / f"step-{step:06d}"
        if step and checkpoint.is_dir():
            found.append((step, spent, checkpoint))
    return found


def peer(demo: Path, folder: Path, given: argparse.Namespace) -> list[tuple[int, float, Path]]:
    """Train TRL's; each LoRA with the CPU seconds until it was there."""
    log = folder / "epochs.json"
    if not log.is_file() or len(json.loads(log.read_text())["epochs"]) < given.epochs:
        folder.mkdir(parents=True, exist_ok=True)
        own = PromptsConfig()
        prompts = evaluation_prompts(own.num_storybook, seed=own.seed, held_out=False)
        (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
        sd15.save(load_pipeline("storybook", device=torch.device("cpu")), folder / "pipeline")
        script = [str(HERE / "peers" / "ddpo_reward.py"), str(folder / "pipeline")]
        sizes = [f"--epochs={given.epochs}", f"--every={given.every}"]
        sizes += [f"--seed={asked(demo)['seed']}", f"--learning-rate={given.learning_rate}"]
        files = [f"--reward={demo / 'reward'}", f"--prompts={folder / 'prompts.json'}"]
        files += [f"--scorer={sys.executable}", f"--out={folder}"]
        call([str(python_of(PEER, given.environments)), *script, *sizes, *files])
    epochs = json.loads(log.read_text(encoding="utf-8"))["epochs"]
    return [
        (each["epoch"], each["cpu_seconds"], saved)
        for each in epochs
        if (saved := folder / f"epoch-{each['epoch']}").is_dir()
    ]


def judged(weights: Path, demo: Path, out: Path) -> Row:
    """The oracle's verdict on weights, as the demo asks for it."""
    if not (out / FILE).is_file():
        sizes, told = DemoConfig(), asked(demo)
        settings = [
            f"num_prompts={sizes.num_evaluation_prompts}",
            f"images_per_prompt={sizes.evaluation_images_per_prompt}",
            f"sampler.num_inference_steps={sizes.comparison_steps}",
            f"seed={told['seed']}",
        ]
        by = ["--reward", str(demo / "reward"), "--group", told["group"], "--out", str(out)]
        call([sys.executable, "-m", "imgalign", "evaluate", str(weights), *settings, *by])
    found = load_evaluation(out)
    assert found.summary.win_rate is not None
    assert found.summary.oracle is not None
    return {
        "win_rate": estimate(found.summary.win_rate.rate),
        "ties": found.summary.win_rate.ties,
        "oracle": estimate(found.summary.oracle.difference),
        "kl_nats": None if found.drift is None else found.drift.nats,
    }


def measured(demo: Path, side: str, given: argparse.Namespace) -> list[Row]:
    """Train one side on the reward of a demo, and compare each of its checkpoints with the base."""
    seed, out = asked(demo)["seed"], given.out.resolve()
    name, train = ("ours", ours) if side == OURS else ("peer", peer)
    return [
        {"side": side, "seed": seed, "step": step, "cpu_seconds": seconds}
        | judged(weights, demo, out / f"{name}-{seed}-at-{step}")
        for step, seconds, weights in train(demo, out / f"{name}-{seed}", given)
    ]


def seconds_until(rows: Sequence[Row], rate: float) -> float | None:
    """CPU seconds of the first checkpoint that wins so often; None where none does."""
    reached = [each["cpu_seconds"] for each in rows if each["win_rate"][0] >= rate]
    return min(reached, default=None)


def by_side(pair: tuple[str, int]) -> tuple[bool, int]:
    """Sorts sides and seeds: ours first."""
    return pair[0] != OURS, pair[1]


def table(rows: Sequence[Row]) -> str:
    """Markdown: minutes to each win rate by seed, and the last checkpoint."""
    heads = ["", "seed", *(f"to {100 * each:.0f} %" for each in RATES), "best"]
    heads[2] = f"minutes {heads[2]}"
    lines = [f"| {' | '.join(heads)} |".replace("|  |", "| |")]
    lines += ["|---" * (3 + len(RATES)) + "|"]
    for side, seed in sorted({(each["side"], each["seed"]) for each in rows}, key=by_side):
        own = [each for each in rows if (each["side"], each["seed"]) == (side, seed)]
        times = [seconds_until(own, each) for each in RATES]
        shown = ["never" if each is None else f"{each / 60:.1f}" for each in times]
        best = max(own, key=lambda each: each["win_rate"][0])
        value, low, high = (100 * each for each in best["win_rate"])
        shown.append(
            f"{value:.0f} % ({low:.0f} to {high:.0f}) at {best['cpu_seconds'] / 60:.1f} of "
            f"{own[-1]['cpu_seconds'] / 60:.1f} minutes"
        )
        lines.append(f"| {side} | {seed} | {' | '.join(shown)} |")
    return "\n".join(lines)


def draw(rows: Sequence[Row], file: Path) -> None:
    """Win rate over CPU minutes, a line for each side and seed, with 95 % intervals."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for colour, side in zip(("#2458c6", "#c4541d"), (OURS, THEIRS), strict=True):
        seeds = dict.fromkeys(each["seed"] for each in rows if each["side"] == side)
        for number, seed in enumerate(seeds):
            own = [each for each in rows if (each["side"], each["seed"]) == (side, seed)]
            minutes = [0.0, *(each["cpu_seconds"] / 60 for each in own)]
            values = [[50.0] * 3, *([100 * v for v in each["win_rate"]] for each in own)]
            middle, low, high = zip(*values, strict=True)
            label = side if number == 0 else None
            axes.plot(minutes, middle, marker="o", markersize=3, color=colour, label=label)
            axes.fill_between(minutes, low, high, color=colour, alpha=0.1, linewidth=0)
    axes.axhline(50, color="#888888", linewidth=0.8)
    axes.set(xlabel="CPU minutes of training", ylabel="oracle win rate against the base, %")
    axes.legend(frameon=False, loc="center right")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-taste"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--iterations", type=int, default=24, help="Of the recipe.")
    parser.add_argument("--epochs", type=int, default=80, help="Of the peer.")
    parser.add_argument("--every", type=int, default=10, help="Epochs between LoRAs of the peer.")
    parser.add_argument("--jobs", type=int, default=1, help="Processes that train at once.")
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    work = [(demo.resolve(), side) for demo in given.demos for side in (OURS, THEIRS)]
    rows: list[Row] = []
    python_of(PEER, given.environments)  # built once, before several ask for it
    with ThreadPoolExecutor(given.jobs) as pool:
        for found in pool.map(lambda each: measured(*each, given), work):
            rows += found
            command = f"python benchmarks/{command_line()}"
            record(given.results / "time_to_taste.json", command, checkpoints=rows)
    draw(rows, given.results / "time_to_taste.png")
    print(table(rows))


if __name__ == "__main__":
    main()
