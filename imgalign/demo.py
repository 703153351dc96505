"""The whole loop on the embedded world, for real: rank, learn the reward, align, compare.

Nothing here is of the demo alone: each part is what the command of that name does, and the command
is printed before it. People are simulated; `imgalign ui` puts a person in their place. Their taste
is known exactly, and training never sees it, which is what the last step measures against.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from rich.console import Console
from torch import Tensor

from imgalign.candidates import chosen_prompts, queue_candidates
from imgalign.config import Config, load_config
from imgalign.errors import InputError
from imgalign.evaluate import FOLDER, EvaluateConfig, Evaluation, evaluate
from imgalign.generate import ImageGenerator
from imgalign.measures import check_faithful, gold_of, image_features
from imgalign.policy import RewardModel
from imgalign.preferences.store import Store
from imgalign.progress import progress
from imgalign.report import write_report
from imgalign.simulate import Simulated, people, rank_queue
from imgalign.train import TrainConfig, run
from reward_models import load
from reward_models.evaluate import Ceiling
from reward_models.fit import FitConfig, FitReport, fit
from reward_models.images import read_image

RECIPE = Path("storybook_ppo.yaml")


class DemoConfig(Config):
    """How much of everything: enough for a clear result within ten minutes on two cores."""

    num_prompts: PositiveInt = 120
    """Prompts to rank images of."""

    images_per_prompt: PositiveInt = 4
    """Candidates of each."""

    num_annotators: PositiveInt = 2
    """Simulated people of one taste; each ranks everything."""

    steps: PositiveInt = 20
    """Denoising steps of candidates and of the comparison."""

    num_evaluation_prompts: PositiveInt = 48
    """Held-out prompts of the comparison."""

    evaluation_images_per_prompt: PositiveInt = 3
    """Pairs per prompt."""


class ShuffledReward:
    """A reward dealt to the wrong images: the control, under which nothing may improve."""

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
    """Make everything in the new folder `out`, print what came out of it, return the comparison.

    `overrides` are settings of the training recipe. Everything but the clock follows from `seed`.
    """
    settings = settings or DemoConfig()
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: expected a new folder for the demo; use --out or remove it")
    console = Console(soft_wrap=True, highlight=False)
    started = time.monotonic()
    where = f"--database sqlite:///{out}/imgalign.db --images {out}/images"

    def say(number: int, doing: str, command: str) -> None:
        minutes = (time.monotonic() - started) / 60
        console.print(f"\n[bold]{number}/6 {doing}[/] [dim]({minutes:.1f} min so far)[/]")
        console.print(f"[dim]$ imgalign {command}[/]")

    out.mkdir(parents=True, exist_ok=True)
    with Store.open(f"sqlite:///{out}/imgalign.db", images=out / "images", seed=seed) as store:
        say(
            1,
            "Generate candidates",
            f"candidates --storybook-prompts {settings.num_prompts} {where}",
        )
        make_candidates(store, settings, seed=seed)
        say(2, "Rank them", f"storybook rank --group {group} {where}")
        simulated = simulate(store, settings, group=group, seed=seed)
        console.print(
            f"{simulated.num_rankings} rankings of {settings.images_per_prompt}, "
            f"{simulated.num_all_bad} times all bad, {simulated.num_skipped} skipped"
        )
        say(3, "Learn the reward", f"reward train --out {out}/reward {where}")
        report = learn_reward(store, simulated, out / "reward", seed=seed)
    console.print("\n".join(report.lines()))

    say(4, "Align the model", f"train {RECIPE} reward.path={out}/reward --out {out}/run")
    reward = load(out / "reward")
    recipe = load_config(
        TrainConfig,
        RECIPE,
        [f"reward.path={out / 'reward'}", f"seed={seed}", *overrides],
    )
    result = run(
        recipe,
        reward=ShuffledReward(reward, seed=seed) if shuffled else reward,
        out=out / "run",
    )
    console.print(result.message)

    say(5, "Compare blindly", f"evaluate {out}/run --reward {out}/reward --group {group}")
    evaluation = compare(out / "run", reward, settings, group=group, seed=seed)
    say(6, "Write the report", f"report {out}/run")
    page = write_report(out / "run", reward=out / "reward")
    console.print(f"\n[bold]{evaluation.verdict()}[/]")
    console.print(f"report          {page}")
    console.print(f"before / after  {out / 'run' / FOLDER / 'before_after.png'}")
    console.print(f"took {(time.monotonic() - started) / 60:.1f} minutes")
    return evaluation


def make_candidates(store: Store, settings: DemoConfig, *, seed: int) -> None:
    """Step 1: images of storybook prompts, in the store."""
    with progress("generating") as on_progress:
        queue_candidates(
            store,
            ImageGenerator("storybook"),
            chosen_prompts((), None, otherwise=settings.num_prompts),
            per_prompt=settings.images_per_prompt,
            first_seed=100_000 * (seed + 1),
            steps=settings.steps,
            guidance_scale=1.0,
            eta=1.0,
            overlap=settings.num_annotators,
            on_progress=on_progress,
        )


def simulate(store: Store, settings: DemoConfig, *, group: str, seed: int) -> Simulated:
    """Step 2: rankings by simulated people of one group."""
    with progress("ranking") as on_progress:
        return rank_queue(
            store,
            people(group, settings.num_annotators, seed=seed),
            seed=seed,
            on_progress=on_progress,
        )


def learn_reward(store: Store, simulated: Simulated, out: Path, *, seed: int) -> FitReport:
    """Step 3: a reward model from the rankings, beside what is possible at all."""
    return fit(
        store.rankings(),
        lambda image_id: read_image(store.image_path(image_id)),
        FitConfig(seeds=(seed,), split_seed=seed),
        out,
        ceiling=Ceiling(
            value=simulated.ceiling.by_utility.rate,
            meaning="agreement of a simulated annotator with what their group truly wants",
        ),
    )


def compare(
    folder: Path, reward: RewardModel, settings: DemoConfig, *, group: str, seed: int
) -> Evaluation:
    """Step 5: aligned against base by what the group truly wants, on held-out prompts."""
    return evaluate(
        EvaluateConfig(
            aligned=folder,
            num_prompts=settings.num_evaluation_prompts,
            images_per_prompt=settings.evaluation_images_per_prompt,
            steps=settings.steps,
            seed=seed,
        ),
        out=folder / FOLDER,
        gold=gold_of(group),
        gold_meaning=f"what the {group} annotators truly want",
        proxy=reward,
        faithful=check_faithful,
        features=image_features(reward),
    )
