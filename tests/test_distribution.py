"""What is installed: dependencies are declared, and the wheel works in an empty folder."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import imgalign
from imgalign import environment
from imgalign.evaluate.origin import library_versions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"imgalign", "reward_models", "ui"}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "argon2": "argon2-cffi",
    "open_clip": "open-clip-torch",
    "yaml": "pyyaml",
}
"""Where a package is not called as the distribution that brings it."""


def normal(name: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    names = (re.match(r"[A-Za-z0-9._-]+", each) for each in requirements)
    return {normal(name[0]) for name in names}


def imported(*folders: str) -> dict[str, Path]:
    """Distributions that the modules of a folder import, anywhere in them, and one that does.

    A script finds the modules beside it, so these are none, and those that others point it to.
    """
    modules_of = ("tests/stand_ins", "benchmarks/peers")
    shared = {path.stem for each in modules_of for path in (ROOT / each).glob("*.py")}
    found = {}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            for package in {module.partition(".")[0] for module in modules}:
                is_sibling = path.with_name(f"{package}.py").is_file()
                if package not in {*OURS, *shared, *sys.stdlib_module_names} and not is_sibling:
                    found[normal(DISTRIBUTIONS.get(package, package))] = path
    return found


def test_what_the_packages_import_is_declared():
    optional = PROJECT["optional-dependencies"]
    extras = [each for name in ("parquet", "postgres", "xformers") for each in optional[name]]
    known = declared([*PROJECT["dependencies"], *extras])
    for name, path in imported(*OURS).items():
        assert name in known, f"{path} imports {name}: declare it in pyproject.toml"


def test_what_tests_and_benchmarks_import_is_declared():
    optional = PROJECT["optional-dependencies"]
    known = declared([*PROJECT["dependencies"], *optional["test"], *optional["mutants"]])
    for name, path in imported("tests", "benchmarks").items():
        assert name in known, f"{path} imports {name}: declare it for the tests in pyproject.toml"


def test_a_benchmark_and_what_tests_share_never_have_the_same_name():
    """Tests import both: the second of that name would be the first."""
    folders = ("benchmarks", "tests/stand_ins")
    names = Counter(path.stem for each in folders for path in (ROOT / each).glob("*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_lowest_versions_that_are_tested_are_the_lower_bounds_of_what_is_declared():
    def parts(version: str) -> list[int]:
        numbers = [int(each) for each in version.split(".")]
        return numbers + [0] * (3 - len(numbers))

    bounds = {}
    for each in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]:
        name, lowest = re.match(r"([A-Za-z0-9._-]+)(?:\[\w+\])?>=([\d.]+)", each).groups()
        bounds[normal(name)] = parts(lowest)
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: parts(version) for name, version in pinned.items()} == bounds


def test_a_report_of_a_bug_or_a_result_names_the_version_that_runs():
    assert {fact.name: fact.value for fact in environment.facts()}["imgalign"] == (
        imgalign.__version__
    )
    assert library_versions()["imgalign"] == imgalign.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The folder that an installer would make of the built wheel."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    made = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(made)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (file,) = made.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(made / "installed")
    return made / "installed"


def run_installed(wheel: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(wheel), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_is_called_as_the_distribution_and_brings_the_command(wheel):
    (facts,) = wheel.glob("*.dist-info")
    assert facts.name == f"imgalign_studio-{imgalign.__version__}.dist-info"
    assert "imgalign = imgalign.cli.main:main" in (facts / "entry_points.txt").read_text()
    assert (facts / "licenses" / "LICENSE").is_file()
    assert {path.name for path in wheel.iterdir()} == {*OURS, facts.name}


def test_the_installed_command_works_in_an_empty_folder(wheel, tmp_path):
    said = run_installed(wheel, tmp_path, "-m", "imgalign", "--version")
    assert (said.returncode, said.stdout) == (0, f"imgalign {imgalign.__version__}\n")
    helped = run_installed(wheel, tmp_path, "-m", "imgalign", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith("Usage: imgalign")
    assert list(tmp_path.iterdir()) == []


def test_the_installed_recipes_are_found_from_an_empty_folder(wheel, tmp_path):
    find = (
        "from pathlib import Path; from imgalign.config import find_config as f; print(f(Path(%r)))"
    )
    shipped = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
    assert shipped
    for name in shipped:
        found = run_installed(wheel, tmp_path, "-c", find % name)
        assert (found.stdout, found.stderr) == (f"{wheel / 'imgalign' / 'configs' / name}\n", "")


def test_the_wheel_brings_every_file_of_the_shipped_models(wheel):
    def files(place: Path) -> set[Path]:
        folder = place / "imgalign" / "storybook" / "assets"
        return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}

    models = {path.parts[0] for path in files(ROOT)}
    assert models == {"clip", "language", "pipeline", "verifier"}
    assert files(wheel) == files(ROOT)


@pytest.mark.slow
def test_the_installed_model_draws_in_an_empty_folder(wheel, tmp_path):
    command = ("generate", "--prompt", "a red cat", "--steps", "2")
    drawn = run_installed(wheel, tmp_path, "-m", "imgalign", *command)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout == "generated/00000-0.png\n"
    assert (tmp_path / "generated" / "00000-0.png").read_bytes().startswith(b"\x89PNG")
