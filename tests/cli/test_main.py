import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

from imgalign import __version__
from imgalign.cli import main as cli
from imgalign.cli import options
from imgalign.cli.ranking import offered_demos
from imgalign.errors import (
    CheckpointError,
    ConfigError,
    ImgalignError,
    InputError,
    JudgeError,
    NumericsError,
    ProcessError,
    StorageFullError,
    StoreError,
)
from imgalign.preferences import address

FAMILY = [
    ConfigError,
    InputError,
    CheckpointError,
    StoreError,
    JudgeError,
    StorageFullError,
    NumericsError,
    ProcessError,
]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "imgalign", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def fail_with(monkeypatch):
    """An imgalign whose only command, `fail`, raises what it is given."""

    def install(error):
        app = typer.Typer(rich_markup_mode=None)

        @app.command()
        def fail(count: int = 1) -> None:
            raise error

        @app.callback()
        def group() -> None: ...

        monkeypatch.setattr(cli, "app", app)

    return install


@pytest.mark.parametrize("kind", FAMILY)
def test_what_the_user_can_mend_is_one_line_on_stderr_and_exit_code_2(fail_with, capsys, kind):
    fail_with(kind("runs/a: no weights here\ncheckpoints found: none"))
    assert cli.main(["fail"]) == 2
    out, err = capsys.readouterr()
    assert err == "error: runs/a: no weights here checkpoints found: none\n"
    assert out == ""


def test_every_error_of_the_family_is_tested_above():
    assert set(FAMILY) == set(ImgalignError.__subclasses__())


def test_a_bug_keeps_its_traceback(fail_with):
    fail_with(KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["fail"])


def test_ctrl_c_exits_with_130_and_says_nothing(fail_with, capsys):
    fail_with(KeyboardInterrupt())
    assert cli.main(["fail"]) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_before_a_command_has_begun_exits_the_same_way(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.Typer, "__call__", interrupted)
    assert cli.main(["train"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_command_may_choose_its_exit_code(fail_with):
    fail_with(typer.Exit(3))
    assert cli.main(["fail"]) == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fial"], "error: no such command 'fial'"),
        (["fail", "--cuont", "2"], "error: no such option: --cuont"),
        (
            ["fail", "--count", "two"],
            "error: invalid value for '--count': ",
        ),
        (["fail", "more"], "error: got unexpected extra argument"),
        ([], None),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_line_and_exit_code_2(
    fail_with, capsys, arguments, line
):
    fail_with(AssertionError("must not run"))
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    if line is None:
        assert (code, err) == (0, "")
        assert "Usage: imgalign" in out
    else:
        assert code == 2
        assert err.startswith(line)
        assert err.endswith("--help'\n")
        assert err.count("\n") == 1


def test_the_installed_program_reports_usage_errors_the_same_way():
    result = run("--bogus")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: no such option: --bogus; see 'imgalign --help'\n"


def test_version_is_that_of_the_package():
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"imgalign {__version__}\n")


def test_help_answers_at_once():
    # Half a second is the promise; processor time with a margin, since tests run on busy machines.
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "Usage: imgalign" in run("--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 1.0


def test_help_loads_nothing_that_is_slow():
    program = (
        "import sys; from imgalign.cli.main import main; main(['--help']);"
        "print(sorted({'torch', 'gradio', 'diffusers', 'transformers', 'numpy', 'sqlalchemy',"
        " 'pydantic', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_what_the_system_refuses_is_one_line_that_names_the_file(fail_with, capsys):
    fail_with(PermissionError(13, "Permission denied", "runs/a.png"))
    assert cli.main(["fail"]) == 2
    assert capsys.readouterr() == ("", "error: runs/a.png: permission denied\n")


def test_a_full_disk_anywhere_is_one_line_with_its_cure(fail_with, capsys):
    fail_with(OSError(28, "No space left on device"))
    assert cli.main(["fail"]) == 2
    err = capsys.readouterr().err
    assert err == "error: no space left on device; free some space and try again\n"


def test_an_error_of_a_library_that_calls_itself_the_systems_keeps_its_words(fail_with, capsys):
    fail_with(OSError("it is not\na model"))
    assert cli.main(["fail"]) == 2
    assert capsys.readouterr().err == "error: it is not a model\n"


def test_tastes_on_the_command_line_are_those_of_the_storybook():
    from imgalign.storybook.annotators import GROUPS

    assert get_args(options.Taste) == GROUPS


def test_the_app_offers_the_stores_of_demos_beside_it(tmp_path):
    assert offered_demos(tmp_path) == []
    for name in ("second", "first", "unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo.json").write_text("{}")
    for name in ("first", "second", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "imgalign.db").touch()
    first, second = offered_demos(tmp_path)
    place = tmp_path / "first"
    command = f"imgalign ui --database sqlite:///{place}/imgalign.db --runs {place}"
    assert first == (str(place), command)
    assert second[0] == str(tmp_path / "second")


def test_the_command_for_a_demo_can_be_pasted_whatever_its_folder_is_called(tmp_path):
    for name in ("a b; c", "two\nlines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo.json").write_text("{}")
        (tmp_path / name / "imgalign.db").touch()
    ((folder, command),) = offered_demos(tmp_path)
    words = shlex.split(command)
    assert words[-1] == folder == str(tmp_path / "a b; c")
    assert Path(address.parse(words[3]).database) == tmp_path / "a b; c" / "imgalign.db"
