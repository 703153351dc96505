"""`imgalign reward ...`: fit, check and use a reward model."""

from pathlib import Path
from typing import Annotated

import typer

from imgalign.cli.options import (
    Database,
    Group,
    Images,
    Overrides,
)


def train(
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder for the reward model.")] = Path("runs/reward"),
    group: Group = None,
    project: Annotated[str | None, typer.Option(help="Only rankings of this project.")] = None,
    database: Database = None,
    images: Images = None,
) -> None:
    """Fit a CLIP-based reward model to the rankings in the store."""
    from imgalign.config import load_config
    from imgalign.images import read_tensor
    from imgalign.preferences.samples import rankings_of
    from imgalign.preferences.store import Store
    from reward_models.fit import FitConfig, fit

    settings = load_config(FitConfig, config, overrides or ())
    with Store.open(database, images=images, create=False) as store:
        report = fit(
            rankings_of("images", store.rankings(group=group, project=project)),
            lambda image_id: read_tensor(store.image_path(image_id)),
            settings,
            out,
        )
    typer.echo("\n".join(report.lines()))
    typer.echo(f"written to {out}")


def evaluate(
    reward: Annotated[str, typer.Argument(help="Folder of a reward model, or a CLIP.")],
    group: Group = None,
    project: Annotated[str | None, typer.Option(help="Only rankings of this project.")] = None,
    database: Database = None,
    images: Images = None,
) -> None:
    """Evaluate a reward model on the rankings in the store; a fitted one on its test split."""
    import reward_models
    from imgalign.images import read_tensor
    from imgalign.preferences.samples import rankings_of
    from imgalign.preferences.store import Store
    from reward_models.evaluate import evaluate

    model = reward_models.load(reward)
    with Store.open(database, images=images, create=False) as store:
        evaluation = evaluate(
            model,
            rankings_of("images", store.rankings(group=group, project=project)),
            lambda image_id: read_tensor(store.image_path(image_id)),
        )
    typer.echo("\n".join(evaluation.lines()))


def score(
    reward: Annotated[str, typer.Argument(help="Folder of a reward model, or a CLIP.")],
    files: Annotated[list[Path], typer.Argument(help="Images.")],
    prompt: Annotated[list[str], typer.Option(help="One for all images, or one for each.")],
) -> None:
    """Score image files."""
    import reward_models
    from reward_models.evaluate import score_files

    found = score_files(reward_models.load(reward), files, prompt)
    for scored in found:
        if scored.score is None:
            typer.echo(f"skipped: {scored.problem}", err=True)
        else:
            typer.echo(f"{scored.score:+.4f}\t{scored.path}\t{scored.prompt}")
    if lost := sum(scored.score is None for scored in found):
        typer.echo(f"{lost} of {len(found)} images cannot be read", err=True)
