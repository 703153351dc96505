"""Claims: pages for others name no folder and no server of this machine, and their commands work in
the working folder."""

import shlex
from pathlib import Path

import pytest

from imgalign.report.private import (
    command_without_folders,
    from_here,
    text_without_folders,
    without_folders,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("sqlite:////home/ann/secret/imgalign.db", "imgalign.db"),
        ("sqlite:///%2Fhome%2Fann%2Fsecret%2Fimgalign.db", "imgalign.db"),
        ("sqlite+pysqlite:////home/ann/secret/imgalign.db", "imgalign.db"),
        ("file:///home/ann/secret/imgalign.db", "imgalign.db"),
        ("postgresql://ann:secret@secret.example/secret", "postgresql"),
        ("postgresql+psycopg://ann:se?cret/x@secret.example/secret", "postgresql"),
        ("postgresql:///name?host=secret.example&passfile=/home/ann/x", "postgresql"),
        (Path("/home/ann/secret/imgalign.db"), "imgalign.db"),
        ("/home/ann/secret/imgalign.db", "imgalign.db"),
        ("../../ann/secret/imgalign.db", "imgalign.db"),
        ("owner/model", "owner/model"),
        ("cosy", "cosy"),
        (("/home/ann/secret/a", "to_q"), ["a", "to_q"]),
        ({"folder": Path("/home/ann/secret/a"), "seed": 0}, {"folder": "a", "seed": 0}),
        (0.5, 0.5),
    ],
)
def test_of_paths_and_urls_nothing_is_shown_that_is_of_this_machine(value, shown):
    found = without_folders(value)
    assert found == shown
    assert "ann/" not in str(found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("failed: /home/ann/secret/step-10: damaged", "failed: step-10: damaged"),
        ("runs/a/step-10, 3/4 of 10 wins / ties", "runs/a/step-10, 3/4 of 10 wins / ties"),
        ("no images in '/home/ann/secret/b' (~/secret/c)", "no images in 'b' (c)"),
        ("../../ann/secret/b or ../x", "b or x"),
        ("in sqlite:////home/ann/secret/a.db, in postgresql://ann:secret@x/y", None),
    ],
)
def test_of_a_text_only_the_places_of_this_machine_are_changed(text, shown):
    found = text_without_folders(text)
    assert shown is None or found == shown
    assert "ann" not in found
    assert "secret" not in found


def test_a_command_names_what_is_below_the_working_folder_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        *("imgalign", "evaluate", str(tmp_path / "runs" / "my run"), "runs/b"),
        *("--out", "/home/ann/secret/my out", "--reward=/home/ann/secret/r"),
        *(f"data.folder={tmp_path}/pairs", "data={folder: /home/ann/secret/p, noise: fresh}"),
        *("--database", "postgresql://ann:***@secret.example/x"),
    ]
    assert shlex.split(command_without_folders(shlex.join(words))) == [
        *("imgalign", "evaluate", "runs/my run", "runs/b"),
        *("--out", "my out", "--reward=r"),
        *("data.folder=pairs", "data={folder: p, noise: fresh}"),
        *("--database", "postgresql"),
    ]
    assert from_here(Path("runs/a")) == Path("runs/a")
    assert from_here(tmp_path / "runs" / ".." / "a") == Path("a")
    assert from_here(Path("/home/ann/a")) == from_here(Path("../../../../../home/ann/a"))
    assert from_here(tmp_path.parent / "c") == Path("c")
