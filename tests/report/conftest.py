"""Fixtures of the report's tests."""

import shutil
from pathlib import Path

import pytest
from evaluations import brightness
from reported_runs import (
    Redness,
    begin_run,
    bright_enough,
    fitted_reward,
    judge,
    make_iterations,
    voted,
)

from imgalign.report.writing import write_report
from imgalign.runs.status import RunStatus, write_status


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A finished run with everything a report can show, and its report; leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    run = begin_run(folder / "run", fitted_reward(folder / "reward"))
    make_iterations(run)
    write_status(
        run, RunStatus.of_this_process("finished", 4, 4, message="finished at iteration 4")
    )
    judge(
        run,
        oracle=brightness,
        oracle_meaning="how <bright> it is",
        proxy=Redness(),
        faithful=bright_enough,
    )
    voted(run)
    write_report(run)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """The same in a folder of one's own, without the report."""
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "report.html").unlink()
    return folder
