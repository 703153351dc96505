"""The demo's folder: claimed once, gone on with, never mixed with another."""

import shlex
import shutil
import sys

import pytest

from imgalign.demo import JOURNAL, LAST, Journal, what_next
from imgalign.errors import InputError

ASKED = {"seed": 0, "group": "cosy"}


def test_a_demo_that_was_stopped_goes_on_after_the_steps_that_are_done(tmp_path):
    folder = tmp_path / "demo"
    journal = Journal.begin(folder, ASKED)
    assert not folder.exists()
    journal.write(3)
    assert Journal.begin(folder, ASKED).done == 3


def test_a_finished_demo_is_refused_with_the_command_for_another(tmp_path):
    folder = tmp_path / "demo"
    Journal.begin(folder, ASKED).write(LAST)
    with pytest.raises(InputError, match=r"finished demo, see .*report.html; .* --out .*demo-2"):
        Journal.begin(folder, ASKED)


def test_a_stopped_demo_is_not_gone_on_with_as_another(tmp_path):
    folder = tmp_path / "demo"
    Journal.begin(folder, ASKED).write(1)
    with pytest.raises(InputError, match="holds a demo with seed 0, got 1"):
        Journal.begin(folder, ASKED | {"seed": 1})


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match=r"expected a new folder .* or remove"):
        Journal.begin(tmp_path, ASKED)
    (tmp_path / JOURNAL).write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Journal.begin(tmp_path, ASKED)


def test_the_end_of_a_demo_says_what_to_do_next(tmp_path, monkeypatch):
    page = tmp_path / "my demo" / "report.html"
    monkeypatch.setattr(sys, "argv", ["/opt/somewhere/.venv/bin/imgalign", "demo"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    steps = what_next(page)
    assert [doing for doing, _ in steps] == [
        "open the report",
        "rank images yourself",
        "align your own model",
    ]
    assert shlex.split(steps[0][1]) == [str(page)]
    for _, how in steps[1:]:
        for command in how.split(" && "):
            program, name, *_ = shlex.split(command)
            assert program == "/opt/somewhere/.venv/bin/imgalign"
            assert name in ("candidates", "ui")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/imgalign")
    assert what_next(page)[1][1].startswith("imgalign candidates ")
