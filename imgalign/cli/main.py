"""The command line: `imgalign COMMAND`. Thin: parse first, import what is slow after, no logic.

The composition root, and with demo.py the only module that may import everything, inside functions.
What the user can mend ends in one line on stderr, `error: ...`, and exit code 2; Ctrl-C in 130;
anything else is a bug and keeps its traceback.
"""

import sys
from collections.abc import Sequence
from errno import EDQUOT, EFBIG, ENOSPC
from typing import Annotated

import typer

from imgalign import __version__
from imgalign.cli import generation, ranking, rewards, training, world
from imgalign.errors import ImgalignError

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


for command in (
    training.demo,
    ranking.candidates,
    ranking.ui,
    training.train,
    generation.generate,
    generation.evaluate,
    generation.report,
    training.doctor,
):
    app.command()(command)

reward = typer.Typer(rich_markup_mode=None, help="Fit, check and use a reward model.")
reward.command("train")(rewards.train)
reward.command("eval")(rewards.evaluate)
reward.command("score")(rewards.score)
app.add_typer(reward, name="reward")

storybook = typer.Typer(rich_markup_mode=None, help="The embedded picture-book world.")
storybook.command("rank")(world.rank)
storybook.command("draw")(world.draw)
app.add_typer(storybook, name="storybook")
