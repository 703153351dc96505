"""Batches of candidates as the app sees them: what was asked for, and the processes that make them.

A batch is a process of `imgalign candidates`, known by `runs/.candidates/<name>.json`; what was
asked for, its prompts and the items that it queued lie beside it, and `<name>.waits` while it waits
for its turn: of those that draw images one is made at a time, and the app that took them starts the
next (`attended`), under a lock of the folder. What was made elsewhere is read at once. Left out:
what may be asked for (batch_request.py) and the page (pages/candidates.py). Neither gradio nor
torch here.
"""

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from imgalign.errors import InputError
from imgalign.files import read_json, write_atomically
from imgalign.prompts import as_file
from ui import batch_progress
from ui.batch_asked import ASKED, Asked
from ui.batch_line import BatchLine, Waits
from ui.processes import IMGALIGN, Processes, last_line
from ui.runs import Runs
from ui.uploads import Uploads

FOLDER = ".candidates"
CANDIDATES = (*IMGALIGN, "candidates")
NAME = re.compile(r"batch-[1-9][0-9]{0,8}")
MOST_LISTED = 40
"""Batches, the newest; older ones stay on disk, and what they made in the store."""

State = Literal["waiting", "making", "made", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Where one batch stands."""

    name: str
    asked: Asked
    state: State
    message: str
    """What it is doing, what was left out of it, or why it ended."""
    share: float | None
    """How far the present part has come, in [0, 1], where it says so."""
    item_ids: tuple[str, ...]
    """What it has queued so far."""


class Batches:
    """The only place where the app makes candidates.

    `command` is what makes them; options are appended to it. `database` is as of `Runs`.
    """

    def __init__(
        self, runs: Runs, *, command: Sequence[str] = CANDIDATES, database: str | None = None
    ) -> None:
        self._runs = runs
        self.line = BatchLine(runs.folder / FOLDER, lambda: runs.app)
        self.folder = runs.folder / FOLDER
        self.processes = Processes(
            self.folder, command=command, said="imgalign candidates", database=database
        )
        self.uploads = Uploads(self.folder / "uploads")
        self._why: dict[str, str] = {}
        """Why what waits could not be started at the last try."""
        # Two presses of "Make" come at once, in two threads.
        self._starting = threading.Lock()

    def all(self) -> list[Batch]:
        """The newest batches and all under way, the latest first; without the unreadable ones."""
        names = sorted(self._names(), key=_number, reverse=True)
        listed = names[:MOST_LISTED] + [n for n in names[MOST_LISTED:] if self._under_way(n)]
        return [batch for name in listed if (batch := self._read(name)) is not None]

    def batch(self, name: str) -> Batch:
        """One batch; InputError if there is none of that name."""
        found = self._read(name) if NAME.fullmatch(name) else None
        if found is None:
            raise InputError(f"{name!r:.80}: no such batch of candidates; reload the page")
        return found

    def launch(self, asked: Asked, *, alone: bool = False) -> str:
        """Make a batch by a process that outlives the app, in its turn, and return its name.

        With `alone` InputError while any other is being made or waits.
        """
        with self._starting:
            if alone:
                self._refuse_others()
            for other in self.all():
                if other.asked == asked and self._goes_on(other):
                    raise InputError(
                        "these candidates are being made already, or wait for their turn; "
                        "wait for them, or stop them first"
                    )
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"batch-{max(map(_number, self._names()), default=0) + 1}"
            try:
                write_atomically(self._asked_path(name), json.dumps(asdict(asked)) + "\n")
                if asked.prompts:
                    write_atomically(self._prompts_path(name), as_file(asked.prompts))
                self._start_or_wait(name, asked, resume=False)
            except (OSError, InputError) as error:
                self._remove_files(name)  # nothing was begun, and nothing is to look as if it was
                raise _not_started(name, error) from error
        return name

    def resume(self, name: str, *, alone: bool = False) -> None:
        """Go on with a batch that has ended before its end; what is stored is not made again.

        `alone` is as in `launch`.
        """
        with self._starting:
            if alone:
                self._refuse_others()
            batch = self.batch(name)
            if batch.state not in ("stopped", "failed"):
                raise InputError(f"{name}: nothing to go on with, it is {batch.state}")
            place = Path(batch.asked.place)
            if batch.asked.source != "prompts" and not place.exists():
                raise InputError(f"{place}: not there any more; start anew from where they are")
            try:
                self._start_or_wait(name, batch.asked, resume=batch.asked.source == "prompts")
            except OSError as error:
                raise _not_started(name, error) from error

    def make_now(self, name: str, *, alone: bool = False) -> None:
        """Begin a batch that waits at once, also beside others. `alone` is as in `launch`."""
        with self._starting:
            if alone:
                self._refuse_others(besides=name)
            self.batch(name)
            with self.line.alone():
                waits = self.line.waits(name)
                if waits is None:
                    raise InputError(f"{name}: does not wait any more; reload the page")
                if waits.app != self._runs.app:
                    raise InputError(f"{name}: waits for the app of {waits.app}; make it there")
                self._begin(name, waits)

    def advance(self) -> str | None:
        """Begin the batch that waits longest if none is being made; its name."""
        if not self.waiting():  # nobody is locked out for nothing
            return None
        with self._starting, self.line.alone():
            if self._drawing() or (name := next(iter(self.waiting()), None)) is None:
                return None
            waits = self.line.waits(name)
            assert waits is not None  # nobody else may take it away meanwhile
            self._begin(name, waits)
            return name

    def stop(self, name: str) -> None:
        """End the making of a batch, or take it out of the line; it can go on from there."""
        batch = self.batch(name)
        if batch.state == "waiting":
            with self._starting, self.line.alone():
                if self.line.waits(name) is not None and not self.processes.alive(name):
                    self.processes.mark_stopped(name)
                    self.line.leave(name)
                    return
        self.processes.stop(batch.name, what=name)

    def busy(self, project: str) -> bool:
        """Whether more is being made for a project, or will be by itself."""
        return any(each.asked.project == project and self._goes_on(each) for each in self.all())

    def forget(self, name: str) -> None:
        """Take a batch that has ended from the list; what it queued stays where it is."""
        batch = self.batch(name)
        with self._starting:
            if self.line.waits(name) is not None:
                raise InputError(f"{name}: it waits for its turn; stop it first")
            self.processes.forget(name)
            self._remove_files(name)
        if batch.asked.uploaded:
            self.uploads.remove(Path(batch.asked.place).name)

    def move(self, name: str, by: int) -> None:
        """Move a batch that waits one place: to the front for -1, to the end for 1."""
        with self.line.alone():
            names = self.waiting()
            if name not in names:
                raise InputError(f"{name}: does not wait here any more; reload the page")
            place = names.index(name)
            names.insert(max(place + (1 if by > 0 else -1), 0), names.pop(place))
            try:
                self.line.order(names)
            except OSError as error:
                raise InputError(
                    f"{name}: cannot be moved ({_short(error)}); try it again when that is mended"
                ) from error

    def pace(self, maker: str) -> float | None:
        """Seconds of an image and sampling step, by the newest batch of that maker that is made."""
        return self._pace(self.all(), maker)

    def begins_in(self, name: str) -> float | None:
        """Seconds until a batch that waits begins; None where they cannot be reckoned.

        What draws images does so side by side; what waits before it comes one after another.
        """
        waiting = self.waiting()
        before = waiting[: waiting.index(name)] if name in waiting else []
        if name not in waiting or any(each in self._why for each in (*before, name)):
            return None
        left = [batch_progress.seconds_left(self._lines(each)) for each in self._drawing()]
        found = self.all() if before else []
        takes = [self._takes(each, found) for each in before]
        if None in left or None in takes:
            return None
        return max((each for each in left if each), default=0.0) + sum(filter(None, takes))

    def waiting(self) -> list[str]:
        """What waits for this app, the next first; what is damaged holds up no other."""
        return [n for n in self.line.mine() if NAME.fullmatch(n) and self._asked(n) is not None]

    def log(self, name: str) -> str:
        """The end of what the process printed."""
        return self.processes.log(self.batch(name).name)

    def uploads_in_use(self) -> set[str]:
        """Uploads that a batch may still read."""
        return {
            Path(batch.asked.place).name
            for batch in self.all()
            if batch.asked.uploaded and batch.state != "made"
        }

    def _start_or_wait(self, name: str, asked: Asked, *, resume: bool) -> None:
        """Start its process, or let it wait while another draws images, as it would."""
        with self.line.alone():
            if asked.source != "prompts" or not (self.waiting() or self._drawing()):
                self.processes.start(name, self._arguments(name, asked, resume=resume))
            else:
                waits = Waits(app=self._runs.app, resume=resume, since=time.time_ns())
                self.line.put(name, waits)

    def _begin(self, name: str, waits: Waits) -> None:
        """Start what waits; inside of the lock.

        On disk before the process: an app that ends here does not start it twice. What cannot be
        started, on a full disk or without memory, stays the next one, and says why.
        """
        before = self._birth(name)
        try:
            if waits.begun is None or waits.begun == before:
                self.line.put(name, replace(waits, begun=before))
                asked = self.batch(name).asked
                self.processes.start(name, self._arguments(name, asked, resume=waits.resume))
            self.line.leave(name)
        except OSError as error:
            self._why[name] = _short(error)
            raise _not_started(name, error) from error
        self._why.pop(name, None)

    def _birth(self, name: str) -> str:
        """Which process was started last; empty for none."""
        launch = self.processes.launched(name)
        return "" if launch is None else f"{launch.pid} {launch.birth}"

    def _pace(self, found: Sequence[Batch], maker: str) -> float | None:
        for batch in found:
            if batch.state == "made" and batch.asked.maker == maker:
                pace = batch_progress.pace(self.processes.log(batch.name), batch.asked.steps)
                if pace is not None:
                    return pace
        return None

    def _takes(self, name: str, found: Sequence[Batch]) -> float | None:
        """Seconds that a batch that waits will take; None for one that goes on."""
        waits, asked = self.line.waits(name), self._asked(name)
        if waits is None or waits.resume or asked is None:
            return None
        pace = self._pace(found, asked.maker)
        return None if pace is None else pace * asked.num_images * asked.steps

    def _under_way(self, name: str) -> bool:
        return self.line.path(name).exists() or self.processes.alive(name)

    def _drawing(self) -> list[str]:
        """What draws images, whoever started it."""
        making = (each for each in self._names() if self.processes.alive(each))
        return [n for n in making if (asked := self._asked(n)) and asked.source == "prompts"]

    def _goes_on(self, batch: Batch) -> bool:
        """Whether it is being made, or will be by itself."""
        return batch.state == "making" or batch.name in self.waiting()

    def _before(self, name: str) -> str:
        """What has to end before it begins. Example: "the 2 batches before it are made"."""
        waiting = self.waiting()
        # It may have left the line since it was read that it waits.
        number = (waiting.index(name) if name in waiting else 0) + bool(self._drawing())
        many = "the batch before it is" if number < 2 else f"the {number} batches before it are"
        return f"{many} made"

    def _remove_files(self, name: str) -> None:
        for path in (self._prompts_path(name), self._items_path(name), self._asked_path(name)):
            path.unlink(missing_ok=True)

    def _refuse_others(self, besides: str = "") -> None:
        for other in self.all():
            if other.name != besides and self._goes_on(other):
                raise InputError(
                    f"{other.name} is being made or waits: expected one batch at a time of whoever "
                    "is no admin; wait for it, or stop it first"
                )

    def _arguments(self, name: str, asked: Asked, *, resume: bool) -> list[str]:
        # With '=', so that nothing that was typed can become an option.
        shared = [
            f"--per-prompt={asked.per_prompt}",
            f"--overlap={asked.overlap}",
            f"--project={asked.project}",
            f"--item-list={self._items_path(name).absolute()}",
        ]
        if asked.source != "prompts":
            option = "--from" if asked.source == "images" else "--texts"
            return [f"{option}={asked.place}", *shared]
        return [
            f"--prompts={self._prompts_path(name).absolute()}",
            f"--adapter={asked.adapter}" if asked.adapter else f"--model={asked.model}",
            f"--seed={asked.first_seed}",
            f"--steps={asked.steps}",
            f"--guidance={asked.guidance:g}",
            *shared,
            *(["--resume"] if resume else []),
        ]

    def _names(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.asked") if NAME.fullmatch(path.stem)}

    def _asked(self, name: str) -> Asked | None:
        """What a batch is made of; None where that cannot be read."""
        try:
            return ASKED.validate_python(read_json(self._asked_path(name)))
        except (OSError, ValueError, ValidationError):
            return None

    def _read(self, name: str) -> Batch | None:
        asked = self._asked(name)
        if asked is None:
            return None
        lines = self._lines(name)
        share = None
        state: State
        if self.processes.alive(name):
            state = "making"
            share, message = batch_progress.doing(lines)
        elif (waits := self.line.waits(name)) is not None:
            state, message = "waiting", self._why_waiting(name, waits)
        else:
            state, message = self._ended(name, lines)
        return Batch(
            name=name,
            asked=asked,
            state=state,
            message=message,
            share=share,
            item_ids=self._item_ids(name),
        )

    def _why_waiting(self, name: str, waits: Waits) -> str:
        if waits.app != self._runs.app:
            return f"It waits for the app of {waits.app}; to make it here, stop it and go on"
        if why := self._why.get(name):
            return f"It could not be started ({why}); it is tried again"
        return f"It begins by itself when {self._before(name)}"

    def _lines(self, name: str) -> list[str]:
        return batch_progress.lines_of(self.processes.log(name))

    def _ended(self, name: str, lines: list[str]) -> tuple[State, str]:
        if (said := batch_progress.queued(lines)) is not None:
            return "made", "; ".join(said)
        if self.processes.was_stopped(name):
            return "stopped", "Stopped; what is made stays, and it can go on from there"
        said_last = last_line("\n".join(lines))
        if said_last.startswith("error: "):
            return "failed", said_last.removeprefix("error: ")
        return "failed", f"it ended before it was done{f' ({said_last})' if said_last else ''}"

    def _item_ids(self, name: str) -> tuple[str, ...]:
        try:
            written = self._items_path(name).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ()
        return tuple(line for line in written.split("\n")[:-1] if line)

    def _asked_path(self, name: str) -> Path:
        return self.folder / f"{name}.asked"

    def _prompts_path(self, name: str) -> Path:
        return self.folder / f"{name}.prompts"

    def _items_path(self, name: str) -> Path:
        return self.folder / f"{name}.items"


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def _not_started(name: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(
        f"{name}: cannot be started ({_short(error)}); try it again when that is mended"
    )


def _short(error: Exception) -> str:
    """Without a path: whoever makes candidates need not see those of the machine."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
