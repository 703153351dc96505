"""docs/commands.md, made from the parser of the command line. To write it again:

python -m imgalign.cli.commands_page > docs/commands.md

What a parameter takes is read from the function behind its command, because how the parser words it
changes with the parser's version.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

from imgalign.cli.main import app
from imgalign.cli.settings_page import escaped

INTRODUCTION = """\
# Commands

`imgalign COMMAND --help` prints the same. Settings, `section.key=value`, are on
[their own page](settings.md). A command that cannot do what it was asked for says so in one line
and ends with exit code 2; Ctrl-C ends one with 130.

This page is written by `python -m imgalign.cli.commands_page > docs/commands.md`.
"""

TAKES = {int: "whole number", float: "number", str: "text", Path: "path"}
UNIONS = (Union, UnionType)


def document() -> str:
    """The text of docs/commands.md."""
    commands = commands_below("imgalign", typer.main.get_command(app))
    return "\n".join([INTRODUCTION, *(section(name, command) for name, command in commands)])


def commands_below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command under its whole name, in the order of `--help`."""
    inside: dict[str, Any] = getattr(command, "commands", {})
    if not inside:
        yield name, command
    for word, inner in inside.items():
        yield from commands_below(f"{name} {word}", inner)


def section(name: str, command: Any) -> str:
    """A heading, what the command does, how it is called, and a table of what it takes."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [
        each
        for each in command.params
        if each.param_type_name == "option" and "--help" not in each.opts
    ]
    call = " ".join([name, *(in_usage(each) for each in arguments), *["[OPTIONS]"][: len(options)]])
    about = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    parameters = inspect.signature(inspect.unwrap(command.callback), eval_str=True).parameters
    rows = "".join(row(each, parameters[each.name].annotation) for each in [*arguments, *options])
    header = "| | takes | default | meaning |\n|---|---|---|---|\n" if rows else ""
    return f"## {name}\n{escaped(about)}\n\n    {call}\n\n{header}{rows}"


def in_usage(argument: Any) -> str:
    """Example: "CONFIG"; in brackets where it may be left out."""
    name = shown_name(argument)
    return name if argument.required or name.startswith("[") else f"[{name}]"


def shown_name(parameter: Any) -> str:
    """Example: "CONFIG", "--out", "--open, --no-open"."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def row(parameter: Any, annotation: Any) -> str:
    """A parameter in the table of its command."""
    default = parameter.default
    given = default is not None and default is not False and not callable(default)
    shown = f"`{escaped(str(default))}`" if given else "required" if parameter.required else ""
    cells = (f"`{shown_name(parameter)}`", takes(annotation), shown, escaped(parameter.help or ""))
    return f"| {' | '.join(cells)} |\n"


def takes(annotation: Any) -> str:
    """What a parameter takes, in words. Example: "whole number from 0"; empty for a switch."""
    kind, *information = get_args(annotation)
    (kind,) = [each for each in alternatives(kind) if each is not NoneType]
    if get_origin(kind) is list:
        return f"{TAKES[get_args(kind)[0]]}, several"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is bool:
        return ""
    least, most = (getattr(information[0], name) for name in ("min", "max"))
    bounds = [
        f"{word} {bound}" for word, bound in (("from", least), ("to", most)) if bound is not None
    ]
    return " ".join([TAKES[kind], *bounds])


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else, itself."""
    return get_args(kind) if get_origin(kind) in UNIONS else (kind,)


if __name__ == "__main__":
    sys.stdout.write(document())
