"""Runs that wait for their turn: a line on disk, of which one trains at a time.

`runs/.queue.json` holds what waits, so it outlives browsers and the app. Every app looks every few
seconds whether anything still trains in its folder of runs; the first to see that nothing does
starts the next, under a lock. No gradio here, and no torch before something waits.
"""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Protocol, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import ImgalignError, InputError
from imgalign.files import read_json, write_atomically
from ui import checks, forms, recipes
from ui.forms import Form
from ui.processes import check_name
from ui.runs import Runs
from ui.turns import alone_at

log = logging.getLogger(__name__)

QUEUE = ".queue.json"
LOOK_SECONDS = 2.0
TRAINS = ("starting", "running", "stopping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One run in the line. Example: name "cats-2", form of the recipe "storybook_dpo"."""

    name: str
    form: Form | None
    """What it is started from; None for a run that goes on from its last checkpoint."""
    app: str
    """Working folder and store of the app that took it: only there it means the same."""
    held: str = ""
    """Why it could not be started when it was its turn; the others go on without it."""
    begun: bool = False
    """Whether a process of it was about to be started, as the app ended."""


WAITING = TypeAdapter(list[Waiting])


class RunQueue:
    """The line of a folder of runs."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.file = runs.folder / QUEUE

    def all(self) -> list[Waiting]:
        """What waits, the next first; InputError for a file that cannot be read."""
        try:
            return WAITING.validate_python(read_json(self.file))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, ValidationError):
            raise InputError(
                f"{self.file}: damaged, expected the runs that wait; delete it to go on, which "
                "loses the line and no run"
            ) from None

    def free_name(self, recipe: str) -> str:
        """As `Runs.free_name`, beside the names that wait."""
        return self.runs.free_name(recipe, besides=[each.name for each in self.all()])

    def form_of(self, name: str) -> Form:
        """The form of a run that waits, or else as `forms.form_of`."""
        waiting = next((each.form for each in self.all() if each.name == name), None)
        return waiting or forms.form_of(self.runs, name)

    def add(self, name: str, form: Form | None) -> None:
        """Put a run at the end of the line; one without a form is resumed."""
        with self._changing() as waiting:
            self.refuse_waiting(name)
            if form is None:
                self._refuse_resume(name)
            else:
                check_name(name, what="run name")
                self.runs.refuse_taken(name)
            waiting.append(Waiting(name=name, form=form, app=self.runs.app))

    def refuse_waiting(self, name: str) -> None:
        """InputError where a run of that name is in line."""
        if any(each.name == name for each in self.all()):
            raise InputError(f"{name}: waits already; choose another name")

    def remove(self, name: str) -> None:
        """Take a run out of the line."""
        with self._changing() as waiting:
            waiting.remove(_named(waiting, name))

    def move(self, name: str, by: int) -> None:
        """Move a run one place: to the front for -1, to the end for 1."""
        with self._changing() as waiting:
            place = waiting.index(_named(waiting, name))
            to = min(max(place + (1 if by > 0 else -1), 0), len(waiting) - 1)
            waiting.insert(to, waiting.pop(place))

    def advance(self) -> str | None:
        """Start the next run if nothing trains; its name. What cannot be started is held."""
        while (first := self._next()) is not None and not self.trains():
            try:
                self._check(first)
                return first.name if self._start(first, beside=False) else None
            except (ImgalignError, OSError) as error:
                self._hold(first, " ".join(str(error).split()))
        return None

    def start_now(self, name: str) -> None:
        """Start a run that waits at once, also beside others."""
        found = _named(self.all(), name)
        self._check(found)
        self._start(found, beside=True)

    def trains(self) -> bool:
        """Whether a run is under way in this folder, whoever started it."""
        processes = self.runs.processes
        if any(map(processes.alive, processes.names())):
            return True
        return any(run.state in TRAINS for run in self.runs.all())

    def elsewhere(self, waiting: Waiting) -> str:
        """Which other app has to start it; empty where this one does."""
        return "" if waiting.app == self.runs.app else waiting.app

    def _next(self) -> Waiting | None:
        ready = (each for each in self.all() if not each.held and not self.elsewhere(each))
        return next(ready, None)

    def _check(self, waiting: Waiting) -> None:
        """InputError or ConfigError for what could not be started."""
        if waiting.form is None:
            self._refuse_resume(waiting.name)
        else:
            recipe = recipes.read(waiting.form.recipe)
            checks.check(self.runs, recipe.path, waiting.form.changes)

    def _refuse_resume(self, name: str) -> None:
        found = self.runs.run(name)
        if not found.resumable:
            raise InputError(f"{self.runs.path(name)}: nothing to resume, it is {found.state}")

    def _start(self, waiting: Waiting, *, beside: bool) -> bool:
        """Start it if it still waits, and nothing trains or it may be `beside` that."""
        with self._changing() as line:
            if waiting not in line or (self.trains() and not beside):
                return False
            if not (waiting.begun and self._has_process(waiting)):
                # On disk before the process: an app that ends here does not start it twice.
                line[line.index(waiting)] = waiting = replace(waiting, begun=True)
                self._write(line)
                self._launch(waiting)
            line.remove(waiting)
            return True

    def _has_process(self, waiting: Waiting) -> bool:
        if waiting.form is None:
            return self.runs.processes.alive(waiting.name)
        return self.runs.processes.launched(waiting.name) is not None

    def _launch(self, waiting: Waiting) -> None:
        if waiting.form is None:
            self.runs.resume(waiting.name)
            return
        recipe = recipes.read(waiting.form.recipe)
        self.runs.launch(recipe.path, name=waiting.name, overrides=waiting.form.changes)
        forms.keep(self.runs, waiting.name, waiting.form)

    def _hold(self, waiting: Waiting, why: str) -> None:
        with self._changing() as line:
            for place, each in enumerate(line):
                if (each.name, each.form) == (waiting.name, waiting.form):
                    line[place] = replace(each, held=why, begun=False)

    @contextmanager
    def _changing(self) -> Iterator[list[Waiting]]:
        """The line under the lock, written at the end if it was changed."""
        with alone_at(self.file, doing="starting runs"):
            waiting = self.all()
            before = list(waiting)
            yield waiting
            if waiting != before:
                self._write(waiting)

    def _write(self, waiting: Sequence[Waiting]) -> None:
        write_atomically(self.file, json.dumps([asdict(each) for each in waiting]) + "\n")


def _named(waiting: Sequence[Waiting], name: str) -> Waiting:
    found = next((each for each in waiting if each.name == name), None)
    if found is None:
        raise InputError(f"{name!r:.80}: does not wait, it may have started; look at the runs")
    return found


@runtime_checkable
class Line(Protocol):
    """What waits for its turn."""

    def advance(self) -> str | None:
        """Start the next if it may start; its name."""


@contextmanager
def attended(*lines: Line) -> Iterator[None]:
    """Start what waits in each line in its turn, from a thread of its own."""
    over = threading.Event()

    def attend(line: Line) -> None:
        while True:
            try:
                line.advance()
            except (ImgalignError, OSError):
                pass  # the page says what is wrong with the line, and it may be mended
            except Exception:  # else its thread ends, and nothing is started until a restart
                log.exception("what waits was not started; it is tried again")
            if over.wait(LOOK_SECONDS):
                return

    for line in lines:
        threading.Thread(target=attend, args=(line,), name="line", daemon=True).start()
    try:
        yield
    finally:
        over.set()
