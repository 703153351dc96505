"""Claims: docs/commands.md is what its command writes, and has every command with every option."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer

from imgalign.cli.commands_page import commands_below, document, section, takes
from imgalign.cli.main import app

ROOT = Path(__file__).parents[2]
COMMAND = "python -m imgalign.cli.commands_page > docs/commands.md"


def test_the_page_in_docs_is_what_the_command_on_it_prints():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert COMMAND in page
    program = [sys.executable, "-m", COMMAND.split()[2]]
    said = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT)
    assert page == said.stdout, f"write it again: {COMMAND}"


def test_every_command_and_every_option_of_it_is_on_the_page_and_explained():
    page = document()
    commands = dict(commands_below("imgalign", typer.main.get_command(app)))
    assert {"imgalign train", "imgalign reward eval", "imgalign storybook train clip"} < set(
        commands
    )
    for name, command in commands.items():
        _, _, rest = page.partition(f"\n## {name}\n")
        own = rest.partition("\n## ")[0]
        assert own.strip(), name
        options = [each for param in command.params for each in param.opts if each[0] == "-"]
        shown = re.findall(r"--[a-z-]+", own)
        assert set(options) - {"-h", "--help"} <= set(shown), name
        rows = [line for line in own.splitlines() if line.startswith("| `")]
        assert all(row.split(" | ")[-1].strip(" |") for row in rows), f"{name}: {rows}"


def test_a_command_says_what_it_takes_what_it_takes_without_being_told_and_what_it_needs():
    small = typer.Typer(add_completion=False)

    @small.command()
    def act(
        place: Annotated[Path, typer.Argument(help="Where.")],
        count: Annotated[int, typer.Option(min=0, help="How many | much.")] = 0,
        loud: Annotated[bool, typer.Option("--loud", help="Say so.")] = False,
    ) -> None:
        """Do it.

        Or do not.
        """

    assert section("a act", typer.main.get_command(small)) == (
        "## a act\nDo it.\n\nOr do not.\n\n    a act PLACE [OPTIONS]\n\n"
        "| | takes | default | meaning |\n|---|---|---|---|\n"
        "| `PLACE` | path | required | Where. |\n"
        "| `--count` | whole number from 0 | `0` | How many \\| much. |\n"
        "| `--loud` |  |  | Say so. |\n"
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Annotated[int, typer.Option(min=1, max=9)], "whole number from 1 to 9"),
        (Annotated[float | None, typer.Option()], "number"),
        (Annotated[list[str] | None, typer.Argument()], "text, several"),
        (Annotated[Literal["a", "b"] | None, typer.Option()], "`a`, `b`"),
        (Annotated[bool | None, typer.Option()], ""),
    ],
)
def test_what_a_parameter_takes_is_said_in_words(kind, words):
    assert takes(kind) == words
