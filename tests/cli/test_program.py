"""Both programs of the package, as processes with streams of every kind."""

import os
import subprocess
import sys

import pytest

CAPTION = "ein grünes Häuschen, 猫"
PROGRAMS = ["imgalign", "imgalign.storybook.train"]

# What a user may have: an old terminal, one without a locale, a log that takes ASCII only.
LOCALES = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    clean.pop("PYTHONIOENCODING", None)
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, check=False, env=clean | environment
    )


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_text_that_the_terminal_cannot_show_is_escaped_and_never_a_traceback(program, locale):
    unknown = "Häuschen-猫"
    result = run("-m", program, unknown, PYTHONWARNINGS="error", **LOCALES[locale])
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(b"error: no such command 'H")
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize(
    "write",
    ["print", "__import__('typer').echo", "__import__('rich.console').console.Console().print"],
)
def test_a_prompt_that_the_terminal_cannot_show_ends_no_command(write, locale):
    program = (
        "import typer; from imgalign.cli.program import run_program; app = typer.Typer();"
        f"app.command()(lambda: {write}({CAPTION!a}));"
        "raise SystemExit(run_program(app, 'imgalign', ['--']))"
    )
    result = run("-c", program, **LOCALES[locale])
    assert (result.returncode, result.stderr) == (0, b"")
    escaped = CAPTION.encode("latin-1" if locale == "latin-1" else "ascii", "backslashreplace")
    # typer takes an ASCII stream for a mistake of the system's and writes UTF-8
    assert result.stdout.rstrip() in (escaped, CAPTION.encode())


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_programs_refuse_what_makes_no_sense_in_one_line(program):
    result = run("-m", program, "--bogus")
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"error: no such option: --bogus; see '")
    assert result.stderr.count(b"\n") == 1


def test_a_training_script_without_its_data_is_one_line(tmp_path):
    missing = tmp_path / "nowhere"
    out = tmp_path / "verifier"
    result = run(
        *("-m", "imgalign.storybook.train", "verifier"),
        *("--data", str(missing), "--out", str(out)),
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(b"error: ")
    assert str(missing).encode() in result.stderr
    assert result.stderr.count(b"\n") == 1
    assert not out.exists()
