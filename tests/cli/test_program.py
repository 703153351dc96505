"""The program as a process with streams of every kind."""

import os
import subprocess
import sys

import pytest

CAPTION = "ein grünes Häuschen, 猫"
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
def test_text_that_the_terminal_cannot_show_is_escaped_and_never_a_traceback(locale):
    unknown = "Häuschen-猫"
    result = run("-m", "imgalign", unknown, PYTHONWARNINGS="error", **LOCALES[locale])
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


def test_an_option_that_there_is_not_is_refused_in_one_line():
    result = run("-m", "imgalign", "--bogus")
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"error: no such option: --bogus; see '")
    assert result.stderr.count(b"\n") == 1
