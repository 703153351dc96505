"""Claims: docs/settings.md has every setting that a command reads; commands in the docs can be run
as they are written."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imgalign.cli.settings_page import document
from imgalign.config import dump_config, load_config, read_mapping, recipes
from imgalign.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"
COMMAND = "python -m imgalign.cli.settings_page > docs/settings.md"


def written_paths(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from written_paths(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_the_page_in_docs_is_what_the_command_on_it_prints():
    page = PAGE.read_text(encoding="utf-8")
    assert COMMAND in page
    program = [sys.executable, "-m", COMMAND.split()[2]]
    said = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT)
    assert page == said.stdout, f"write it again: {COMMAND}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm={name: ppo, baseline: {kind: running}}"],
        ["algorithm={name: ppo, kl: {kind: adaptive, target_nats: 1}}"],
        ["algorithm={name: grpo, baseline: {kind: rank}}"],
        ["algorithm={name: supervised, weighting: {kind: reward}}"],
        [
            "algorithm={name: supervised, weighting: {kind: equal}}",
            "data={from: images, folder: a}",
        ],
    ],
)
def test_whatever_a_run_writes_into_its_config_is_on_the_page(tmp_path, overrides):
    dump_config(load_config(TrainConfig, None, overrides), tmp_path / "config.yaml")
    paths = list(written_paths(read_mapping(tmp_path / "config.yaml")))
    assert len(paths) > 30
    page = document()
    assert [path for path in paths if f"\n| `{path}` | " not in page] == []


def test_a_setting_that_all_kinds_of_a_section_share_names_none():
    (row,) = [line for line in document().splitlines() if line.startswith("| `policy.dtype` |")]
    assert row.split(" | ")[2] == ""


def test_a_setting_that_several_kinds_share_comes_once_and_names_them():
    rows = [line for line in document().splitlines() if line.startswith("| `algorithm.clip_nats`")]
    assert len(rows) == 1
    assert "| `grpo`, `ppo` |" in rows[0]


def test_the_training_commands_in_docs_and_recipes_are_accepted():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *recipes()]
    commands = [
        line.strip("#| `")
        for page in pages
        for text in page.read_text(encoding="utf-8").splitlines()
        for line in text.split("`")
        if line.strip("#| ").startswith("imgalign train configs/")
    ]
    assert len(commands) > 5
    for command in commands:
        words = shlex.split(command)[2:]
        overrides = [word for word in words[1:] if "=" in word]
        settings = load_config(TrainConfig, Path(words[0]), overrides)
        assert settings.data.gives != "rollouts" or settings.reward.path is not None, command
