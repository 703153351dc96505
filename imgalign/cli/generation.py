"""Commands on the images of a model: generate them, compare them blindly, write a report."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgalign.cli.options import (
    Adapter,
    Database,
    Device,
    Eta,
    FirstSeed,
    Guidance,
    Images,
    Locked,
    ModelUnder,
    Overrides,
    PromptFile,
    PromptTexts,
    Scheduler,
    Steps,
    Strength,
    Taste,
    changed,
    refuse_given,
    sampler_of,
)
from imgalign.cli.rewriting import explained

if TYPE_CHECKING:
    from imgalign.diffusion.generate import ImageGenerator
    from imgalign.evaluate.config import EvaluateConfig
    from imgalign.language.rewriting import Rewrite
    from imgalign.preferences.records import Generated


def generate(
    prompt: PromptTexts = None,
    prompts: PromptFile = None,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("generated"),
    model: ModelUnder = None,
    adapter: Adapter = None,
    strength: Strength = 1.0,
    images_per_prompt: Annotated[int, typer.Option(min=1, help="Seeds, each an image.")] = 1,
    seed: FirstSeed = 0,
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    eta: Eta = 0.0,
    scheduler: Scheduler = "ddim",
    device: Device = "auto",
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="Draw a rewrite of each prompt beside it.")
    ] = False,
    rewriter: Annotated[
        str, typer.Option(help="With --rewrite: a language model, or a run of one.")
    ] = "storybook",
    lock: Locked = "content",
) -> None:
    """Generate images from prompts, with the base model or an aligned one."""
    if not rewrite:
        refuse_given(changed(generate, {"rewriter": rewriter, "lock": lock}), "without --rewrite")
    from imgalign.diffusion.generate import ImageGenerator, generate_pairs, save_images
    from imgalign.files import check_folder
    from imgalign.prompts import chosen_prompts
    from imgalign.runs.folder import model_under
    from imgalign.runs.progress import progress

    check_folder(out)
    settings = sampler_of(steps=steps, guidance=guidance, eta=eta, scheduler=scheduler)
    texts = chosen_prompts(prompt or (), prompts)
    each = [text for text in texts for _ in range(images_per_prompt)]
    seeds = range(seed, seed + len(each))
    with progress("generating") as on_progress:
        generator = ImageGenerator(
            model or model_under(adapter), adapter, strength=strength, device=device
        )
        if rewrite:
            found = rewritten(texts, rewriter, lock=lock, seed=seed, generator=generator)
            pairs = generate_pairs(
                *(generator, each, [found[text].text for text in each]),
                rewriter=rewriter,
                seeds=seeds,
                settings=settings,
                on_progress=on_progress,
            )
            paths = save_pairs(list(pairs), out)
        else:
            made = generator.generate(each, seeds=seeds, settings=settings, on_progress=on_progress)
            paths = save_images(made, out)
        for path in paths:
            typer.echo(path)
    if rewrite:
        for text in texts:
            typer.echo("\n".join(explained(found[text])), err=True)


def rewritten(
    prompts: Sequence[str], model: str, *, lock: str, seed: int, generator: "ImageGenerator"
) -> dict[str, "Rewrite"]:
    """The rewrite of each prompt that the image model can read as a whole."""
    from imgalign.language.locking import check_lock, parse_lock
    from imgalign.language.rewriting import load_rewriter

    words = parse_lock(lock)
    check_lock(words, prompts)
    rewriter = load_rewriter(model, device=str(generator.family.device))
    distinct = list(dict.fromkeys(prompts))
    found = rewriter.rewrite(distinct, seed=seed, lock=words, unread=generator.family.cut_text)
    return {each.prompt: each for each in found}


def save_pairs(pairs: Sequence[tuple["Generated", "Generated"]], folder: Path) -> Iterator[Path]:
    """Write the plain and the rewritten image of each pair, and a sheet of all; gives the paths."""
    from imgalign.diffusion.generate import save_images
    from imgalign.images import write_png
    from imgalign.report.sheets import before_after

    first: Path | None = None
    for path in save_images((image for pair in pairs for image in pair), folder):
        first = first or path
        yield path
    assert first is not None
    plain, others = zip(*pairs, strict=True)
    sheet = before_after(
        [each.image for each in plain],
        [each.image for each in others],
        [each.provenance.prompt for each in others],
        title="Plain and rewritten",
        subtitle="the same seeds, drawn from the prompt above and from its rewrite below",
        names=("plain", "rewrite"),
    )
    path = folder / f"{first.name.partition('-')[0]}-plain-and-rewritten.png"
    write_png(sheet, path)
    yield path


def evaluate(
    aligned: Annotated[Path, typer.Argument(help="A run, a checkpoint, or any LoRA folder.")],
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="Reward model that training maximised.")
    ] = None,
    group: Annotated[Taste | None, typer.Option(help="Simulated annotators that judge.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; in the run if not given.")] = None,
    votes: Annotated[
        bool, typer.Option("--votes", help="Count the blind votes in the database instead.")
    ] = False,
    database: Database = None,
    images: Images = None,
    project: Annotated[
        str | None, typer.Option(help="With --votes: only those of this project.")
    ] = None,
) -> None:
    """Compare an aligned checkpoint with its base, blindly, on unseen prompts."""
    from imgalign.config import load_config
    from imgalign.evaluate.config import EvaluateConfig

    # Values of overrides are YAML, and any JSON text is.
    path = f"aligned={json.dumps(str(aligned))}"
    settings = load_config(EvaluateConfig, config, [path, *(overrides or ())])
    if votes:
        others = settings.model_fields_set - {"aligned", "model", "strength"}
        unused = {"--reward": reward, "--group": group, **dict.fromkeys(others, "given")}
        refuse_given(unused, "with --votes, which makes no samples")
        count_votes(settings, out=out, database=database, images=images, project=project)
    else:
        refuse_given(
            {"--database": database, "--images": images, "--project": project}, "without --votes"
        )
        compare(settings, reward=reward, group=group, out=out)


def count_votes(
    settings: "EvaluateConfig",
    *,
    out: Path | None,
    database: str | None,
    images: Path | None,
    project: str | None,
) -> None:
    """Count the votes of annotators, simulated ones apart, and print the result."""
    from imgalign.errors import InputError
    from imgalign.evaluate import votes
    from imgalign.evaluate.origin import command_line
    from imgalign.preferences.queue import ranking_command
    from imgalign.preferences.store import Store
    from imgalign.runs.folder import samples_under
    from imgalign.runs.trained import find_weights

    if samples_under(find_weights(settings.aligned)) == "texts":
        raise InputError(
            f"{settings.aligned}: writes texts, and only votes on images are counted; compare it "
            "with --group or --reward"
        )
    with Store.open(database, images=images, create=False) as store:
        found = votes.count_votes(
            settings.aligned,
            store,
            command=command_line(),
            model=settings.model,
            strength=settings.strength,
            project=project,
            app=ranking_command(project or "default", database),
            out=out,
        )
    typer.echo("\n".join(found.lines()))


def compare(
    settings: "EvaluateConfig", *, reward: str | None, group: Taste | None, out: Path | None
) -> None:
    """Make and judge the samples of both sides, and print the result."""
    import reward_models
    from imgalign.evaluate.judging import Measures, features_of
    from imgalign.evaluate.run import evaluate
    from imgalign.runs.folder import samples_under
    from imgalign.runs.trained import find_weights
    from imgalign.storybook import oracle, text_oracle
    from imgalign.storybook.ideas import sample_ideas
    from imgalign.storybook.scenes import evaluation_prompts
    from reward_models.evaluate import check_samples

    samples = samples_under(find_weights(settings.aligned))
    texts = samples == "texts"
    proxy = None if reward is None else reward_models.load(reward, device=settings.device)
    if proxy is not None:
        check_samples(proxy, samples, name=str(reward))
    of_group = text_oracle.text_oracle_reward if texts else oracle.oracle_reward
    faithful = text_oracle.check_carried_out if texts else oracle.check_faithful
    evaluation = evaluate(
        settings,
        measures=Measures(
            oracle=None if group is None else of_group(group),
            oracle_meaning=f"the noiseless utility of the {group} annotators",
            oracle_tie=oracle.ORACLE_TIE,
            proxy=proxy,
            faithful=faithful if settings.prompts is None else None,
            features=features_of(proxy),
            slices=text_oracle.idea_slice_of if texts else oracle.slice_of,
        ),
        draw_prompts=sample_ideas if texts else evaluation_prompts,
        out=out,
    )
    typer.echo("\n".join(evaluation.lines()))


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    reward: Annotated[Path | None, typer.Option(help="Folder of the reward model.")] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file; in the run if not given.")] = None,
) -> None:
    """Write the report of a run as one self-contained HTML page."""
    from imgalign.report.writing import write_report

    typer.echo(write_report(run, reward=reward, out=out))
