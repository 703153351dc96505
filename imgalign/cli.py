"""The command line: `imgalign COMMAND`. Thin: parse first, import what is slow after, no logic.

The composition root, and with demo.py the only module that may import everything, inside functions.
What the user can mend ends in one line on stderr, `error: ...`, and exit code 2; Ctrl-C in 130;
anything else is a bug and keeps its traceback.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgalign {__version__}")
        raise typer.Exit


@app.callback()
def imgalign(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Rank images, learn the reward, align the model, compare: feedback for text-to-image."""


if __name__ == "__main__":
    sys.exit(main())
