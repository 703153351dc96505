"""`imgalign reward ...`: fit, check and use a reward model."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgalign.cli.options import (
    Database,
    Group,
    Images,
    JudgedBy,
    Overrides,
    changed,
    refuse_given,
)
from imgalign.cli.program import together

if TYPE_CHECKING:
    from torch import Tensor

    from imgalign.preferences.foreign.judged_texts import JudgedTexts
    from imgalign.preferences.records import Ranking

log = logging.getLogger(__name__)

ProjectOnly = Annotated[str | None, typer.Option(help="Only rankings of this project.")]
RankedTexts = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="Rankings of texts in JSON lines or parquet instead of the store's: columns prompt, "
        "chosen, rejected; or prompt, completions, ranks.",
    ),
]


def train(
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder for the reward model.")] = Path("runs/reward"),
    samples: Annotated[
        Literal["images", "texts"],
        typer.Option(help="What it learns to score: CLIP for images, a language model for texts."),
    ] = "images",
    file: RankedTexts = None,
    group: Group = None,
    project: ProjectOnly = None,
    judged_by: JudgedBy = "people",
    database: Database = None,
    images: Images = None,
) -> None:
    """Fit a reward model to the rankings in the store, or to those of texts in a file."""
    from imgalign.config import load_config
    from imgalign.images import read_tensor
    from imgalign.preferences.fit_report import LearnedFrom
    from imgalign.preferences.judges import chosen_rankings
    from imgalign.preferences.store import Store
    from imgalign.runs.world import writes_files
    from reward_models.fit import FitConfig, fit
    from reward_models.text_fit import TextFitConfig, fit_texts

    learned_from = LearnedFrom(project=project, group=group)
    with together(cure="nothing is saved, start the fit again") as world:
        if file is not None:
            store_only: dict[str, object] = {"group": group, "project": project}
            store_only |= {"judged_by": judged_by, "database": database, "images": images}
            refuse_given(changed(train, store_only), "with --file")
            text_settings = load_config(TextFitConfig, config, overrides or ())
            given = _read(file, said=writes_files(world))
            report = fit_texts(
                given.rankings,
                given.texts.__getitem__,
                text_settings,
                out,
                weights=given.weights,
                world=world,
            )
        elif samples == "texts":
            text_settings = load_config(TextFitConfig, config, overrides or ())
            with Store.open(database, images=images, create=False) as store:
                ranked = chosen_rankings(
                    store, "texts", judged_by=judged_by, group=group, project=project
                )
                report = fit_texts(
                    ranked,
                    store.text,
                    text_settings,
                    out,
                    learned_from=learned_from,
                    world=world,
                )
        else:
            settings = load_config(FitConfig, config, overrides or ())
            with Store.open(database, images=images, create=False) as store:
                ranked = chosen_rankings(
                    store, "images", judged_by=judged_by, group=group, project=project
                )
                report = fit(
                    ranked,
                    lambda image_id: read_tensor(store.image_path(image_id)),
                    settings,
                    out,
                    learned_from=learned_from,
                    world=world,
                )
    if writes_files(world):
        typer.echo("\n".join(report.lines()))
        typer.echo(f"written to {out}")
        if file is None and samples == "images":
            _prioritise(out, settings.device, ranked, project, database=database, images=images)


def _prioritise(
    reward: Path,
    device: str,
    ranked: "list[Ranking]",
    project: str | None,
    *,
    database: str | None,
    images: Path | None,
) -> None:
    """Say what is ranked next where a lead lets the most informative come first.

    The reward is kept, whatever becomes of this.
    """
    from imgalign.errors import ImgalignError
    from imgalign.preferences.store import Store
    from reward_models.informative import prioritise

    try:
        with Store.open(database, images=images, create=False) as store:
            found = prioritise(store, reward, ranked, device=device, project=project)
    except ImgalignError as error:
        _not_valued(str(error))
        return
    except Exception as error:
        # The reward is on disk and whole: a fault of ours here must not pass for a fit that failed,
        # which the Learn page would say. It is logged with its traceback, and said.
        log.exception("open sets could not be valued")
        _not_valued(" ".join([f"{type(error).__name__}:", *str(error).split()]).rstrip(":"))
        return
    for name, of in found.items():
        typer.echo(
            f"project {name!r}: what tells most is ranked next, "
            f"{of.valued} of {of.open_items} open sets valued"
        )


def _not_valued(reason: str) -> None:
    typer.echo(
        f"what is ranked next stays as it was: {reason}; the reward is whole, and the next fit "
        "values the sets again",
        err=True,
    )


def evaluate(
    reward: Annotated[str, typer.Argument(help="Folder of a reward model, or a CLIP.")],
    file: RankedTexts = None,
    group: Group = None,
    project: ProjectOnly = None,
    judged_by: JudgedBy = "people",
    database: Database = None,
    images: Images = None,
) -> None:
    """Evaluate a reward model on the rankings in the store; a fitted one on its test split."""
    import reward_models
    from imgalign.images import read_tensor
    from imgalign.preferences.judges import chosen_rankings
    from imgalign.preferences.store import Store
    from reward_models import evaluate as measures

    model = reward_models.load(reward)
    if file is not None:
        store_only: dict[str, object] = {"group": group, "project": project}
        store_only |= {"judged_by": judged_by, "database": database, "images": images}
        refuse_given(changed(evaluate, store_only), "with --file")
        measures.check_samples(model, "texts", name=reward)
        given = _read(file, said=True)
        evaluation = measures.evaluate(model, given.rankings, given.texts.__getitem__)
    else:
        kind = measures.samples_of(model)
        with Store.open(database, images=images, create=False) as store:

            def read_image(image_id: str) -> "Tensor":
                return read_tensor(store.image_path(image_id))

            evaluation = measures.evaluate(
                model,
                chosen_rankings(store, kind, judged_by=judged_by, group=group, project=project),
                store.text if kind == "texts" else read_image,
            )
    typer.echo("\n".join(evaluation.lines()))


def score(
    reward: Annotated[str, typer.Argument(help="Folder of a reward model, or a CLIP.")],
    prompt: Annotated[list[str], typer.Option(help="One for all samples, or one for each.")],
    files: Annotated[list[Path] | None, typer.Argument(help="Images.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A text instead of images; may be repeated.")
    ] = None,
) -> None:
    """Score image files, or texts."""
    import reward_models
    from imgalign.errors import InputError
    from reward_models.evaluate import check_samples, score_files, score_texts

    if bool(files) == bool(text):
        raise InputError("reward score: expected either image files or --text, name one of them")
    model = reward_models.load(reward)
    check_samples(model, "texts" if text else "images", name=reward)
    if text:
        for each, own, value in score_texts(model, text, prompt):
            typer.echo(f"{value:+.4f}\t{each}\t{own}")
        return
    found = score_files(model, files or [], prompt)
    for scored in found:
        if scored.score is None:
            typer.echo(f"skipped: {scored.problem}", err=True)
        else:
            typer.echo(f"{scored.score:+.4f}\t{scored.path}\t{scored.prompt}")
    if lost := sum(scored.score is None for scored in found):
        typer.echo(f"{lost} of {len(found)} images cannot be read", err=True)


def _read(file: Path, *, said: bool) -> "JudgedTexts":
    """The rankings in a file as judgements; what was left out is printed if `said`."""
    from imgalign.preferences.foreign.judged_texts import as_judgements
    from imgalign.preferences.foreign.texts import read_text_rankings

    found = read_text_rankings(file)
    for line in found.lines() if said else ():
        typer.echo(line, err=True)
    return as_judgements(found)
