"""Compare what aligns the storybook's language model, stage by stage, on the same rankings.

    python benchmarks/language.py --seeds 0 1 2 --out runs/language

Of each seed: supervised fine-tuning on examples, candidates for ideas by that model, rankings of
them by simulated annotators of one group, a reward model of these, and from the same start every
algorithm, with the same texts to learn from. Each is judged by the oracle of texts, which training
never sees, on ideas that nobody trained on; the KL is to the supervised model. Finished runs are
not repeated. Writes language.json and prints a table.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgalign.algorithms.kl import measure_kl
from imgalign.config import read_mapping
from imgalign.evaluate.origin import hardware, library_versions
from imgalign.language.config import FullLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.prompts import EVALUATION_SEEDS
from imgalign.statistics import clustered_mean
from imgalign.storybook.demonstrations import WILD, demonstrations
from imgalign.storybook.ideas import sample_ideas
from imgalign.storybook.simulate import annotators_of
from imgalign.storybook.text_oracle import rank_texts, text_utility

GROUP = "cosy"
IDEAS, CANDIDATES = 240, 4
HELD_OUT_IDEAS, TEXTS_OF_EACH = 96, 4

VARIANTS = Path(__file__).with_suffix(".yaml")
"""Variants by name: a recipe and its overrides, in which names in braces are files of the seed."""


class Stage:
    """The files of one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.places = {
            "reward": str(folder / "reward"),
            "rankings": str(folder / "rankings.jsonl"),
            "examples": str(folder / "examples.jsonl"),
        }

    def prepare(self) -> None:
        """Supervised model, rankings of its texts, reward model, and examples to keep."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.train("sft", ("rewriter_sft", "policy.model=storybook"))
        examples = Path(self.places["examples"])
        if not examples.exists():  # of the kind that the language model was pretrained on
            made = demonstrations(1600, seed=self.seed + 50, rates=WILD)
            write_lines(examples, [{"prompt": e.prompt, "completion": e.completion} for e in made])
        rankings = Path(self.places["rankings"])
        if not rankings.exists():
            write_lines(rankings, self.ranked(loaded(self.folder / "sft")))
        if not (self.folder / "reward" / "contract.json").exists():
            imgalign(
                "reward",
                "train",
                "--file",
                str(rankings),
                f"model={self.folder / 'sft'}",
                "--out",
                self.places["reward"],
            )

    def ranked(self, policy: LanguagePolicy) -> list[dict[str, Any]]:
        """Candidates for each idea, with the ranks that an annotator gives them."""
        (annotator,) = annotators_of(GROUP, 1, seed=self.seed)
        rows = []
        for number, idea in enumerate(sample_ideas(IDEAS, seed=9000 + self.seed)):
            seeds = [(self.seed * IDEAS + number) * CANDIDATES + i for i in range(CANDIDATES)]
            texts = list(dict.fromkeys(texts_of(policy, [idea] * CANDIDATES, seeds)))
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

    def train(self, name: str, settings: Sequence[str]) -> float:
        """Train a variant, unless that is done; minutes that it took."""
        out, start = self.folder / name, time.monotonic()
        if not (out / "minutes").exists():
            recipe, *overrides = settings
            filled = [fill(each, self.places) for each in overrides]
            if recipe != "rewriter_sft":
                filled = [f"policy.model={self.folder / 'sft'}", *filled]
            imgalign(
                "train",
                recipe,
                *filled,
                f"seed={self.seed}",
                "--out",
                str(out),
                *(["--resume"] if (out / "config.yaml").exists() else []),
            )
            (out / "minutes").write_text(f"{(time.monotonic() - start) / 60}")
        return float((out / "minutes").read_text())


def fill(setting: str, places: Mapping[str, str]) -> str:
    """Put files in the place of their names in braces; other braces stay."""
    for name, path in places.items():
        setting = setting.replace(f"{{{name}}}", path)
    return setting


def imgalign(*words: str) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "imgalign", *words], check=True)


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def loaded(run: Path | str, reference: Path | str | None = None) -> LanguagePolicy:
    """The model of a run; with a `reference`, that of another run as what it is compared with."""
    config = FullLanguageConfig(batch_size=128, dtype="float32")
    policy = LanguagePolicy(
        load_language_model(str(reference or run), device=torch.device("cpu")), config
    )
    if reference is not None:
        own = load_language_model(str(run), device=torch.device("cpu")).model
        policy.network.model.load_state_dict(own.state_dict())
    return policy


@torch.no_grad()
def texts_of(policy: LanguagePolicy, ideas: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """One text for each idea and seed."""
    found: list[str] = []
    for start in range(0, len(ideas), policy.batch_size):
        part = slice(start, start + policy.batch_size)
        found += policy.decode(policy.sample(ideas[part], seeds=seeds[part]))
    return found


@torch.no_grad()
def likelihood(policy: LanguagePolicy, rows: Sequence[Mapping[str, str]]) -> float:
    """Mean log-probability of a token of given texts, in nats."""
    total = tokens = 0.0
    for start in range(0, len(rows), policy.batch_size):
        part = rows[start : start + policy.batch_size]
        data = policy.encode([r["prompt"] for r in part], [r["completion"] for r in part])
        scored = policy.log_prob(data, policy.draw(data, seeds=[0] * len(part)))
        total += scored.values.sum().item()
        tokens += policy.elements(data).sum().item()
    return total / tokens


def judged(run: Path | str, start: Path | str, *, seed: int) -> dict[str, Any]:
    """Oracle utility and its change from the start, KL, and what is left of pretraining."""
    policy = loaded(run, start)
    ideas = [
        idea
        for idea in sample_ideas(HELD_OUT_IDEAS, seed=77, held_out=True)
        for _ in range(TEXTS_OF_EACH)
    ]
    seeds = list(EVALUATION_SEEDS[20_000 : 20_000 + len(ideas)])
    after = text_utility(ideas, texts_of(policy, ideas, seeds), group=GROUP)
    with policy.using("reference"):
        before = text_utility(ideas, texts_of(policy, ideas, seeds), group=GROUP)
    change = (after - before).numpy()
    kept = demonstrations(400, seed=4242, rates=WILD, held_out=True)
    rows = [{"prompt": e.prompt, "completion": e.completion[:200]} for e in kept]
    sampled = [policy.sample(ideas[:128], seeds=seeds[:128])]
    wins = np.where(change > 0, 1.0, np.where(change < 0, 0.0, 0.5))
    return {
        "utility": asdict(clustered_mean(after.numpy(), clusters=ideas, seed=0)),
        "change": asdict(clustered_mean(change, clusters=ideas, seed=0)),
        "win_rate": asdict(clustered_mean(wins, clusters=ideas, seed=0)),
        "kl_nats": measure_kl(policy, sampled),
        "pretraining_log_prob": likelihood(policy, rows),
    }


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    variants = read_mapping(VARIANTS)
    parser.add_argument("--variants", nargs="+", default=list(variants))
    parser.add_argument("--out", type=Path, default=Path("runs/language"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        stage = Stage(options.out / f"seed-{seed}", seed)
        stage.prepare()
        sft = stage.folder / "sft"
        rows.append({"variant": "sft", "seed": seed, **judged(sft, "storybook", seed=seed)})
        for name in options.variants:
            minutes = stage.train(name, variants[name])
            start = "storybook" if name.startswith("sft") else sft
            found = judged(stage.folder / name, start, seed=seed)
            rows.append({"variant": name, "seed": seed, "minutes": minutes, **found})
            print(line(rows[-1]), flush=True)
            record = {"hardware": hardware(), "libraries": library_versions(), "rows": rows}
            (options.out / "language.json").write_text(json.dumps(record, indent=1) + "\n")


def line(row: Mapping[str, Any]) -> str:
    """Of a table in Markdown."""
    change, wins = row["change"], row["win_rate"]
    return (
        f"| {row['variant']} | {row['seed']} | {row['utility']['value']:.2f} "
        f"| {change['value']:+.2f} ({change['low']:+.2f} to {change['high']:+.2f}) "
        f"| {100 * wins['value']:.0f} % | {row['kl_nats']:.1f} "
        f"| {row['pretraining_log_prob']:.3f} | {row.get('minutes', 0):.1f} |"
    )


if __name__ == "__main__":
    main()
