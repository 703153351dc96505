"""Counts the faults that these tests inject, and scales how many: `make soak`.

IMGALIGN_SOAK multiplies repetitions and examples; without it the short form runs, which is the same
each time. The counts by kind are printed at the end, and written as JSON where
IMGALIGN_SOAK_RESULTS names a file.
"""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fault_counts import SOAK, Faults
from forked_runs import RunServer, run_server

RESULTS = "IMGALIGN_SOAK_RESULTS"
PROPERTY = "faults"
counts: dict[str, Counter[str]] = {"injected": Counter(), "survived": Counter()}


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Where a test counts what it injects, and what was survived."""
    counted = Faults()
    yield counted
    # With xdist, tests run in other processes than the one that prints: reports carry this there.
    request.node.user_properties.append((PROPERTY, counted.as_json()))


@pytest.fixture(scope="session")
def server() -> Iterator[RunServer]:
    """Forks training runs."""
    with run_server() as running:
        yield running


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what a test has counted, once it is over."""
    if report.when != "teardown":
        return
    for name, found in report.user_properties:
        if name == PROPERTY and isinstance(found, Mapping):
            for what, counter in counts.items():
                counter.update(found[what])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and write the counts, where any fault was injected."""
    injected, survived = counts["injected"], counts["survived"]
    if not injected:
        return
    terminalreporter.section(f"faults, {SOAK} times the short form")
    for kind in sorted(injected):
        terminalreporter.write_line(f"{kind}: {injected[kind]} injected, {survived[kind]} survived")
    total = f"in all: {injected.total()} injected, {survived.total()} survived"
    terminalreporter.write_line(total)
    if path := os.environ.get(RESULTS):
        found = {
            "soak": SOAK,
            "python": platform.python_version(),
            "injected": injected.total(),
            "survived": survived.total(),
            "kinds": {
                kind: {"injected": injected[kind], "survived": survived[kind]}
                for kind in sorted(injected)
            },
        }
        Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
