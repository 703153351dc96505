"""Running a Typer app as a program: output for any terminal, errors in one line, exit codes.

Errors that a user can fix end in one line on stderr, `error: ...`, and exit code 2; Ctrl-C in 130;
anything else is a bug and keeps its traceback.
"""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from typing import TYPE_CHECKING, TextIO

import typer

from imgalign.environment import calm_threads
from imgalign.errors import ImgalignError, InputError, in_one_line

if TYPE_CHECKING:
    from imgalign.runs.world import World

PACKAGES = ("imgalign", "reward_models", "ui")
HOME = re.compile(r"(--[a-z-]+=)(~(?:/.*)?)")


def run_program(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one command of `app` and return the exit code of the process."""
    escape_what_cannot_be_printed()
    show_log()
    calm_threads()
    try:
        arguments = as_meant(sys.argv[1:] if arguments is None else arguments)
        code = app(arguments or ["--help"], prog_name=name, standalone_mode=False)
    except (ImgalignError, typer.TyperException) as error:
        print(f"error: {_one_line(error, name)}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except OSError as error:
        print(f"error: {_of_the_system(error)}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return code if isinstance(code, int) else 0


def as_meant(arguments: Sequence[str]) -> list[str]:
    """Arguments as text, with the home folder expanded in `--out=~/x`, which shells do not do.

    InputError for bytes that are not UTF-8: no settings file, database or report could hold them.
    """
    texts = []
    for argument in arguments:
        try:
            # In a C locale Python keeps the bytes of UTF-8 as surrogates.
            texts.append(argument.encode("utf-8", "surrogateescape").decode("utf-8"))
        except UnicodeError:
            raise InputError(
                f"argument {argument!r}: expected text in utf-8; rename the file that it names"
            ) from None
    return [
        match[1] + os.path.expanduser(match[2]) if (match := HOME.fullmatch(argument)) else argument
        for argument in texts
    ]


def escape_what_cannot_be_printed() -> None:
    r"""Let stdout and stderr write characters that they cannot encode as `\xe9` or `\u732b`.

    Prompts may be in any language. In a latin-1 or C locale, printing one would otherwise end a
    command with a UnicodeEncodeError after its work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test or an embedding program may replace them
            stream.reconfigure(errors="backslashreplace")


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def show_log() -> None:
    """Print the log records of the three packages from INFO upwards, one plain line each."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(_Stderr())
            logger.setLevel(logging.INFO)


def show_warnings_only() -> None:
    """Print no mere information: another process of the same command says it."""
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def together(*, cure: str, can_share: bool = False) -> Iterator["World"]:
    """The processes that a launcher has started with this command, or this one alone.

    One of them speaks. An error inside is said once; `cure` is what to do where one has died, and
    `can_share` says whether the command lets them share a model.
    """
    from imgalign.runs.world import join_world, writes_files

    world = join_world(cure=cure, can_share=can_share)
    if not writes_files(world):
        show_warnings_only()
    with world.one_voice():
        yield world


def _one_line(error: ImgalignError | typer.TyperException, program: str) -> str:
    if isinstance(error, ImgalignError):
        return str(error)
    message = in_one_line(error.format_message()).removesuffix(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else program
    return f"{message[:1].lower()}{message[1:]}; see '{command} --help'"


def _of_the_system(error: OSError) -> str:
    """Message of an OSError; one that a library raised itself has text and no errno."""
    if error.strerror is None:
        return in_one_line(str(error)) or type(error).__name__
    where = "" if error.filename is None else f"{in_one_line(str(error.filename))}: "
    cure = "; free some space and try again" if error.errno in (ENOSPC, EDQUOT, EFBIG) else ""
    return f"{where}{error.strerror[:1].lower()}{error.strerror[1:]}{cure}"
