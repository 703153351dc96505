"""Claims: the command of a result can be repeated, and holds no secret."""

import shlex

import pytest

from imgalign.evaluate.origin import command_line


@pytest.mark.parametrize("before", ["--database ", "--database=", "data.database="])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:secret@server/name",
        "postgresql+psycopg://ann:se/secret@server/name",
        "postgresql://server/name?user=ann&password=secret",
    ],
)
def test_the_command_of_a_result_holds_no_password(monkeypatch, before, url):
    words = f"{before}{url}".split()
    monkeypatch.setattr("sys.argv", ["/usr/bin/imgalign", "evaluate", "run", *words])
    said = command_line()
    assert "secret" not in said
    assert shlex.split(said)[:3] == ["imgalign", "evaluate", "run"]
    assert f"{before}postgresql" in " ".join(shlex.split(said))


def test_a_command_without_a_password_is_kept_as_it_was(monkeypatch):
    words = ["evaluate", "a run", "--database", "sqlite:////tmp/a b?.db", "num_prompts=4"]
    words += ["--database", "postgresql://ann@server/name?sslmode=require"]
    monkeypatch.setattr("sys.argv", ["imgalign", *words])
    assert shlex.split(command_line()) == ["imgalign", *words]


def test_a_module_that_python_ran_is_said_as_it_can_be_run_again(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/lib/imgalign/__main__.py", "evaluate", "a run"])
    assert command_line() == "python -m imgalign evaluate 'a run'"
