"""Whether anything that a page draws may have changed, without reading what it draws.

A page that is open asks every few seconds (assets/alive.js), and has itself drawn anew only where
the answer differs. It comes from times and sizes of files, and from which processes are alive: no
file is read twice, and no statement is made. Neither gradio nor torch here.
"""

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

from imgalign.preferences.store import Store
from imgalign.runs.folder import METRICS, SAMPLES
from imgalign.runs.status import STATUS, process_alive, written_status
from ui.batches import FOLDER as BATCHES
from ui.fits import FITS
from ui.processes import Processes
from ui.run_queue import QUEUE
from ui.runs import LAUNCHES, Runs

Page: TypeAlias = Literal["candidates", "learn", "train", "people", "results"]
FOLDERS: dict[Page, tuple[str, ...]] = {
    "candidates": (BATCHES, FITS, LAUNCHES),
    "learn": (FITS,),
    "train": (LAUNCHES,),
}
"""Of the processes that a page tells of, in the folder of runs. The others tell of the store."""
IN_RUN = ("", STATUS, METRICS, SAMPLES, "evaluation", "contract.json")
"""What changes in a run; all else of it is written as a whole, which changes its folder."""
STORE_SECONDS = 8.0
"""Between two looks at the store, in which others rank meanwhile."""
ANYWAY_SECONDS = 60.0
"""Until a page is drawn anew in any case, for what lies elsewhere."""
TIMES_AT_REST = 20
"""Times that its slowest drawing of late took, until a page that tells of the store is drawn anew:
each that is open takes at most a twentieth of a core, however large the store is."""
DRAWINGS_KEPT = 8
"""The latest drawings of a page, of all who have it open."""


class Pulse:
    """Of one app."""

    def __init__(
        self,
        runs: Runs,
        processes: Iterable[Processes],
        store: Store,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs = runs
        self._processes = {each.folder.name: each for each in processes}
        self._store = store
        self._clock = clock
        self._looked: dict[Page, tuple[float, Hashable]] = {}
        self._took: dict[Page, deque[float]] = defaultdict(lambda: deque(maxlen=DRAWINGS_KEPT))
        self._read: dict[Path, tuple[Hashable, tuple[int, str | None] | None]] = {}

    def of(self, page: Page) -> str:
        """Another text whenever what a page draws may be another."""
        if page not in FOLDERS:
            return _short(self._of_store(page))
        folder = self._runs.folder
        mark = (
            int(self._clock() // ANYWAY_SECONDS),
            _times(folder / QUEUE),
            [self._run(each) for each in _inside(folder) if not each.name.startswith(".")],
            [self._started(each) for each in FOLDERS[page]],
            None if page == "train" else self._of_store(page),
        )
        return _short(mark)

    @contextmanager
    def drawing(self, page: Page) -> Iterator[None]:
        """Around what draws a page from the store: what it takes is how long the page rests."""
        begun = self._clock()
        yield
        self._took[page].append(self._clock() - begun)

    def _run(self, entry: os.DirEntry[str]) -> Hashable:
        path = Path(entry.path)
        return entry.name, *(_times(path / each) for each in IN_RUN), self._alive(path / STATUS)

    def _started(self, name: str) -> Hashable:
        """Files of processes, and which of these are alive."""
        found = [Path(each.path) for each in _inside(self._runs.folder / name)]
        alive = [self._alive(each) for each in found if each.suffix == ".json"]
        return tuple((each.name, _times(each)) for each in found), tuple(alive)

    def _alive(self, path: Path) -> bool:
        """Whether a process that a file names is alive. The file is read when it has changed."""
        times = _times(path)
        before, named = self._read.get(path, (None, None))
        if times != before:
            named = self._named(path)
            self._read[path] = times, named
        if named is None:
            return False
        pid, birth = named
        if process_alive(pid, birth=birth):
            return True
        self._read[path] = times, None  # the dead stay dead
        return False

    def _named(self, path: Path) -> tuple[int, str | None] | None:
        """Number and birth of a process that may be alive."""
        if path.name == STATUS:
            status = written_status(path.parent)
            running = status is not None and status.state == "running"
            return (status.pid, status.birth) if status and running else None
        launch = self._processes[path.parent.name].launched(path.stem)
        return None if launch is None or not launch.birth else (launch.pid, launch.birth)

    def _of_store(self, page: Page) -> Hashable:
        """Of the files of the store; of a server of databases the time alone, seldom."""
        now = self._clock()
        rest = max(STORE_SECONDS, TIMES_AT_REST * max(self._took[page], default=0.0))
        before, mark = self._looked.get(page, (-rest, None))
        if now - before < rest and mark is not None:
            return mark
        path = self._store.database.path
        files = () if path is None else (path, path.with_name(f"{path.name}-wal"))
        minute = int(now // ANYWAY_SECONDS) if page not in FOLDERS else 0
        mark = (minute, now) if path is None else (minute, *map(_times, files))
        self._looked[page] = now, mark
        return mark


def _short(mark: Hashable) -> str:
    return sha256(repr(mark).encode()).hexdigest()[:16]


def _inside(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda each: each.name)
    except OSError:
        return []


def _times(path: Path) -> Hashable:
    """When a file or folder changed last, and its size; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
