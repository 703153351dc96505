"""Counts the faults that these tests inject, and scales how many: `make soak`.

IMGALIGN_SOAK multiplies repetitions and examples; without it the short form runs, which is the same
each time. The counts by kind are printed at the end. Where IMGALIGN_SOAK_RESULTS names a file they
are added to it after each test, and what was survived in earlier sittings is not done again.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fault_counts import NUMBER, SOAK, Faults
from soak_results import COUNTS, Drill, SoakResults

if TYPE_CHECKING:
    from forked_runs import RunServer

RESULTS = "IMGALIGN_SOAK_RESULTS"
PROPERTY = "faults"


def drill_of(item: pytest.Function) -> Drill:
    """Example: `Drill(name="test_killed_runs.test_a_run[grpo]", number=17)`."""
    given: dict[str, Any] = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    number = given.pop(NUMBER, None)
    name = f"{item.path.stem}.{item.originalname}[{', '.join(map(str, given.values()))}]"
    return Drill(name=name, number=number)


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """Where a test counts what it injects, and what was survived."""
    counted, drill = Faults(), drill_of(request.node)
    yield counted
    # With xdist, tests run in other processes than the one that prints: reports carry this there.
    found = {"name": drill.name, "number": drill.number, **counted.as_json()}
    request.node.user_properties.append((PROPERTY, found))


@pytest.fixture(scope="session")
def server() -> Iterator["RunServer"]:
    """Forks training runs."""
    from forked_runs import run_server  # loads torch, which most of these tests do without

    with run_server() as running:
        yield running


def results() -> SoakResults | None:
    """What earlier sittings came to, where counts are kept."""
    file = os.environ.get(RESULTS)
    return SoakResults.read(Path(file), soak=SOAK) if file else None


def pytest_configure(config: pytest.Config) -> None:
    """Count in the process that prints."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Counting(results()), "faults")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was survived in earlier sittings."""
    known = results()
    if known is None:
        return
    done = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and "faults" in item.fixturenames
        and known.is_done(drill_of(item))
    ]
    config.hook.pytest_deselected(items=done)
    items[:] = [item for item in items if item not in set(done)]


class Counting:
    """Adds up what tests have counted, and writes and prints it."""

    def __init__(self, known: SoakResults | None) -> None:
        self.known = known
        self.counts: dict[str, Counter[str]] = {what: Counter() for what in COUNTS}
        self.passed: set[str] = set()
        self.left_out = 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.left_out += len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test has counted, once it is over."""
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        if report.when != "teardown":
            return
        for name, found in report.user_properties:
            if name == PROPERTY and isinstance(found, Mapping):
                self.add(found, passed=report.nodeid in self.passed and report.passed)

    def add(self, found: Mapping[str, Any], *, passed: bool) -> None:
        for what, counter in self.counts.items():
            counter.update(found[what])
        if self.known is not None:
            drill = Drill(name=found["name"], number=found["number"])
            self.known.add(drill, {what: found[what] for what in COUNTS}, passed=passed)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A sitting that finds everything done has not failed."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self.left_out:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the counts, where any fault was injected."""
        injected, survived = (self.counts[what] for what in COUNTS)
        if injected:
            terminalreporter.section(f"faults, {SOAK} times the short form")
            print_counts(terminalreporter, injected, survived)
        if self.known is not None and self.known.injected:
            terminalreporter.section(f"faults of all sittings in {self.known.file}")
            print_counts(terminalreporter, self.known.injected, self.known.survived)


def print_counts(
    reporter: pytest.TerminalReporter, injected: Counter[str], survived: Counter[str]
) -> None:
    """A line a kind, and one for all."""
    for kind in sorted(injected):
        reporter.write_line(f"{kind}: {injected[kind]} injected, {survived[kind]} survived")
    total = f"in all: {injected.total()} injected, {survived.total()} survived"
    reporter.write_line(total)
