"""Rewriter or weights? What the same rankings and the same compute are worth in either.

    python benchmarks/rewriter_or_weights.py runs/demo-seeds/seed-* --out runs/rewriter-or-weights

Of each finished demo (`benchmarks/demo_seeds.py` makes them): its rankings align the weights of the
image model, by DPO and, through the demo's reward model, by GRPO; through the same reward model
they train a rewriter of prompts on what is drawn from its rewrites. DPO and GRPO make about PASSES
passes of the image network, of which a backward pass counts as two, and the rewriter fewer (26,000
to 29,000 of 41,000 here), since a text is drawn once; the passes of each are written. The other
arms: both together, also of half the training each; the best of n images by the reward, up to as
many as the rewriter drew in training; the best of one image of each of eight rewrites; guidance;
and as a control the rewriter before it saw an image.

Everything is judged for the idea as it was asked, beside images of the idea as it is from the same
seeds, by the oracle, which training never sees. Three sets of ideas: held out of all training;
those that the rewriter and GRPO trained on; and the held-out ones in other words, which says what
each has learned by heart. Finished runs and judged arms are not repeated. Writes
rewriter_or_weights.json; `benchmarks/rewriter_or_weights_results.py` draws it.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

from algorithms import asked, difference, estimate, record
from PIL import Image

from imgalign.config import read_mapping
from imgalign.diffusion.generate import ImageGenerator
from imgalign.evaluate.comparison import summarise
from imgalign.evaluate.judging import (
    Judge,
    Measures,
    image_distance,
    mean_distances,
    measured,
    to_samples,
)
from imgalign.evaluate.selection import known_prompts
from imgalign.images import write_png
from imgalign.language.locking import content_words
from imgalign.language.rewriting import Rewriter, RewritingConfig, load_rewriter
from imgalign.preferences.records import SamplerSettings
from imgalign.prompts import EVALUATION_SEEDS
from imgalign.runs.checkpoint import checkpoints, step_of
from imgalign.runs.folder import METRICS, run_prompts
from imgalign.runs.metrics import Value, read_metrics
from imgalign.statistics import clustered_mean
from imgalign.storybook.demonstrations import ENVELOPES
from imgalign.storybook.ideas import sample_ideas
from imgalign.storybook.oracle import ORACLE_TIE, check_faithful, oracle_reward
from imgalign.storybook.scenes import parse_prompt
from reward_models.loading import load as load_reward

PASSES = 160 * 16 * 4 * (1 + 1 + 2)
"""Those of a DPO run of benchmarks/direct.py."""
STEPS = 10
"""Denoising steps of every image that is judged."""
NUM_IDEAS, IMAGES = 64, 2
"""Ideas of a set, and images of each."""
BEST_OF = (2, 4, 8, 16, 32)
REWRITES = 8
FIRST_SEED = 60_000
"""Of EVALUATION_SEEDS."""
SHOWN = 6
"""Ideas whose images are kept to look at."""

IDEAS = "data.prompts={storybook: ideas}"
RUNS: Mapping[str, tuple[str, ...]] = {
    "untrained": ("rewriter_sft",),
    "rewriter": ("rewriter_drawn", "policy.model={untrained}", "reward.path={reward}"),
    "dpo": ("storybook_dpo", "data.database={database}", "run.keep_checkpoints=20"),
    "grpo": ("storybook_grpo", "reward.path={reward}", "run.iterations=19", IDEAS),
}
"""A recipe and its overrides; what stands in braces is made of the demo by `Trial`."""

Drawn: TypeAlias = Sequence[Image.Image]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Ideas as they are judged, how they are put, and the seed of each image."""

    name: str
    ideas: Sequence[str]
    prompts: Sequence[str]
    seeds: Sequence[int]


class Trial:
    """One demo: what is trained from it, and the sets of ideas."""

    def __init__(self, demo: Path, out: Path) -> None:
        self.demo = demo
        self.folder = out / demo.name
        self.seed = int(asked(demo)["seed"])
        self.group = str(asked(demo)["group"])
        self.reward = load_reward(demo / "reward")

    def train(self, name: str, given: Sequence[str]) -> None:
        """A recipe and its overrides, unless that is finished."""
        out, done = self.folder / name, self.folder / f"{name}.finished"
        if done.exists():
            return
        recipe, *settings = given
        places = {
            "{untrained}": str(self.folder / "untrained"),
            "{reward}": str(self.demo / "reward"),
            "{database}": str(self.demo / "imgalign.db"),
        }
        for place, path in places.items():
            settings = [setting.replace(place, path) for setting in settings]
        resume = ["--resume"] if (out / "config.yaml").exists() else []
        command = ["train", recipe, *settings, f"seed={self.seed}", "--out", str(out), *resume]
        subprocess.run([sys.executable, "-m", "imgalign", *command], check=True)
        done.touch()

    def passes(self, name: str) -> float:
        """Of the image network, in a run; those of rewards and of language models are not."""
        records = read_metrics(self.folder / name / METRICS)
        if name == "untrained":
            return 0.0
        if name == "rewriter":
            return self.steps_drawn(name) * images_drawn(records)
        return sum(
            float(each.get("forward_passes") or 0) + 2 * float(each.get("backward_passes") or 0)
            for each in records
        )

    def steps_drawn(self, name: str) -> int:
        """Of each image that a rewriter's reward draws."""
        settings = read_mapping(self.folder / name / "config.yaml")
        return int(settings["reward"]["drawn"]["sampler"]["num_inference_steps"])

    def halfway(self, name: str) -> Path:
        """The last checkpoint of the first half of a run."""
        folder = self.folder / name
        last = max(float(each["step"] or 0) for each in read_metrics(folder / METRICS))
        return [each for each in checkpoints(folder) if step_of(each) <= last / 2][-1]

    @cached_property
    def sets(self) -> Sequence[Asked]:
        """Of rewriter and weights."""
        return self.sets_of("rewriter", "dpo")

    def sets_of(self, rewriter: str, *others: str) -> Sequence[Asked]:
        """Ideas held out of these runs, those the first trained on, the first in other words."""
        known = {each for run in (rewriter, *others) for each in known_prompts(self.folder / run)}
        new = [idea for idea in sample_ideas(600, seed=78, held_out=True) if idea not in known]
        trained = run_prompts(self.folder / rewriter).training
        luck = random.Random(f"paraphrased/{self.seed}")
        ideas = picture_prompts(new)
        envelopes = [luck.choice(ENVELOPES) for _ in ideas]
        others = [form.format(idea) for form, idea in zip(envelopes, ideas, strict=True)]
        return (
            put("held out", ideas, ideas),
            put("trained on", seen := picture_prompts(trained), seen),
            put("in other words", ideas, others),
        )


def images_drawn(records: Sequence[Mapping[str, Value]]) -> float:
    """By the reward of a rewriter, in these iterations."""
    return sum(float(each.get("images_drawn") or 0) for each in records)


def picture_prompts(ideas: Sequence[str]) -> list[str]:
    """The first NUM_IDEAS that the oracle of images can judge."""
    found = [idea for idea in ideas if is_picture_prompt(idea)]
    return found[:NUM_IDEAS]


def is_picture_prompt(text: str) -> bool:
    """Whether it is in the grammar of scenes."""
    try:
        parse_prompt(text)
    except ValueError:
        return False
    return True


def put(name: str, ideas: Sequence[str], prompts: Sequence[str]) -> Asked:
    """IMAGES seeds for each idea, the same in every set."""
    count = len(ideas) * IMAGES
    return Asked(
        name=name,
        ideas=[idea for idea in ideas for _ in range(IMAGES)],
        prompts=[prompt for prompt in prompts for _ in range(IMAGES)],
        seeds=list(EVALUATION_SEEDS[FIRST_SEED : FIRST_SEED + count]),
    )


class Arms:
    """Draws what each arm makes of a set of ideas."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.generator = ImageGenerator("storybook")

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        weights: Path | None = None,
        guidance: float = 1.0,
    ) -> Drawn:
        """One image for each prompt and seed."""
        self.generator.use(weights)
        settings = SamplerSettings(num_inference_steps=STEPS, guidance_scale=guidance)
        made = self.generator.generate(prompts, seeds=seeds, settings=settings)
        return [each.image for each in made]

    def rewritten(self, given: Asked, rewriter: Path, weights: Path | None = None) -> Drawn:
        """From the rewrite of each prompt, which keeps the words of its idea."""
        found = rewrites(load_rewriter(str(rewriter), device="cpu"), given)
        texts = [found[prompt][0] for prompt in given.prompts]
        return self.draw(texts, given.seeds, weights=weights)

    def best_of(self, count: int, given: Asked) -> Drawn:
        """Of `count` images for each prompt the one that the reward prefers."""
        return self.best([[prompt] * count for prompt in given.prompts], given)

    def best_of_rewrites(self, given: Asked) -> Drawn:
        """Of one image of each of some rewrites the one that the reward prefers."""
        config = RewritingConfig(tries=3 * REWRITES, temperature=1.0)
        path = str(self.trial.folder / "untrained")
        found = rewrites(load_rewriter(path, config, device="cpu"), given)
        return self.best([found[prompt][:REWRITES] for prompt in given.prompts], given)

    def best(self, texts: Sequence[Sequence[str]], given: Asked) -> Drawn:
        """The first image has the seed that other arms draw from, the others their own."""
        fresh = iter(EVALUATION_SEEDS[FIRST_SEED + 1000 :])
        prompts = [text for own in texts for text in own]
        seeds = [
            seed if place == 0 else next(fresh)
            for own, seed in zip(texts, given.seeds, strict=True)
            for place in range(len(own))
        ]
        asked_for = [idea for own, idea in zip(texts, given.ideas, strict=True) for _ in own]
        images = self.draw(prompts, seeds)
        scores = measured(
            self.trial.reward.score, asked_for, images, name="reward", stack=to_samples
        )
        chosen, start = [], 0
        for own in texts:
            places = range(start, start + len(own))
            chosen.append(images[max(places, key=scores.__getitem__)])
            start += len(own)
        return chosen


def rewrites(rewriter: Rewriter, given: Asked) -> dict[str, list[str]]:
    """Of each prompt the rewrites that keep the words of its idea, or the prompt as it is."""
    found = {}
    for prompt, idea in dict(zip(given.prompts, given.ideas, strict=True)).items():
        (made,) = rewriter.rewrite([prompt], seed=EVALUATION_SEEDS[0], lock=content_words(idea))
        found[prompt] = [each.text for each in made.candidates] or [prompt]
    return found


def arms_of(trial: Trial, arms: Arms, given: Asked) -> Mapping[str, Callable[[], Drawn]]:
    """What is compared with the idea as it is, by name; all of it on the held-out ideas only."""
    weights = {name: trial.folder / name for name in ("dpo", "grpo")}
    rewriter, untrained = trial.folder / "rewriter", trial.folder / "untrained"
    found: dict[str, Callable[[], Drawn]] = {
        "untrained rewriter": lambda: arms.rewritten(given, untrained),
        "rewriter": lambda: arms.rewritten(given, rewriter),
        "weights, DPO": lambda: arms.draw(given.prompts, given.seeds, weights=weights["dpo"]),
        "weights, GRPO": lambda: arms.draw(given.prompts, given.seeds, weights=weights["grpo"]),
        "both": lambda: arms.rewritten(given, rewriter, weights["dpo"]),
    }
    if given.name != "held out":
        return found
    halves = [trial.halfway(name) for name in ("rewriter", "dpo")]
    found["both, half of each"] = lambda: arms.rewritten(given, *halves)
    found["guidance 1.5"] = lambda: arms.draw(given.prompts, given.seeds, guidance=1.5)
    found[f"best of {REWRITES} rewrites"] = lambda: arms.best_of_rewrites(given)
    for count in BEST_OF:
        found[f"best of {count}"] = partial(arms.best_of, count, given)
    return found


def judged(trial: Trial, given: Asked, plain: Drawn, drawn: Drawn) -> dict[str, Any]:
    """An arm beside the plain images, for the ideas."""
    judge = Judge(prompts=given.ideas, base=plain, aligned=drawn, seed=trial.seed)
    measures = Measures(
        oracle=oracle_reward(trial.group), proxy=trial.reward, faithful=check_faithful
    )
    pairs = judge.pairs(given.seeds, measures)
    found = summarise(pairs, seed=trial.seed, oracle_tie=ORACLE_TIE)
    assert found.win_rate is not None
    spread = [
        mean_distances(side, given.ideas, lambda own: image_distance(own, trial.reward.features))
        for side in (plain, drawn)
    ]
    wider = [spread[1][idea] - spread[0][idea] for idea in spread[0]]
    return {
        "win_rate": estimate(found.win_rate.rate),
        "oracle": difference(found.oracle),
        "faithful": difference(found.faithful),
        "reward": difference(found.proxy),
        "diversity": estimate(clustered_mean(wider, list(spread[0]), seed=trial.seed)),
    }


def rows_of(trial: Trial) -> Iterator[dict[str, Any]]:
    """What each arm came to on each set of ideas."""
    arms = Arms(trial)
    for given in trial.sets:
        plain: Drawn | None = None
        for name, draw in arms_of(trial, arms, given).items():
            kept = trial.folder / "judged" / given.name / f"{name}.json"
            if not kept.exists():
                plain = plain or arms.draw(given.prompts, given.seeds)
                drawn = draw()
                found = judged(trial, given, plain, drawn)
                keep_to_look_at(kept.parent, {"plain": plain, name: drawn})
                kept.write_text(json.dumps(found), encoding="utf-8")
            row = {"arm": name, "ideas": given.name, "seed": trial.seed, "group": trial.group}
            yield row | json.loads(kept.read_text(encoding="utf-8"))


def keep_to_look_at(folder: Path, arms: Mapping[str, Drawn]) -> None:
    """The first image of the first ideas."""
    for name, images in arms.items():
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        for number in range(SHOWN):
            write_png(images[number * IMAGES], own / f"{number}.png")


def train(trials: Sequence[Trial], *, jobs: int) -> None:
    """Run what is missing, `jobs` at a time; the rewriter needs the untrained one."""
    for names in (["untrained"], [name for name in RUNS if name != "untrained"]):
        with ThreadPoolExecutor(jobs) as pool:
            tasks = [pool.submit(trial.train, n, RUNS[n]) for n in names for trial in trials]
        for task in tasks:
            task.result()


def main() -> None:
    """Train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/rewriter-or-weights"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    trials = [Trial(demo, given.out) for demo in given.demos]
    train(trials, jobs=given.jobs)
    rows: list[dict[str, Any]] = []
    for trial in trials:
        for row in rows_of(trial):
            rows.append(row)
            print(line(row), flush=True)
    record(
        given.results / "rewriter_or_weights.json",
        "python benchmarks/rewriter_or_weights.py runs/demo-seeds/seed-*",
        passes={trial.seed: {name: trial.passes(name) for name in RUNS} for trial in trials},
        ideas={trial.seed: trial.sets[0].ideas[: SHOWN * IMAGES : IMAGES] for trial in trials},
        runs=rows,
    )


def line(row: Mapping[str, Any]) -> str:
    """Of a table in Markdown."""
    wins, oracle, faithful = row["win_rate"], row["oracle"], row["faithful"]
    return (
        f"| {row['arm']} | {row['ideas']} | {row['seed']} "
        f"| {100 * wins[0]:.0f} ({100 * wins[1]:.0f} to {100 * wins[2]:.0f}) "
        f"| {oracle[0]:+.2f} | {100 * faithful[0]:+.0f} | {row['diversity'][0]:+.3f} |"
    )


if __name__ == "__main__":
    main()
