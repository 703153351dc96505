"""The whole loop on the storybook: rank images, fit a reward model, align, compare.

Each stage runs the code of a command, and prints that command first. Annotators are simulated; to
rank by hand instead, use `imgalign ui`. Their noiseless utility is the oracle reward: training
never sees it, and the comparison at the end is judged by it.

What a seed decides: the noise of the candidates, the annotators and their display orders, the split
of rankings and the start of the reward's fit, and in training the adapter, noise and order of
prompts. All seeds share the prompts of candidates, of training and of the comparison, and the noise
of the compared images; there a seed decides only which side is judged first, and the resamples
behind the intervals. So the spread over seeds is for these prompts only; the interval over prompts
is the one that generalises to others.
"""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from rich.console import Console
from rich.markup import escape
from torch import Tensor

from imgalign.config import Config, load_config
from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import InputError
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.evaluation import FOLDER, Evaluation
from imgalign.evaluate.run import evaluate
from imgalign.files import (
    LOCK,
    check_folder,
    lock_folder,
    read_json,
    reporting_full_disk,
    write_atomically,
)
from imgalign.images import read_tensor
from imgalign.loop.measures import storybook_measures
from imgalign.policy import RewardModel
from imgalign.preferences.address import of_file
from imgalign.preferences.fit_report import LearnedFrom
from imgalign.preferences.queue import queue_candidates
from imgalign.preferences.records import SamplerSettings
from imgalign.preferences.store import Store
from imgalign.report.sheets import SHEET
from imgalign.report.writing import PAGE, write_report
from imgalign.runs.folder import CONFIG
from imgalign.runs.progress import progress, working
from imgalign.storybook.annotators import Annotator
from imgalign.storybook.scenes import candidate_prompts, evaluation_prompts
from imgalign.storybook.simulate import Simulated, annotators_of, rank_queue
from imgalign.train.config import TrainConfig
from imgalign.train.run import run
from reward_models import load
from reward_models.fit import FitConfig, FitReport, fit

RECIPE = Path("storybook_grpo.yaml")
JOURNAL = "demo.json"
LAST = 6
"""Number of stages."""


class DemoConfig(Config):
    """Sizes of the demo: enough for a clear result within ten minutes on two cores."""

    num_prompts: PositiveInt = 240
    """Prompts whose candidates are ranked."""

    images_per_prompt: PositiveInt = 4
    """Candidates per prompt."""

    num_annotators: PositiveInt = 4
    """Simulated annotators of one group; each ranks every item."""

    candidate_steps: PositiveInt = 10
    """Denoising steps of candidates: as in training, so that the reward is fitted to images of the
    kind that it will score."""

    comparison_steps: PositiveInt = 20
    """Denoising steps of the comparison, as `imgalign generate` has it."""

    num_evaluation_prompts: PositiveInt = 48
    """Held-out prompts of the comparison."""

    evaluation_images_per_prompt: PositiveInt = 3
    """Pairs per prompt."""


class ShuffledReward:
    """A reward whose scores are permuted among the images: the control, which must not improve."""

    def __init__(self, reward: RewardModel, *, seed: int) -> None:
        self.reward = reward
        self.generator = torch.Generator().manual_seed(seed)

    def score(
        self, *, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """The reward's scores of the batch, in random order."""
        scores = self.reward.score(prompts=prompts, samples=samples)
        return scores[torch.randperm(len(scores), generator=self.generator)]


def run_demo(
    out: Path,
    *,
    seed: int = 0,
    group: str = "cosy",
    shuffled: bool = False,
    settings: DemoConfig | None = None,
    overrides: Sequence[str] = (),
) -> Evaluation:
    """Run the demo in the new folder `out`, print its results, and return the comparison.

    A demo that was stopped continues when it is called again with the same arguments. `overrides`
    are settings of the training recipe. Results are a function of `seed`, except that a shuffled
    demo that was stopped draws other permutations. InputError for an unknown group, or a folder
    with anything else in it.
    """
    settings = settings or DemoConfig()
    annotators = annotators_of(group, settings.num_annotators, seed=seed)
    asked = {"seed": seed, "group": group, "shuffled": shuffled, "overrides": list(overrides)}
    load_config(TrainConfig, RECIPE, [f"seed={seed}", *overrides])  # refused now, not at stage 4
    check_folder(out)
    console = Console(soft_wrap=True, highlight=False)
    try:
        with lock_folder(out, doing="running a demo"):
            journal = Journal.begin(out, asked | settings.model_dump(mode="json"))
            return go(journal, annotators, settings, seed, overrides, shuffled, console)
    except (KeyboardInterrupt, SystemExit):
        console.print(
            f"\nstopped; the same command continues from here, or remove {out}", markup=False
        )
        raise


@dataclass(frozen=True, slots=True)
class Journal:
    """Arguments of a demo and the last finished stage, saved as `demo.json`.

    Example: `{"asked": {"seed": 0, "group": "cosy", ...}, "done": 3}`: the reward is fitted.
    """

    folder: Path
    asked: dict[str, Any]
    done: int

    @staticmethod
    def begin(folder: Path, asked: dict[str, Any]) -> "Journal":
        """Use a folder that is new or in which the same demo was stopped; else InputError."""
        check_folder(folder)
        other = f"{folder}-2"
        cure = f'add --out {other} (make demo ARGS="--out {other}"), or remove {folder}'
        file = folder / JOURNAL
        if not file.is_file():
            if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
                raise InputError(f"{folder}: expected a new folder for the demo; {cure}")
            return Journal(folder, asked, 0)
        try:
            before = read_json(file)
            journal = Journal(folder, dict(before["asked"]), int(before["done"]))
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{file}: damaged; {cure}") from None
        if journal.done == LAST:
            raise InputError(
                f"{folder}: holds a finished demo, see {folder / 'run' / PAGE}; for another, {cure}"
            )
        for key in sorted(asked.keys() | journal.asked.keys()):
            if asked.get(key) != journal.asked.get(key):
                raise InputError(
                    f"{folder}: holds a demo with {key} {journal.asked.get(key)}, got "
                    f"{asked.get(key)}; continue with that, or {cure}"
                )
        return journal

    def write(self, done: int) -> None:
        """Record that the stages up to `done` are finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"asked": self.asked, "done": done}) + "\n"
        with reporting_full_disk(self.folder, "making the demo"):
            write_atomically(self.folder / JOURNAL, content)


def go(
    journal: Journal,
    annotators: Sequence[Annotator],
    settings: DemoConfig,
    seed: int,
    overrides: Sequence[str],
    shuffled: bool,
    console: Console,
) -> Evaluation:
    """Run the unfinished stages; the last two are quick and are run together."""
    out, group, done = journal.folder, annotators[0].group, journal.done
    started = time.monotonic()
    folder = shlex.quote(str(out))
    database = shlex.quote(of_file(out / "imgalign.db"))
    where = f"--database {database}"

    def say(number: int, doing: str, command: str, *, before: bool = False) -> None:
        minutes = (time.monotonic() - started) / 60
        so_far = "done before" if before else f"{minutes:.1f} min so far"
        console.print(f"\n[bold]{number}/{LAST} {doing}[/] [dim]({so_far})[/]")
        console.print(f"[dim]$ imgalign {escape(command)}[/]")

    journal.write(done)
    with Store.open(out / "imgalign.db", images=out / "images", seed=seed) as store:
        amount = f"--storybook-prompts {settings.num_prompts} --steps {settings.candidate_steps}"
        making = f"candidates --create {amount} --eta 1 --overlap {len(annotators)} {where}"
        say(1, "Generate candidates", making, before=done >= 1)
        if done < 1:
            make_candidates(store, settings, seed=seed)
            journal.write(1)
        say(2, "Rank them", f"storybook rank --group {group} {where}", before=done >= 3)
        if done < 3:
            simulated = simulate(store, annotators, seed=seed)
            console.print(
                f"{simulated.num_rankings} rankings of {settings.images_per_prompt}, "
                f"{simulated.num_all_bad} times all bad, {simulated.num_skipped} skipped"
            )
        say(3, "Learn the reward", f"reward train --out {folder}/reward {where}", before=done >= 3)
        if done < 3:
            report = learn_reward(store, simulated, out / "reward", seed=seed)
            console.print("\n".join(report.lines()), markup=False)
            journal.write(3)

    training = f"train {RECIPE} reward.path={folder}/reward --out {folder}/run"
    say(4, "Align the model", training, before=done >= 4)
    reward = load(out / "reward", device="auto")
    if done < 4:
        align(out, reward, seed=seed, overrides=overrides, shuffled=shuffled, console=console)
        journal.write(4)

    say(5, "Compare blindly", f"evaluate {folder}/run --reward {folder}/reward --group {group}")
    evaluation = compare(out / "run", reward, settings, group=group, seed=seed)
    say(6, "Write the report", f"report {folder}/run")
    with working("writing the report"):
        page = write_report(out / "run", reward=out / "reward")
    journal.write(LAST)
    console.print(f"\n[bold]{evaluation.verdict()}[/]")
    console.print(f"took {(time.monotonic() - started) / 60:.1f} minutes")
    console.print(f"before / after  {out / 'run' / FOLDER / SHEET}", markup=False)
    console.print("\n[bold]What next[/]")
    for doing, how in what_next(page):
        console.print(f"{doing:<22}{how}", markup=False)
    return evaluation


def what_next(page: Path) -> list[tuple[str, str]]:
    """Three things to do after a demo, each with its command."""
    # `make demo` installs the program in an environment that is not on the path.
    here = Path(sys.argv[0]).name == "imgalign" and shutil.which("imgalign") is None
    program = shlex.quote(sys.argv[0]) if here else "imgalign"
    return [
        ("open the report", shlex.quote(str(page))),
        ("rank images yourself", f"{program} candidates && {program} ui"),
        (
            "align your own model",
            f"{program} candidates --model FOLDER_OR_HUB_NAME --prompts FILE && {program} ui",
        ),
    ]


def make_candidates(store: Store, settings: DemoConfig, *, seed: int) -> None:
    """Stage 1: images of storybook prompts, in the store."""
    with progress("generating") as on_progress:
        queue_candidates(
            store,
            ImageGenerator("storybook"),
            candidate_prompts(settings.num_prompts),
            per_prompt=settings.images_per_prompt,
            first_seed=1_000 * (seed % 1_000),  # the comparison's begin at a million
            settings=SamplerSettings(num_inference_steps=settings.candidate_steps, eta=1.0),
            overlap=settings.num_annotators,
            on_progress=on_progress,
        )


def simulate(store: Store, annotators: Sequence[Annotator], *, seed: int) -> Simulated:
    """Stage 2: rankings by simulated annotators of one group."""
    with progress("ranking") as on_progress:
        return rank_queue(store, annotators, seed=seed, on_progress=on_progress)


def learn_reward(store: Store, simulated: Simulated, out: Path, *, seed: int) -> FitReport:
    """Stage 3: a reward model fitted to the rankings, reported with its upper bounds."""
    return fit(
        store.rankings(),
        lambda image_id: read_tensor(store.image_path(image_id)),
        FitConfig(seeds=(seed,), split_seed=seed),
        out,
        learned_from=LearnedFrom(),
        oracle=lambda ranking: simulated.utilities[ranking.item_id],
    )


def align(
    out: Path,
    reward: RewardModel,
    *,
    seed: int,
    overrides: Sequence[str],
    shuffled: bool,
    console: Console,
) -> None:
    """Stage 4: training, from the last checkpoint if it was stopped. SystemExit if stopped now."""
    path = json.dumps(str(out / "reward"))  # values of overrides are YAML, and any JSON text is
    result = run(
        load_config(TrainConfig, RECIPE, [f"reward.path={path}", f"seed={seed}", *overrides]),
        reward=ShuffledReward(reward, seed=seed) if shuffled else reward,
        out=out / "run",
        resume=(out / "run" / CONFIG).is_file(),
    )
    console.print(result.message, markup=False)
    if result.signal is not None:
        raise SystemExit(result.exit_code)


def compare(
    folder: Path, reward: RewardModel, settings: DemoConfig, *, group: str, seed: int
) -> Evaluation:
    """Stage 5: aligned against base by the oracle reward, on held-out prompts."""
    return evaluate(
        EvaluateConfig(
            aligned=folder,
            num_prompts=settings.num_evaluation_prompts,
            images_per_prompt=settings.evaluation_images_per_prompt,
            sampler=SamplerSettings(num_inference_steps=settings.comparison_steps),
            seed=seed,
        ),
        measures=storybook_measures(group, reward),
        draw_prompts=evaluation_prompts,
    )
