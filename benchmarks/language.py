"""Compare what aligns the storybook's language model, stage by stage, on the same rankings.

    python benchmarks/language.py --seeds 0 1 2 --out runs/language

Of each seed: supervised fine-tuning on examples, candidates for ideas by that model, rankings of
them by simulated annotators of one group, a reward model of these, and from the same start every
algorithm, with the same texts to learn from. Each is judged by the oracle of texts, which training
never sees, on ideas that nobody trained on; the KL is to the supervised model. What is finished is
not repeated; `--jobs` trains and judges so many side by side, each best with one thread
(`OMP_NUM_THREADS=1`). Writes language.json, with the minutes of this call on the clock and the
processor minutes of all, and prints a table.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

from algorithms import processor_minutes, record
from language_judging import (
    Sizes,
    compared,
    evaluation_seeds,
    examples_of,
    held_out_ideas,
    likelihood,
    loaded,
    scores_of,
    texts_of,
)
from rows import permuted, read_lines, write_lines
from torch import Tensor

from imgalign.algorithms.kl import measure_kl
from imgalign.cli.main import main as main_of_imgalign
from imgalign.config import read_mapping
from imgalign.files import read_json, write_atomically
from imgalign.language.policy import LanguagePolicy
from imgalign.runs.checkpoint import checkpoints, step_of
from imgalign.runs.folder import METRICS
from imgalign.runs.metrics import read_metrics
from imgalign.storybook.demonstrations import CASUAL, WILD, demonstrations
from imgalign.storybook.ideas import sample_ideas
from imgalign.storybook.simulate import annotators_of
from imgalign.storybook.text_oracle import rank_texts, text_utility

GROUP = "cosy"
CANDIDATES = 4
SFT = ("rewriter_sft", "policy.model=storybook")
"""From which all others start."""
BEST_OF = {"best-of-4": 4, "best-of-16": 16}
"""Texts of which the best is taken, without training."""
FINISHED = "finished"
"""A file in the folder of a finished run."""

UTILITIES: dict[tuple[Path, str], Tensor] = {}
"""Of the texts of each start of a seed."""

Variants: TypeAlias = Mapping[str, Mapping[str, Any]]

VARIANTS = Path(__file__).with_suffix(".yaml")
"""Variants by name; its header says what stands there."""


SMALL = Sizes(
    ideas=256,
    held_out_ideas=48,
    given_texts=100,
    best_of=(4,),
    settings=("run.iterations=10", "run.checkpoint_every=10"),
    reward_settings=("epochs=2",),
)
"""To see in a few minutes that every stage runs and raises the oracle's utility."""


class Stage:
    """The files of one seed."""

    def __init__(self, folder: Path, seed: int, sizes: Sizes) -> None:
        self.folder = folder
        self.seed = seed
        self.sizes = sizes
        self.places = {
            "reward": str(self.reward),
            "weak reward": str(folder / "weak-reward"),
            "rankings": str(folder / "rankings.jsonl"),
            "shuffled": str(folder / "shuffled.jsonl"),
            "examples": str(folder / "examples.jsonl"),
        }

    @property
    def reward(self) -> Path:
        """The reward model of texts."""
        return self.folder / "reward"

    def prepare(self, *, weak: bool = True) -> None:
        """Supervised model, rankings of its texts, reward model, and examples to keep.

        `weak`: a second reward model, too.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.train("sft", SFT)
        examples = Path(self.places["examples"])
        if not examples.exists():  # of the kind that the language model was pretrained on
            made = demonstrations(1600, seed=self.seed + 50, rates=WILD)
            write_lines(examples, [{"prompt": e.prompt, "completion": e.completion} for e in made])
        rankings = Path(self.places["rankings"])
        if not rankings.exists():
            write_lines(rankings, self.ranked(loaded(self.folder / "sft")))
        shuffled = Path(self.places["shuffled"])
        if not shuffled.exists():
            write_lines(shuffled, list(permuted(read_lines(rankings), seed=self.seed)))
        self.fit("reward", rankings)
        if not weak:
            return
        some = self.folder / "some_rankings.jsonl"
        if not some.exists():
            write_lines(some, read_lines(rankings)[: self.sizes.weak_rankings])
        # A head alone learns little from so few: what follows it goes astray (ADR 14).
        self.fit("weak reward", some, "likelihood=false")

    def fit(self, name: str, rankings: Path, *settings: str) -> None:
        """Fit a reward model, unless that is done."""
        if not (Path(self.places[name]) / "contract.json").exists():
            imgalign(
                "reward",
                "train",
                "--file",
                str(rankings),
                f"model={self.folder / 'sft'}",
                *settings,
                *self.sizes.reward_settings,
                "--out",
                self.places[name],
            )

    def ranked(self, policy: LanguagePolicy) -> list[dict[str, Any]]:
        """Candidates for each idea, with the ranks that an annotator gives them."""
        (annotator,) = annotators_of(GROUP, 1, seed=self.seed)
        rows, ideas = [], sample_ideas(self.sizes.ideas, seed=9000 + self.seed)
        asked = [idea for idea in ideas for _ in range(CANDIDATES)]
        first = self.seed * len(asked)
        written = texts_of(policy, asked, range(first, first + len(asked)))
        for number, idea in enumerate(ideas):
            own = written[number * CANDIDATES : (number + 1) * CANDIDATES]
            texts = [text for text in dict.fromkeys(own) if text]
            if len(texts) < 2:
                continue
            order = range(len(texts))
            said = rank_texts(annotator, idea, texts, order=order, item_id=f"{number}")
            if said.ranking is None:
                continue
            rank = {i: place for place, group in enumerate(said.ranking) for i in group}
            ranks = [rank[i] for i in order]
            rows.append({"prompt": idea, "completions": texts, "ranks": ranks})
        return rows

    def train(self, name: str, settings: Sequence[str]) -> None:
        """Train a variant, unless that is done."""
        out = self.folder / name
        if not (out / FINISHED).exists():
            recipe, *overrides = settings
            filled = [fill(each, self.places) for each in overrides]
            if recipe != "rewriter_sft":
                filled = [f"policy.model={self.folder / 'sft'}", *filled, *self.sizes.settings]
            imgalign(
                "train",
                recipe,
                *filled,
                f"seed={self.seed}",
                "--out",
                str(out),
                *(["--resume"] if (out / "config.yaml").exists() else []),
            )
            (out / FINISHED).touch()

    def utilities_of(self, start: Path | str, policy: LanguagePolicy) -> Tensor:
        """What the oracle says of the texts of a start, which is the policy's reference."""
        key = self.folder, str(start)
        if key not in UTILITIES:  # of this process: each task has a stage of its own
            ideas = held_out_ideas(self.sizes)
            with policy.using("reference"):
                texts = texts_of(policy, ideas, evaluation_seeds(len(ideas)))
            UTILITIES[key] = text_utility(ideas, texts, group=GROUP)
        return UTILITIES[key]

    def minutes(self, name: str) -> float:
        """Processor time of all iterations, with measuring."""
        records = read_metrics(self.folder / name / METRICS)
        return sum(float(each.get("cpu_seconds") or 0) for each in records) / 60


def fill(setting: str, places: Mapping[str, str]) -> str:
    """Put files in the place of their names in braces; other braces stay."""
    for name, path in places.items():
        setting = setting.replace(f"{{{name}}}", path)
    return setting


def imgalign(*words: str) -> None:
    """Run a command of the package in this process, where it is imported."""
    if main_of_imgalign(words):
        raise SystemExit(f"imgalign {' '.join(words)}: did not finish")


def judged(
    run: Path | str,
    start: Path | str,
    *,
    stage: Stage,
    reward: str = "reward",
    kept: bool = True,
) -> dict[str, Any]:
    """Oracle utility, its change from the start, KL, reward, and what is `kept` of given texts.

    `reward` names the reward model that is asked.
    """
    policy, ideas = loaded(run, start), held_out_ideas(stage.sizes)
    seeds = evaluation_seeds(len(ideas))
    texts = texts_of(policy, ideas, seeds)
    before = stage.utilities_of(start, policy)
    sampled = [policy.sample(ideas[:128], seeds=seeds[:128])]
    found = compared(ideas, text_utility(ideas, texts, group=GROUP), before) | {
        "words": mean(len(text.split()) for text in texts),
        "kl_nats": measure_kl(policy, sampled),
        "reward": scores_of(Path(stage.places[reward]), ideas, texts).mean().item(),
    }
    if kept:
        of_pretraining = examples_of(stage.sizes.given_texts, rates=WILD, seed=4242)
        of_sft = examples_of(stage.sizes.given_texts, rates=CASUAL, seed=4343)
        found["pretraining_log_prob"] = likelihood(policy, of_pretraining)
        found["demonstrations_log_prob"] = likelihood(policy, of_sft)
    return found


def best_of(count: int, start: Path, *, stage: Stage) -> dict[str, Any]:
    """Of so many texts of the start for each idea the one that the reward prefers: no training."""
    policy, ideas, reward = loaded(start), held_out_ideas(stage.sizes), stage.reward
    before = stage.utilities_of(start, policy)
    many = [idea for idea in ideas for _ in range(count)]
    texts = texts_of(policy, many, evaluation_seeds(len(many), skip=len(ideas)))
    best = scores_of(reward, many, texts).view(-1, count).argmax(dim=1).tolist()
    chosen = [texts[count * row + place] for row, place in enumerate(best)]
    after = text_utility(ideas, chosen, group=GROUP)
    reward_of = scores_of(reward, ideas, chosen).mean().item()
    # Of n samples, the KL of the best is at most log n - (n - 1) / n (arXiv:2401.01879).
    kl = math.log(count) - (count - 1) / count
    return compared(ideas, after, before) | {"kl_nats": kl, "reward": reward_of}


def curve(run: Path, start: Path, *, stage: Stage, reward: str) -> list[dict[str, Any]]:
    """What the reward and the oracle say of each kept checkpoint, by KL."""
    rows = []
    for folder in checkpoints(run):
        found = judged(folder, start, stage=stage, reward=reward, kept=False)
        row = {key: found[key] for key in ("utility", "kl_nats", "reward")}
        rows.append({"step": step_of(folder)} | row)
    return rows


def prepared(stage: Stage, weak: bool) -> Stage:
    """With all that its variants start from."""
    with spending(stage.folder / f"prepared{'-with-weak' if weak else ''}.json") as found:
        if found is not None:
            stage.prepare(weak=weak)
    return stage


@contextmanager
def spending(file: Path) -> Iterator[dict[str, Any] | None]:
    """What is to be filled in and kept in `file` with the processor time that it took.

    None where it is there already: it is not repeated, and what it took is known.
    """
    if file.exists():
        yield None
        return
    before, found = processor_minutes(), dict[str, Any]()
    yield found
    found["processor_minutes"] = processor_minutes() - before
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(found) + "\n")


def row_of(stage: Stage, name: str, variant: Mapping[str, Any]) -> dict[str, Any]:
    """What one variant of a seed comes to, trained if need be, and shown as soon as it is known."""
    file = stage.folder / "rows" / f"{name}.json"
    with spending(file) as row:
        if row is not None:
            fill_in(row, stage, name, variant)
    row = read_json(file)
    print(line(row), flush=True)
    return row


def fill_in(row: dict[str, Any], stage: Stage, name: str, variant: Mapping[str, Any]) -> None:
    """Train and judge."""
    sft = stage.folder / "sft"
    row |= {"seed": stage.seed, "variant": name, "minutes": 0.0}
    if name == "start":
        row |= judged("storybook", "storybook", stage=stage)
    elif name in BEST_OF:
        row |= best_of(BEST_OF[name], sft, stage=stage)
    else:
        stage.train(name, variant["settings"])
        start: Path | str = "storybook" if name.startswith("sft") else sft
        reward = str(variant.get("reward", "reward"))
        row["minutes"] = stage.minutes(name)
        row |= judged(stage.folder / name, start, stage=stage, reward=reward)
        if "curve" in variant:
            row["curve"] = curve(stage.folder / name, sft, stage=stage, reward=reward)


def rows_of(stages: Sequence[Stage], variants: Variants, *, jobs: int) -> list[dict[str, Any]]:
    """Train and judge what is missing, `jobs` at a time; raises at the end if one failed.

    A seed's variants begin when that seed is prepared, in processes that import everything once.
    """
    weak = any("{weak reward}" in each for one in variants.values() for each in one["settings"])
    first = ["start", "sft", *(name for name, n in BEST_OF.items() if n in stages[0].sizes.best_of)]
    every = {name: {"settings": SFT} for name in first} | dict(variants)
    tasks: dict[int, list[Future[dict[str, Any]]]] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for ready in as_completed([pool.submit(prepared, stage, weak) for stage in stages]):
            stage = ready.result()
            tasks[stage.seed] = [pool.submit(row_of, stage, *each) for each in every.items()]
    return [task.result() for stage in stages for task in tasks[stage.seed]]


def accuracies(stage: Stage) -> dict[str, dict[str, Any]]:
    """How many held-out pairs each reward model of a seed puts in the annotator's order."""
    found = {}
    for name in ("reward", "weak reward"):
        report = Path(stage.places[name]) / "report.json"
        if report.exists():
            accuracy = json.loads(report.read_text(encoding="utf-8"))["test"]["accuracy"]
            low, high = accuracy["by_prompt"]
            pairs = accuracy["num_pairs"]
            found[name] = {"value": accuracy["micro"], "low": low, "high": high, "pairs": pairs}
    return found


def spent(stage: Stage) -> float:
    """Processor minutes of a seed, also those of earlier calls, which no other work changes."""
    files = [*stage.folder.glob("prepared*.json"), *stage.folder.glob("rows/*.json")]
    return sum(float(read_json(file)["processor_minutes"]) for file in files)


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    variants = read_mapping(VARIANTS)
    parser.add_argument("--variants", nargs="+", default=list(variants), choices=variants)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="few texts and iterations")
    parser.add_argument("--out", type=Path, default=Path("runs/language"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    chosen = {name: variants[name] for name in given.variants}
    sizes = SMALL if given.small else Sizes()
    stages = [Stage(given.out / f"seed-{seed}", seed, sizes) for seed in given.seeds]
    began = time.monotonic()
    rows = rows_of(stages, chosen, jobs=given.jobs)
    record(
        given.results / "language.json",
        "python benchmarks/language.py",
        jobs=given.jobs,
        minutes=(time.monotonic() - began) / 60,
        processor_minutes=sum(spent(stage) for stage in stages),
        variants=chosen,
        sizes=asdict(sizes),
        reward_accuracy={stage.seed: accuracies(stage) for stage in stages},
        runs=rows,
    )


def line(row: Mapping[str, Any]) -> str:
    """Of a table in Markdown."""
    change, wins = row["change"], row["win_rate"]
    kept = row.get("pretraining_log_prob")
    return (
        f"| {row['variant']} | {row['seed']} | {row['utility']['value']:.2f} "
        f"| {change['value']:+.2f} ({change['low']:+.2f} to {change['high']:+.2f}) "
        f"| {100 * wins['value']:.0f} % | {row['reward']:+.2f} | {row['kl_nats']:.1f} "
        f"| {'' if kept is None else f'{kept:.3f}'} | {row['minutes']:.1f} |"
    )


if __name__ == "__main__":
    main()
