"""Batches of candidates as the app sees them: what was asked for, and the processes that make them.

A batch is a process of `imgalign candidates`, known by `runs/.candidates/<name>.json`; what was
asked for, its prompts and the items that it queued lie beside it. Left out: what may be asked for
(batch_request.py) and the page (pages/candidates.py). Neither gradio nor torch here.
"""

import json
import re
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import InputError
from imgalign.files import read_json, write_atomically
from imgalign.prompts import as_file
from imgalign.wording import counted
from ui.outlook import duration
from ui.processes import IMGALIGN, Processes, last_line
from ui.runs import Runs
from ui.uploads import Uploads

FOLDER = ".candidates"
CANDIDATES = (*IMGALIGN, "candidates")
NAME = re.compile(r"batch-[1-9][0-9]{0,8}")
SHARE = re.compile(r"(.+): (\d+) %(?:, (\d+\.\d+) min left)?")
QUEUED = re.compile(r"[\d,]+ items? (?:is|are) queued.*")
MADE = re.compile(r"(\d+) images made in (\d+\.\d+) s")
STARTED = re.compile(r"^\$ imgalign candidates ", re.MULTILINE)
DOING = {
    "generating": "Making images",
    "reading images": "Reading images",
    "storing images": "Storing images",
    "storing texts": "Storing texts",
}
MOST_LISTED = 40
"""Batches, the newest; older ones stay on disk, and what they made in the store."""

State = Literal["making", "made", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a batch is made of. Example: 12 prompts, 4 images of each by the storybook's model."""

    source: Literal["prompts", "images", "texts"]
    project: str
    per_prompt: int
    overlap: int = 1
    prompts: tuple[str, ...] = ()
    model: str = ""
    """Model that makes the images; empty with an adapter, whose run names its own."""
    adapter: str = ""
    """Folder of a checkpoint; empty for the model alone."""
    maker: str = ""
    """Either, as the page calls it."""
    first_seed: int = 0
    steps: int = 20
    guidance: float = 1.0
    place: str = ""
    """Folder of the images, or file of the texts, that were made elsewhere."""
    uploaded: bool = False
    """Whether the folder is one of the app, of images that a browser sent."""

    @property
    def num_images(self) -> int:
        """Images to be made; 0 for what was made elsewhere."""
        return len(self.prompts) * self.per_prompt

    @property
    def title(self) -> str:
        """Example: "12 prompts, 48 images by storybook"."""
        if self.uploaded:
            return "Images from a browser"
        if self.source != "prompts":
            return f"{self.source.capitalize()} from {Path(self.place).name}"
        images = counted(self.num_images, "image")
        return f"{counted(len(self.prompts), 'prompt')}, {images} by {self.maker}"


ASKED = TypeAdapter(Asked)


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
        self.folder = runs.folder / FOLDER
        self.processes = Processes(
            self.folder, command=command, said="imgalign candidates", database=database
        )
        self.uploads = Uploads(self.folder / "uploads")
        # Two presses of "Make" come at once, in two threads.
        self._starting = threading.Lock()

    def all(self) -> list[Batch]:
        """The newest batches, the latest first; those that cannot be read are left out."""
        names = sorted(self._names(), key=_number, reverse=True)[:MOST_LISTED]
        return [batch for name in names if (batch := self._read(name)) is not None]

    def batch(self, name: str) -> Batch:
        """One batch; InputError if there is none of that name."""
        found = self._read(name) if NAME.fullmatch(name) else None
        if found is None:
            raise InputError(f"{name!r:.80}: no such batch of candidates; reload the page")
        return found

    def launch(self, asked: Asked, *, alone: bool = False) -> str:
        """Start to make a batch as a process that outlives the app, and return its name.

        With `alone` InputError while any other is being made.
        """
        with self._starting:
            if alone:
                self._refuse_others()
            for other in self.all():
                if other.state == "making" and other.asked == asked:
                    raise InputError(
                        "these candidates are being made already; wait for them, or stop them first"
                    )
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"batch-{max(map(_number, self._names()), default=0) + 1}"
            write_atomically(self._asked_path(name), json.dumps(asdict(asked)) + "\n")
            if asked.prompts:
                write_atomically(self._prompts_path(name), as_file(asked.prompts))
            self.processes.start(name, self._arguments(name, asked))
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
            arguments = self._arguments(name, batch.asked)
            resume = ["--resume"] if batch.asked.source == "prompts" else []
            self.processes.start(name, [*arguments, *resume])

    def stop(self, name: str) -> None:
        """End the making of a batch; what is stored stays, and it can go on from there."""
        self.processes.stop(self.batch(name).name, what=name)

    def forget(self, name: str) -> None:
        """Take a batch that has ended from the list; what it queued stays where it is."""
        batch = self.batch(name)
        self.processes.forget(name)
        for path in (self._prompts_path(name), self._items_path(name), self._asked_path(name)):
            path.unlink(missing_ok=True)
        if batch.asked.uploaded:
            self.uploads.remove(Path(batch.asked.place).name)

    def pace(self, maker: str) -> float | None:
        """Seconds of an image and sampling step, by the newest batch of that maker that is made."""
        for batch in self.all():
            if batch.state != "made" or batch.asked.maker != maker:
                continue
            found = MADE.findall(self.processes.log(batch.name))
            images = sum(int(count) for count, _ in found)
            if images:
                return sum(float(each) for _, each in found) / (images * batch.asked.steps)
        return None

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

    def _refuse_others(self) -> None:
        for other in self.all():
            if other.state == "making":
                raise InputError(
                    f"{other.name} is being made: expected one batch at a time of whoever is no "
                    "admin; wait for it, or stop it first"
                )

    def _arguments(self, name: str, asked: Asked) -> list[str]:
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
        ]

    def _names(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.asked") if NAME.fullmatch(path.stem)}

    def _read(self, name: str) -> Batch | None:
        try:
            asked = ASKED.validate_python(read_json(self._asked_path(name)))
        except (OSError, ValueError, ValidationError):
            return None
        printed = STARTED.split(self.processes.log(name))[-1]
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        share = None
        if self.processes.alive(name):
            state: State = "making"
            share, message = _doing(lines)
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

    def _ended(self, name: str, lines: Sequence[str]) -> tuple[State, str]:
        told = [place for place, line in enumerate(lines) if QUEUED.fullmatch(line)]
        if told:
            said = [line for line in lines[told[-1] + 1 :] if not line.startswith("rank them")]
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


def _doing(lines: Sequence[str]) -> tuple[float | None, str]:
    """Share and words of what a process is doing. Example: "Making images, about 24 s left"."""
    for line in reversed(lines):
        if match := SHARE.fullmatch(line):
            what, per_cent, left = match.groups()
            said = DOING.get(what, what)
            rest = f", about {duration(60 * float(left))} left" if left else ""
            return int(per_cent) / 100, f"{said}{rest}"
    return None, "Starting: loading the libraries and the model"
