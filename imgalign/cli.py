"""The command line: `imgalign COMMAND`. Thin: parse first, import what is slow after, no logic.

The composition root, and with demo.py the only module that may import everything, inside functions.
What the user can mend ends in one line on stderr, `error: ...`, and exit code 2; Ctrl-C in 130;
anything else is a bug and keeps its traceback.
"""

import json
import sys
from collections.abc import Sequence
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Annotated, Literal

import typer

from imgalign import __version__
from imgalign.errors import ImgalignError

# Plain help and no rich tracebacks: rich would double the time of `imgalign --help`.
app = typer.Typer(
    name="imgalign",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
reward = typer.Typer(rich_markup_mode=None, help="Fit, check and use a reward model.")
storybook = typer.Typer(rich_markup_mode=None, help="The embedded picture-book world.")
app.add_typer(reward, name="reward")
app.add_typer(storybook, name="storybook")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(arguments or ["--help"], prog_name="imgalign", standalone_mode=False)
    except (ImgalignError, typer.TyperException) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except OSError as error:
        print(f"error: {_of_the_system(error)}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return code if isinstance(code, int) else 0


def _one_line(error: ImgalignError | typer.TyperException) -> str:
    if isinstance(error, ImgalignError):
        return " ".join(str(error).split())
    message = " ".join(error.format_message().split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "imgalign"
    return f"{message[:1].lower()}{message[1:]}; see '{command} --help'"


def _of_the_system(error: OSError) -> str:
    """What the operating system refused; a library's own OSError has text and no number."""
    if error.strerror is None:
        return " ".join(str(error).split()) or type(error).__name__
    where = "" if error.filename is None else f"{error.filename}: "
    cure = "; free some space and try again" if error.errno in (ENOSPC, EDQUOT, EFBIG) else ""
    return f"{where}{error.strerror[:1].lower()}{error.strerror[1:]}{cure}"


def _print_version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"imgalign {__version__}")
        raise typer.Exit


@app.callback()
def imgalign(
    version: Annotated[
        bool | None,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = None,
) -> None:
    """Rank images, learn the reward, align the model, compare: feedback for text-to-image."""


Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Settings to change.")
]
FirstSeed = Annotated[int, typer.Option(min=0, help="Of the first image; the next has one more.")]
Model = Annotated[
    str, typer.Option(help='"storybook", a folder in diffusers\' layout, or a hub name.')
]
ModelUnder = Annotated[
    str | None,
    typer.Option(help="storybook, a folder or a hub name; if not given, that of the run."),
]
Taste = Literal["cosy", "dreamy", "graphic"]
Adapter = Annotated[
    Path | None, typer.Option(help="A run, one of its checkpoints, or any LoRA folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Steps = Annotated[int, typer.Option(min=1, help="Denoising steps per image.")]
Guidance = Annotated[float, typer.Option(help="Classifier-free guidance; 1 is off.")]
Database = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL; IMGALIGN_DATABASE or imgalign.db here if not given."),
]
Images = Annotated[Path, typer.Option(help="Folder of original images.")]
Project = Annotated[str, typer.Option(help="Queue within the database.")]
Group = Annotated[str | None, typer.Option(help="Only rankings by annotators of this group.")]
PromptTexts = Annotated[list[str] | None, typer.Option("--prompt", help="May be repeated.")]
PromptFile = Annotated[Path | None, typer.Option(help="Text file with one prompt per line.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="New folder for all that is made.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another run.")] = 0,
    group: Annotated[Taste, typer.Option(help="Whose taste.")] = "cosy",
    shuffled: Annotated[
        bool, typer.Option(help="The control: rankings dealt to the wrong images.")
    ] = False,
) -> None:
    """Run the whole loop on the embedded world: rank, learn, align, compare."""
    from imgalign.demo import run_demo

    run_demo(out, seed=seed, group=group, shuffled=shuffled)


@app.command()
def candidates(
    prompt: PromptTexts = None,
    prompts: PromptFile = None,
    storybook_prompts: Annotated[
        int, typer.Option(min=1, help="Without prompts: so many of the storybook's.")
    ] = 40,
    per_prompt: Annotated[int, typer.Option(min=2, max=9, help="Images to choose from.")] = 4,
    seed: FirstSeed = 0,
    model: ModelUnder = None,
    adapter: Adapter = None,
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    overlap: Annotated[int, typer.Option(min=1, help="Annotators who shall rank each item.")] = 1,
    project: Project = "default",
    database: Database = None,
    images: Images = Path("images"),
    device: Device = "auto",
) -> None:
    """Generate images and queue them for ranking."""
    from imgalign.candidates import chosen_prompts, queue_candidates, ranking_command
    from imgalign.generate import ImageGenerator, model_under
    from imgalign.preferences.store import Store
    from imgalign.progress import progress

    texts = chosen_prompts(prompt or (), prompts, otherwise=storybook_prompts)
    with Store.open(database, images=images) as store, progress("generating") as on_progress:
        made = queue_candidates(
            store,
            ImageGenerator(model or model_under(adapter), adapter, device=device),
            texts,
            per_prompt=per_prompt,
            first_seed=seed,
            steps=steps,
            guidance_scale=guidance,
            project=project,
            overlap=overlap,
            on_progress=on_progress,
        )
    command = ranking_command(project, database, images)
    typer.echo(f"{len(made)} items of {per_prompt} images are queued; rank them with `{command}`")


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Any but loopback lets others in: no login.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
    model: Model = "storybook",
    runs: Annotated[Path, typer.Option(help="Folder of training runs.")] = Path("runs"),
    database: Database = None,
    images: Images = Path("images"),
    project: Project = "default",
) -> None:
    """Open the app: rank, train, generate."""
    from ui.app import Settings, launch

    settings = Settings(
        host=host,
        port=port,
        project=project,
        database=database,
        images=images,
        runs=runs,
        model=model,
    )
    launch(settings, on_listening=lambda url: typer.echo(f"imgalign is at {url} (Ctrl-C stops it)"))


@reward.command("train")
def reward_train(
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder for the reward model.")] = Path("runs/reward"),
    group: Group = None,
    project: Annotated[str | None, typer.Option(help="Only rankings of this project.")] = None,
    database: Database = None,
    images: Images = Path("images"),
) -> None:
    """Fit a CLIP-based reward model to the rankings in the store."""
    from imgalign.config import load_config
    from imgalign.preferences.store import Store
    from reward_models.fit import FitConfig, fit
    from reward_models.images import read_image

    settings = load_config(FitConfig, config, overrides or ())
    with Store.open(database, images=images) as store:
        report = fit(
            store.rankings(group=group, project=project),
            lambda image_id: read_image(store.image_path(image_id)),
            settings,
            out,
        )
    typer.echo("\n".join(report.lines()))
    typer.echo(f"written to {out}")


@reward.command("eval")
def reward_eval(
    reward: Annotated[str, typer.Argument(help="Folder of a reward model, or a CLIP.")],
    group: Group = None,
    project: Annotated[str | None, typer.Option(help="Only rankings of this project.")] = None,
    database: Database = None,
    images: Images = Path("images"),
) -> None:
    """Compare a reward model with the rankings in the store, on prompts it did not learn from."""
    import reward_models
    from imgalign.preferences.store import Store
    from reward_models.evaluate import evaluate
    from reward_models.images import read_image

    model = reward_models.load(reward)
    with Store.open(database, images=images) as store:
        evaluation = evaluate(
            model,
            store.rankings(group=group, project=project),
            lambda image_id: read_image(store.image_path(image_id)),
        )
    typer.echo("\n".join(evaluation.lines()))


@reward.command("score")
def reward_score(
    reward: Annotated[str, typer.Argument(help="Folder of a reward model, or a CLIP.")],
    files: Annotated[list[Path], typer.Argument(help="Images.")],
    prompt: Annotated[list[str], typer.Option(help="One for all images, or one for each.")],
) -> None:
    """Score image files."""
    import reward_models
    from reward_models.evaluate import score_files

    for scored in score_files(reward_models.load(reward), files, prompt):
        typer.echo(f"{scored.score:+.4f}\t{scored.path}\t{scored.prompt}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A recipe, such as configs/storybook_ppo.yaml.")],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/ and the recipe's name if not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run stopped.")] = False,
) -> None:
    """Fine-tune a model on a reward."""
    import reward_models
    from imgalign.config import find_config, load_config
    from imgalign.errors import ConfigError
    from imgalign.train import TrainConfig, run

    recipe = find_config(config)
    settings = load_config(TrainConfig, recipe, overrides or ())
    if settings.reward.path is None:
        raise ConfigError("reward.path: expected a reward model; add reward.path=runs/reward")
    held_out = settings.reward.held_out
    result = run(
        settings,
        reward=reward_models.load(settings.reward.path),
        held_out_reward=None if held_out is None else reward_models.load(held_out),
        out=out or Path("runs") / recipe.stem,
        resume=resume,
    )
    typer.echo(f"{result.folder}: {result.message}")
    raise typer.Exit(result.exit_code)


@app.command()
def generate(
    prompt: PromptTexts = None,
    prompts: PromptFile = None,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("generated"),
    model: ModelUnder = None,
    adapter: Adapter = None,
    images_per_prompt: Annotated[int, typer.Option(min=1)] = 1,
    seed: FirstSeed = 0,
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    eta: Annotated[float, typer.Option(help="Noise of the sampler, 0 to 1.")] = 0.0,
    device: Device = "auto",
) -> None:
    """Generate images from prompts, with the base model or an aligned one."""
    from imgalign.candidates import chosen_prompts
    from imgalign.generate import ImageGenerator, model_under
    from imgalign.pictures import check_folder, save_images
    from imgalign.progress import progress

    check_folder(out)
    texts = chosen_prompts(prompt or (), prompts)
    each = [text for text in texts for _ in range(images_per_prompt)]
    with progress("generating") as on_progress:
        generator = ImageGenerator(model or model_under(adapter), adapter, device=device)
        made = generator.generate(
            each,
            seeds=range(seed, seed + len(each)),
            steps=steps,
            guidance_scale=guidance,
            eta=eta,
            on_progress=on_progress,
        )
        for path in save_images(made, out):
            typer.echo(path)


@app.command()
def evaluate(
    aligned: Annotated[Path, typer.Argument(help="A run, a checkpoint, or any LoRA folder.")],
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    reward: Annotated[str | None, typer.Option(help="The reward that was maximised.")] = None,
    group: Annotated[Taste | None, typer.Option(help="Storybook taste that judges.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; in the run if not given.")] = None,
) -> None:
    """Compare an aligned checkpoint with its base, blindly, on prompts it has never seen."""
    import reward_models
    from imgalign.config import load_config
    from imgalign.evaluate import EvaluateConfig, evaluate
    from imgalign.measures import GOLD_TIE, check_faithful, gold_of, image_features

    # Values of overrides are YAML, and any JSON text is.
    path = f"aligned={json.dumps(str(aligned))}"
    settings = load_config(EvaluateConfig, config, [path, *(overrides or ())])
    proxy = None if reward is None else reward_models.load(reward)
    evaluation = evaluate(
        settings,
        out=out,
        gold=None if group is None else gold_of(group),
        gold_meaning=f"what the {group} annotators truly want",
        gold_tie=GOLD_TIE,
        proxy=proxy,
        faithful=check_faithful if settings.prompts is None else None,
        features=None if proxy is None else image_features(proxy),
    )
    typer.echo("\n".join(evaluation.lines()))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    reward: Annotated[Path | None, typer.Option(help="Folder of the reward model.")] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file; in the run if not given.")] = None,
) -> None:
    """Write what happened in a run as one self-contained page."""
    from imgalign.report import write_report

    typer.echo(write_report(run, reward=reward, out=out))


@app.command()
def doctor(
    config: Annotated[
        Path | None, typer.Argument(help="Recipe to examine; storybook_ppo if not given.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Check this installation, and the rules that a training run stands on."""
    from imgalign.config import load_config
    from imgalign.doctor import environment
    from imgalign.train import TrainConfig, diagnose

    for fact in environment():
        typer.echo(f"{fact.name:<18}{fact.value}")
    recipe = config or Path("storybook_ppo.yaml")
    checks = diagnose(load_config(TrainConfig, recipe, overrides or ()))
    for check in checks:
        mark = "ok " if check.passed else "BAD"
        typer.echo(f"{mark}  {check.name}: {check.measured} (expected {check.expected})")
        if not check.passed:
            typer.echo(f"     {check.cure}")
    raise typer.Exit(0 if all(check.passed for check in checks) else 2)


@storybook.command("rank")
def storybook_rank(
    group: Annotated[Taste, typer.Option(help="Whose taste.")] = "cosy",
    annotators: Annotated[int, typer.Option(min=1, help="How many simulated people.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Other people.")] = 0,
    project: Project = "default",
    database: Database = None,
    images: Images = Path("images"),
) -> None:
    """Let simulated annotators rank what is queued."""
    from imgalign.preferences.store import Store
    from imgalign.progress import progress
    from imgalign.simulate import people, rank_queue

    with (
        Store.open(database, images=images, seed=seed) as store,
        progress("ranking") as on_progress,
    ):
        done = rank_queue(
            store,
            people(group, annotators, seed=seed),
            project=project,
            seed=seed,
            on_progress=on_progress,
        )
    typer.echo(
        f"{done.num_rankings} rankings, {done.num_all_bad} times all bad, "
        f"{done.num_skipped} skipped"
    )


@storybook.command("draw")
def storybook_draw(
    prompt: Annotated[list[str], typer.Argument(help='Such as "a red cat on a blue house".')],
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("storybook.png"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another layout.")] = 0,
    size: Annotated[int, typer.Option(min=16, max=2048, help="Pixels per side.")] = 256,
) -> None:
    """Draw a prompt of the storybook, as its training pictures are drawn."""
    from imgalign.pictures import check_png, write_png
    from imgalign.storybook.drawing import draw_prompt

    check_png(out)
    write_png(draw_prompt(" ".join(prompt), seed=seed, size=size), out)
    typer.echo(out)


if __name__ == "__main__":
    sys.exit(main())
