"""The command line: `imgalign COMMAND`. Arguments are parsed before slow imports; no logic.

The composition root, and with demo.py the only module that may import everything, inside functions.
Errors and exit codes: program.py.
"""

from collections.abc import Sequence
from typing import Annotated

import typer

from imgalign import __version__
from imgalign.cli import (
    accounts,
    data,
    exporting,
    feedback,
    generation,
    ranking,
    rewards,
    rewriting,
    training,
    world,
    world_models,
)
from imgalign.cli.program import run_program

# Plain help and no rich tracebacks: rich would double the time of `imgalign --help`.
app = typer.Typer(
    name="imgalign",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process."""
    return run_program(app, "imgalign", arguments)


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
    """Rank images, fit a reward model, align a text-to-image model, compare it with its base."""


for command in (
    training.demo,
    training.loop,
    ranking.candidates,
    ranking.ui,
    feedback.feedback,
    training.train,
    generation.generate,
    rewriting.rewrite,
    generation.evaluate,
    generation.report,
    exporting.export,
    data.ratings,
    training.doctor,
):
    app.command()(command)

reward = typer.Typer(rich_markup_mode=None, help="Fit, check and use a reward model.")
reward.command("train")(rewards.train)
reward.command("eval")(rewards.evaluate)
reward.command("score")(rewards.score)
app.add_typer(reward, name="reward")

storybook = typer.Typer(rich_markup_mode=None, help="The synthetic storybook domain.")
storybook.command("rank")(world.rank)
storybook.command("draw")(world.draw)
app.add_typer(storybook, name="storybook")

models = typer.Typer(rich_markup_mode=None, help="Train the models of the storybook domain.")
models.command("data")(world_models.data)
models.command("autoencoder")(world_models.autoencoder)
models.command("pipeline")(world_models.pipeline)
models.command("distil")(world_models.distil)
models.command("redraw")(world_models.redraw)
models.command("clip")(world_models.clip)
models.command("verifier")(world_models.verifier)
models.command("language")(world_models.language)
models.command("tokenizer")(world_models.tokenizer)
storybook.add_typer(models, name="train")

exchange = typer.Typer(
    rich_markup_mode=None, help="Rankings to and from other stores, and who gave them."
)
exchange.command("import")(data.import_)
exchange.command("export")(data.export)
exchange.command("people")(data.people)
app.add_typer(exchange, name="data")

people = typer.Typer(rich_markup_mode=None, help="Who may use the app on a network.")
people.command("add")(accounts.add)
people.command("invite")(accounts.invite)
people.command("list")(accounts.list_)
people.command("role")(accounts.role)
people.command("password")(accounts.password)
people.command("disable")(accounts.disable)
people.command("enable")(accounts.enable)
app.add_typer(people, name="accounts")

store = typer.Typer(rich_markup_mode=None, help="The database and its images.")
store.command("check")(data.check)
app.add_typer(store, name="store")
