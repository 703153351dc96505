"""Commands that train: the demo, a loop, a run, and the checks before one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgalign.cli.options import (
    Overrides,
    Taste,
    refuse_given,
)
from imgalign.cli.program import together

if TYPE_CHECKING:
    from imgalign.policy import RewardModel
    from imgalign.train.config import TrainConfig


def demo(
    out: Annotated[Path, typer.Option(help="New folder for all outputs.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    group: Annotated[Taste, typer.Option(help="Group of simulated annotators.")] = "cosy",
    shuffled: Annotated[
        bool, typer.Option(help="The control: rewards permuted among images.")
    ] = False,
) -> None:
    """Run the whole loop on the storybook: rank, fit a reward model, align, compare."""
    typer.echo("The whole loop on the storybook. Loading the libraries ...")
    from imgalign.demo import run_demo

    run_demo(out, seed=seed, group=group, shuffled=shuffled)


def loop(
    config: Annotated[
        Path, typer.Argument(help="Settings of a loop, such as configs/storybook_loop.yaml.")
    ],
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for all outputs; loops/ and the file's name if not given."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every setting with its meaning, and stop.")
    ] = False,
) -> None:
    """Generate, rank, align and compare in rounds, until they no longer improve.

    A loop that was stopped is continued by the same command.
    """
    if explain:
        refuse_given({"--out": out}, "with --explain, which runs nothing")
    from imgalign.config import explained, find_config, load_config
    from imgalign.loop.config import LoopConfig

    recipe = find_config(config)
    settings = load_config(LoopConfig, recipe, overrides or ())
    if explain:
        typer.echo("\n".join(explained(settings)))
        return
    typer.echo("Loading the libraries ...")
    from imgalign.loop.plan import SETTINGS
    from imgalign.loop.run import run_loop

    own = recipe.parent if recipe.name == SETTINGS else None
    out = out or own or Path("loops") / recipe.stem
    try:
        result = run_loop(settings, out, say=typer.echo)
    except (KeyboardInterrupt, SystemExit):
        typer.echo(f"\nstopped; the same command continues from here, or remove {out}")
        raise
    typer.echo("\n".join(result.lines()))


def train(
    config: Annotated[Path, typer.Argument(help="A recipe, such as configs/storybook_grpo.yaml.")],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/ and the recipe's name if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every setting with its meaning, and stop.")
    ] = False,
) -> None:
    """Fine-tune a model on a reward, or on given images."""
    if explain:
        refuse_given(
            {"--out": out, "--resume": resume or None}, "with --explain, which runs nothing"
        )
    from imgalign.config import explained, find_config, load_config
    from imgalign.runs.folder import CONFIG
    from imgalign.runs.old_format import refuse_old
    from imgalign.runs.world import writes_files
    from imgalign.train.config import TrainConfig
    from imgalign.train.reward_record import find_rewards
    from imgalign.train.run import GO_ON, run
    from imgalign.train.trackers import refuse_missing

    with together(cure=GO_ON, can_share=True) as world:
        recipe = find_config(config)
        if recipe.name == CONFIG:
            refuse_old(recipe.parent)
        settings = load_config(TrainConfig, recipe, overrides or ())
        if explain:
            typer.echo("\n".join(explained(settings)))
            return
        refuse_missing(settings.run.trackers)  # before rewards are loaded, and perhaps downloaded
        own = recipe.parent if resume and recipe.name == CONFIG else None
        out = out or own or Path("runs") / recipe.stem
        if resume:
            settings = find_rewards(settings, out)
        reward, held_out = load_rewards(settings)
        result = run(
            settings, reward=reward, held_out_reward=held_out, out=out, resume=resume, world=world
        )
    if writes_files(world):
        typer.echo(f"{result.folder}: {result.message}")
    raise typer.Exit(result.exit_code)


def load_rewards(settings: "TrainConfig") -> list["RewardModel | None"]:
    """The rewards of training and of held-out prompts; of drawn images where the settings say so.

    Both draw with one image model.
    """
    names, device = (settings.reward.path, settings.reward.held_out), settings.run.device
    loaded = [None if name is None else load_reward(name, device=device) for name in names]
    drawn = settings.reward.drawn
    from imgalign.storybook.opinions import PREFIX
    from reward_models.evaluate import check_samples

    for name, reward in zip(names, loaded, strict=True):
        if reward is not None and not str(name).startswith(PREFIX):  # annotators judge both
            scored = settings.policy.samples if drawn is None else "images"
            check_samples(reward, scored, name=str(name))
    if drawn is None:
        return loaded
    from imgalign.diffusion.generate import ImageGenerator
    from imgalign.train.drawn import DrawnReward, drawing

    adapter = None if drawn.adapter is None else Path(drawn.adapter)
    draw = drawing(ImageGenerator(drawn.model, adapter, device=device), drawn.sampler)
    return [
        None if reward is None else DrawnReward(reward, draw, drawn, seed=settings.seed)
        for reward in loaded
    ]


def load_reward(name: str, *, device: str) -> "RewardModel":
    """A reward model by its name or folder, or simulated annotators by their group."""
    import reward_models
    from imgalign.storybook.opinions import PREFIX, Opinions

    if name.startswith(PREFIX):
        return Opinions.named(name)
    return reward_models.load(name, device=device)


def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Recipe to check; storybook_grpo if not given.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Check this installation, and the ratios, KL and gradients of a model."""
    from imgalign.config import load_config
    from imgalign.environment import facts
    from imgalign.train.config import TrainConfig
    from imgalign.train.run import diagnose

    for fact in facts():
        typer.echo(f"{fact.name:<18}{fact.value}")
    recipe = config or Path("storybook_grpo.yaml")
    checks = diagnose(load_config(TrainConfig, recipe, overrides or ()))
    for check in checks:
        mark = "ok " if check.passed else "BAD"
        typer.echo(f"{mark}  {check.name}: {check.measured} (expected {check.expected})")
        if not check.passed:
            typer.echo(f"     {check.cure}")
    raise typer.Exit(0 if all(check.passed for check in checks) else 2)
