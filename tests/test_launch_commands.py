"""The commands that launch several processes, as documents and settings name them, are commands."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser
from typer.main import get_command

from imgalign.cli.main import app

ROOT = Path(__file__).parents[1]
LAUNCHED = re.compile(
    r"^[# ]*((?:\w+=\S+ )*(?:accelerate launch|torchrun) .*\bimgalign \w.*)$", re.M
)
NAMED = [
    command
    for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/accelerate/*.yaml"))
    for command in LAUNCHED.findall(path.read_text(encoding="utf-8").replace("\\\n", " "))
]


def test_they_are_found():
    assert len(NAMED) >= 9
    assert {command.split()[0] for command in NAMED} >= {"accelerate", "torchrun"}


@pytest.mark.parametrize("command", NAMED)
def test_launcher_settings_and_command_are_understood(command):
    words = shlex.split(command, comments=True)
    while "=" in words[0]:
        assert words.pop(0) == "ACCELERATE_USE_FSDP=true"
    if words[0] == "accelerate":
        given = launch_command_parser().parse_args(words[2:])
        settings = load_config_from_file(str(ROOT / given.config_file))
        assert settings.num_processes > 1
        assert settings.distributed_type in ("MULTI_GPU", "FSDP")
    else:
        given = get_args_parser().parse_args(words[1:])
        assert given.nproc_per_node.isdigit()
    assert given.module
    assert given.training_script == "imgalign"
    name, *rest = given.training_script_args
    if name == "train":
        assert (ROOT / "configs" / f"{rest[0]}.yaml").is_file()
    commands: dict[str, Any] = vars(get_command(app))["commands"]
    assert name in commands
    if hasattr(commands[name], "commands"):
        assert rest[0] in commands[name].commands
