"""What the Generate page does: images of checkpoints and their base, of prompts and their rewrites.

All images of a prompt and seed start from the same noise. Left out: the form (image_request.py),
sending to ranking (sending.py), the page (pages/generate.py), and the process that trains.
"""

import copy
import json
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any

from imgalign.errors import ImgalignError, InputError
from imgalign.preferences.records import at_strength
from imgalign.preferences.wording import counted
from imgalign.runs.trained import check_strength
from ui.image_request import NO_REWRITER, SHIPPED, Request, checkpoint_folder
from ui.libraries import load_libraries
from ui.links import said
from ui.loras import weights_of
from ui.runs import Runs
from ui.shelf import Shelf
from ui.turns import Turns

if TYPE_CHECKING:
    from imgalign.diffusion.generate import ImageGenerator
    from imgalign.language.rewriting import Rewrite, Rewriter

NOTHING: dict[str, Any] = {"rows": [], "groups": [], "done": 0, "total": 0, "share": 0}
"""A view without images."""

SECONDS_BETWEEN_VIEWS = 0.3
"""Of steps; each image is shown as it comes."""


class Stopped(Exception):  # noqa: N818  # no error: nobody looks at the images any more
    """The page that asked for the images has pressed Stop, or was closed."""


class LoadedModels:
    """The one image model in memory, and the one rewriter: those of the latest request."""

    def __init__(self) -> None:
        self._generator: ImageGenerator | None = None
        self._rewriter: tuple[str, Rewriter] | None = None
        self.turns = Turns()
        """Taken while images are generated, so that no other request switches model or weights."""

    def get(self, model: str, adapter: Path | None, *, strength: float = 1.0) -> "ImageGenerator":
        """The model with this adapter, or alone; another model is dropped before it is loaded."""
        load_libraries()
        from imgalign.diffusion.generate import ImageGenerator

        if self._generator is None or self._generator.model != model:
            self._generator = None
            self._generator = ImageGenerator(model)
        self._generator.use(adapter, strength=strength)
        return self._generator

    def rewriter(self, name: str) -> "Rewriter":
        """A rewriter by what `load_rewriter` takes; another is dropped before it is loaded."""
        load_libraries()
        from imgalign.language.rewriting import load_rewriter

        if self._rewriter is None or self._rewriter[0] != name:
            self._rewriter = None
            self._rewriter = name, load_rewriter(name)
        return self._rewriter[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The base model, or a checkpoint of it: a row of images, or two where prompts are rewritten.

    `key` names its images in a view, `name` is shown; `checkpoint` is empty for the base model.
    """

    key: str
    name: str
    checkpoint: str = ""
    """With its strength, if that is not 1."""
    weights: Path | None = None
    strength: float = 1.0

    @property
    def rewritten(self) -> str:
        """The key of its images of rewritten prompts."""
        return f"{self.key}_rewritten"

    def rows(self, *, rewriting: bool) -> list[dict[str, Any]]:
        """What a view says of its rows, the plain one first."""
        plain = {
            "key": self.key,
            "name": self.name,
            "checkpoint": self.checkpoint,
            "rewritten": False,
        }
        again = {**plain, "key": self.rewritten, "rewritten": True}
        return [plain, {**again, "name": f"{self.name}, rewritten"}] if rewriting else [plain]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where everything that a request names is."""

    request: Request
    model: str
    sides: tuple[Side, ...]
    rewriter: str | None
    """What `load_rewriter` takes; None where nothing is rewritten."""


def plan(request: Request, *, model: str, runs: Runs) -> Plan:
    """Find what is asked for; InputError where some is gone, or checkpoints have several bases."""
    sides = [Side(key="base", name="Base")]
    base = model
    for number, each in enumerate(request.compared, start=1):
        weights, under = weights_of(runs, each.checkpoint, model=model)
        key = "aligned" if number == 1 else f"aligned_{number}"
        try:
            check_strength(each.strength, weights)
        except InputError as error:
            raise InputError(f"{each.name}: {error}") from None
        told = at_strength(each.checkpoint, each.strength)
        sides.append(
            Side(
                key=key,
                name=each.name,
                checkpoint=told,
                weights=weights,
                strength=each.strength,
            )
        )
        if number > 1 and under != base:
            raise InputError(
                f"compare with: {each.name} was trained from {under}, and"
                f" {request.compared[0].name} from {base}; choose checkpoints of one model"
            )
        base = under
    rewriter: str | None = request.rewriter or None
    if request.rewriter not in (NO_REWRITER, SHIPPED):
        rewriter = str(checkpoint_folder(runs, request.rewriter))
    return Plan(request=request, model=base, sides=tuple(sides), rewriter=rewriter)


def generate(
    request: Request, *, model: str, runs: Runs, shelf: Shelf, loaded: LoadedModels
) -> Generator[dict[str, Any], None, None]:
    """Generate the images, base first, yielding the page's view as steps and images are done.

    All rows use the same seeds, so they start from the same noise. A prompt that its rewriter left
    as it is has the same images in both rows. Requests take turns; one that waits says so. The work
    goes on in a thread until it is done or this iterator is closed.
    """
    drawing = Drawing(plan(request, model=model, runs=runs), shelf=shelf, loaded=loaded)
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
    work = pool.submit(drawing.run)
    work.add_done_callback(lambda _: drawing.views.put(None))
    try:
        while (view := drawing.views.get()) is not None:
            yield view
        work.result()
    finally:
        drawing.stop.set()
        pool.shutdown(wait=False)


class Drawing:
    """A plan that is carried out in one thread, while another takes the views of how it stands."""

    def __init__(self, plan: Plan, *, shelf: Shelf, loaded: LoadedModels) -> None:
        self.views: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self.stop = Event()
        self._plan, self._shelf, self._loaded = plan, shelf, loaded
        self._rows = [
            row for side in plan.sides for row in side.rows(rewriting=plan.rewriter is not None)
        ]
        empty: dict[str, str | None] = {row["key"]: None for row in self._rows}
        self._groups: list[dict[str, Any]] = [
            {
                "prompt": prompt,
                "unread": "",
                "rewrite": None,
                "seeds": [{"seed": seed, **empty} for seed in plan.request.seeds],
            }
            for prompt in plan.request.prompts
        ]
        self._done = 0
        self._total = len(self._rows) * len(self._cells())
        self._share = 0.0
        self._began: float | None = None
        self._shown = 0.0

    def run(self) -> None:
        """Draw everything, or as much as there is until it is stopped."""
        try:
            with self._loaded.turns.turn(self._wait):
                for side in self._plan.sides:
                    self._draw(side)
        except Stopped:
            return

    def _wait(self, ahead: int) -> None:
        before = "Another page is" if ahead == 1 else f"{ahead} other pages are"
        self._show(f"{before} drawing; yours comes next")

    def _draw(self, side: Side) -> None:
        name = side.name if side.checkpoint else "the base model"
        self._show(f"Loading {name}")
        generator = self._loaded.get(self._plan.model, side.weights, strength=side.strength)
        if self._plan.rewriter is not None and self._groups[0]["rewrite"] is None:
            self._show("Rewriting the prompts")
            found = _rewrites(
                self._plan.request, self._loaded.rewriter(self._plan.rewriter), generator
            )
            for group, rewrite in zip(self._groups, found, strict=True):
                group["rewrite"] = shown_rewrite(rewrite)
        doing = f"Drawing with {name}"
        self._show(doing)
        self._began = self._began or time.monotonic()
        wanted = self._wanted(side)
        taken = 0

        def on_progress(share: float) -> None:
            part = share * len(wanted) - taken  # of this batch, in images
            if time.monotonic() < self._shown + SECONDS_BETWEEN_VIEWS:
                self._go_on()
                return
            size = min(generator.largest_batch, len(wanted) - taken)
            steps = self._plan.request.sampler.num_inference_steps
            step = f"step {round(part * steps / size)} of {steps}"
            self._show(f"{doing}, {step} of {counted(size, 'image')}", part)

        images = generator.generate(
            [text for *_, text in wanted],
            seeds=[cell["seed"] for _, _, cell, _ in wanted],
            settings=self._plan.request.sampler,
            on_progress=on_progress,
        )
        for (row, group, cell, _), made in zip(wanted, images, strict=True):
            kept = made.asked_as(group["prompt"], rewriter=str(self._plan.rewriter))
            cell[row] = self._shelf.put(kept.image, kept.provenance)
            self._done, taken = self._done + 1, taken + 1
            if row == side.key:
                group["unread"] = made.unread
                if group["rewrite"] is not None and not group["rewrite"]["changed"]:
                    cell[side.rewritten] = cell[row]
                    self._done += 1
            self._show(doing)

    def _wanted(self, side: Side) -> list[tuple[str, dict[str, Any], dict[str, Any], str]]:
        """Row, group, cell and text of each image of a side that has to be drawn."""
        plain = [(side.key, group, cell, group["prompt"]) for group, cell in self._cells()]
        return plain + [
            (side.rewritten, group, cell, group["rewrite"]["text"])
            for group, cell in self._cells()
            if group["rewrite"] is not None and group["rewrite"]["changed"]
        ]

    def _cells(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return [(group, cell) for group in self._groups for cell in group["seeds"]]

    def _show(self, doing: str, part: float = 0.0) -> None:
        """Hand on a view; `part` is what is done of the images in work."""
        self._go_on()
        self._shown = time.monotonic()
        # Those of a batch are drawn together and come one by one.
        self._share = max(self._share, min(self._done + part, self._total) / self._total)
        left = None
        if self._began is not None and self._done:
            left = (self._shown - self._began) / self._share * (1 - self._share)
        request = self._plan.request
        self.views.put(
            {
                "rows": self._rows,
                # A copy: this thread goes on while the other sends it.
                "groups": copy.deepcopy(self._groups),
                "rewriter": request.rewriter,
                "done": self._done,
                "total": self._total,
                "share": self._share,
                "seconds_left": left,
                "doing": doing,
                "failed": "",
                "stopped": "",
            }
        )

    def _go_on(self) -> None:
        if self.stop.is_set():
            raise Stopped


def shown_rewrite(rewrite: "Rewrite") -> dict[str, Any]:
    """A rewrite as the page shows it."""
    return {
        "text": rewrite.text,
        "changed": rewrite.changed,
        "difference": [list(part) for part in rewrite.difference],
        "said": rewrite.lines(),
    }


def until_error(views: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same views; an error of the project ends them with one that says why."""
    value = NOTHING
    try:
        for value in views:
            yield value
    except ImgalignError as error:
        yield {**value, "failed": said(error)}


def restore(shelf: Shelf, last: str) -> dict[str, Any] | None:
    """The view before a reload, if all of its images are still in memory."""
    try:
        value = json.loads(last)
        keys = [row["key"] for row in value["rows"]]
        ids = [
            cell[key]
            for group in value["groups"]
            for cell in group["seeds"]
            for key in keys
            if cell.get(key) is not None
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return value if ids and all(isinstance(i, str) and shelf.has(i) for i in ids) else None


def _rewrites(
    request: Request, rewriter: "Rewriter", generator: "ImageGenerator"
) -> Sequence["Rewrite"]:
    """The rewrite of each prompt, as seeds of its images begin, that the image model can read."""
    from imgalign.language.locking import check_lock, parse_lock

    lock = parse_lock(request.lock) if request.lock else "content"
    check_lock(lock, request.prompts)
    return rewriter.rewrite(
        request.prompts, seed=request.seeds[0], lock=lock, unread=generator.family.cut_text
    )
