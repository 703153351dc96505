"""The Generate page: a checkpoint beside its base on the same seeds, and sending to ranking."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, no_type_check

import gradio as gr
from gradio.components import Component

from imgalign.errors import ImgalignError, InputError
from imgalign.preferences.records import SamplerSettings
from imgalign.preferences.store import Store
from imgalign.runs.checkpoint import step_of
from ui.libraries import load_libraries
from ui.messages import PRIVATE, shown
from ui.runs import Runs
from ui.shelf import Shelf
from ui.theme import asset

if TYPE_CHECKING:
    from imgalign.diffusion.generate import ImageGenerator

BASE_ONLY = ""
MOST_IMAGES = 128
MOST_STEPS = 200
MOST_GUIDANCE = 20.0
MOST_ANNOTATORS = 50
LARGEST_SEED = 2**53
"""From there on a browser's numbers are no longer exact."""
EXAMPLES = (
    "a brown rabbit beside a red mushroom in the snow",
    "a pink butterfly above a yellow flower by day",
    "three orange fish by the sea",
    "a blue rocket at night",
    "a purple cat on a green car",
)
PAIRS, TOGETHER = "base against aligned", "all images of a prompt"
GROUP = 4
"""Candidates per ranking when all images of a prompt are ranked together."""
MAX_IMAGES = 9
"""Candidates that the keys 1 to 9 can rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Images to generate. `adapter` is "run/step-000040", or empty for the base model alone."""

    adapter: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    sampler: SamplerSettings


class LoadedModel:
    """The one model in memory, that of the latest request; base and aligned share it."""

    def __init__(self) -> None:
        self._generator: ImageGenerator | None = None
        self.lock = threading.Lock()
        """Held while images are generated, so that no other request switches model or adapter."""

    def get(self, model: str, adapter: Path | None) -> "ImageGenerator":
        """The model with this adapter, or alone; another model is dropped before it is loaded."""
        load_libraries()
        from imgalign.diffusion.generate import ImageGenerator

        if self._generator is None or self._generator.model != model:
            self._generator = None
            self._generator = ImageGenerator(model)
        self._generator.use(adapter)
        return self._generator


def checkpoints(runs: Runs, model: str) -> list[tuple[str, str]]:
    """(label, value) of everything that can be compared with the base, the newest run first."""
    found = [(f"Base model only ({model})", BASE_ONLY)]
    for run in runs.all():
        for step in reversed(run.adapters):
            mark = " (best)" if step == run.best else ""
            label = f"{run.name}, iteration {step_of(Path(step))}{mark}"
            found.append((label, f"{run.name}/{step}"))
    return found


def requested(
    adapter: str,
    prompts: str,
    first_seed: float | None,
    count: float | None,
    steps: float | None,
    guidance: float | None,
) -> Request:
    """The form as a Request; InputError says what to change."""
    lines = tuple(dict.fromkeys(line.strip() for line in prompts.split("\n") if line.strip()))
    if not lines:
        raise InputError("prompts: write at least one, or pick an example")
    if first_seed is None or count is None or steps is None or guidance is None:
        raise InputError("numbers: fill in images each, first seed, steps and guidance")
    number = _whole("images each", count, least=1, below=MOST_IMAGES + 1)
    start = _whole("first seed", first_seed, least=0, below=LARGEST_SEED - number)
    if not 1 <= guidance <= MOST_GUIDANCE:
        raise InputError(f"guidance: expected 1 (off) to {MOST_GUIDANCE:g}, got {guidance:g}")
    images = len(lines) * number * (2 if adapter else 1)
    if images > MOST_IMAGES:
        raise InputError(f"{images} images: expected at most {MOST_IMAGES} at a time")
    return Request(
        adapter=adapter,
        prompts=lines,
        seeds=tuple(range(start, start + number)),
        sampler=SamplerSettings(
            num_inference_steps=_whole("steps", steps, least=1, below=MOST_STEPS + 1),
            guidance_scale=guidance,
        ),
    )


def generate(
    request: Request, *, model: str, runs: Runs, shelf: Shelf, loaded: LoadedModel
) -> Iterator[dict[str, Any]]:
    """Generate the images, base first, yielding the page's view after each image.

    Both rows use the same seeds, so they start from the same noise.
    """
    base, adapter = model, None
    if request.adapter:
        base, adapter = _resolve(runs, request.adapter)
    groups: list[dict[str, Any]] = [
        {
            "prompt": prompt,
            "unread": "",
            "seeds": [{"seed": seed, "base": None, "aligned": None} for seed in request.seeds],
        }
        for prompt in request.prompts
    ]
    cells = [(group, cell) for group in groups for cell in group["seeds"]]
    rows: list[tuple[str, Path | None]] = [("base", None)]
    rows += [("aligned", adapter)] if adapter else []
    total, done = len(rows) * len(cells), 0

    def view(doing: str) -> dict[str, Any]:
        return {
            "groups": groups,
            "has_aligned": adapter is not None,
            "checkpoint": request.adapter,
            "done": done,
            "total": total,
            "share": done / total,
            "doing": doing,
            "failed": "",
        }

    with loaded.lock:
        for row, its_adapter in rows:
            yield view(f"Loading the {row} model")
            images = loaded.get(base, its_adapter).generate(
                [group["prompt"] for group, _ in cells],
                seeds=[cell["seed"] for _, cell in cells],
                settings=request.sampler,
            )
            for (group, cell), made in zip(cells, images, strict=True):
                cell[row] = shelf.put(made.image, made.provenance)
                group["unread"] = made.unread
                done += 1
                yield view(f"Generating with the {row} model")


def send(
    store: Store,
    shelf: Shelf,
    value: dict[str, Any] | None,
    *,
    how: str,
    overlap: float | None,
    project: str = "default",
) -> int:
    """Store the images with their provenance, queue items to rank, and return their number.

    `how` is PAIRS (one item per seed) or TOGETHER (items of about GROUP candidates). Equal images
    of an item are one candidate; an item with fewer than two is left out.
    """
    annotators = _whole("annotators per item", overlap, least=1, below=MOST_ANNOTATORS + 1)
    if not value or not value["groups"]:
        raise InputError("nothing to send: generate images first")
    if how == PAIRS and not value["has_aligned"]:
        raise InputError(f"{PAIRS}: choose a checkpoint and generate first, or send them together")
    # Everything is looked up before anything is stored: all of it is sent, or nothing.
    items = [
        (group["prompt"], [shelf.get(image_id) for image_id in chosen])
        for group in value["groups"]
        for chosen in _candidates(group["seeds"], how)
    ]
    source = f"generate: {value['checkpoint'] or 'base'}"
    queued = 0
    for prompt, kept in items:
        image_ids = list(dict.fromkeys(store.add_image(k.png, k.provenance) for k in kept))
        if len(image_ids) >= 2:
            store.add_item(prompt, image_ids, source=source, project=project, overlap=annotators)
            queued += 1
    return queued


def restore(shelf: Shelf, last: str) -> dict[str, Any] | None:
    """The view before a reload, if all of its images are still in memory."""
    try:
        value = json.loads(last)
        ids = [
            cell[row]
            for group in value["groups"]
            for cell in group["seeds"]
            for row in ("base", "aligned")
            if cell[row] is not None
        ]
    except (ValueError, KeyError, TypeError):
        return None
    return value if ids and all(isinstance(i, str) and shelf.has(i) for i in ids) else None


def _form() -> list[Component]:
    """The form, in the order of the parameters of `requested`."""
    adapter = gr.Dropdown(label="Compare with", choices=[], elem_id="checkpoint")
    prompts = gr.Textbox(
        label="Prompts",
        info="One per line",
        lines=4,
        max_lines=12,
        value=EXAMPLES[0],
        elem_id="prompts",
    )
    with gr.Row(elem_classes="numbers"):
        count = _number("Images each", 4, 1, 12, "count")
        first_seed = _number("First seed", 1, 0, None, "first-seed")
    with gr.Row(elem_classes="numbers"):
        steps = _number("Steps", 20, 1, MOST_STEPS, "steps")
        guidance = gr.Number(
            1.0, label="Guidance", minimum=1, maximum=MOST_GUIDANCE, step=0.5, min_width=80
        )
    return [adapter, prompts, first_seed, count, steps, guidance]


def _sending() -> tuple[gr.Radio, gr.Number, gr.Button]:
    """How items are built from the images, annotators per item, and the button."""
    how = gr.Radio(
        [(name[0].upper() + name[1:], name) for name in (PAIRS, TOGETHER)],
        value=TOGETHER,
        label="What to rank",
        scale=3,
        elem_id="how",
    )
    overlap = gr.Number(
        value=1,
        precision=0,
        minimum=1,
        maximum=MOST_ANNOTATORS,
        label="Annotators each",
        scale=1,
    )
    return how, overlap, gr.Button("Send to ranking", elem_id="send-button", scale=1)


def build(
    page: gr.Blocks, store: Store, runs: Runs, shelf: Shelf, *, model: str, project: str
) -> None:
    """Draw the page inside the current Blocks."""
    loaded = LoadedModel()
    with gr.Row(elem_classes="page", equal_height=False):
        with gr.Column(scale=0, min_width=320, elem_classes="side"):
            form = _form()
            start = gr.Button("Generate", variant="primary", elem_id="generate-button")
            cancel = gr.Button("Stop", visible=False)
        with gr.Column(scale=1, min_width=320):
            compare = gr.HTML(
                value=None,
                html_template=asset("compare.html"),
                css_template=asset("compare.css"),
                js_on_load=asset("compare.js"),
                apply_default_css=False,
                elem_id="compare",
                ideas=list(EXAMPLES),
            )
            with gr.Row(visible=False, elem_classes="sending", equal_height=True) as sending:
                how, overlap, go = _sending()
    adapter, prompts, *_ = form

    def open_page() -> Any:
        choices = checkpoints(runs, model)
        newest = choices[1][1] if len(choices) > 1 else BASE_ONLY
        return gr.Dropdown(choices=choices, value=newest)

    @no_type_check  # a checker's wrapper would hide from gradio that this is a generator
    def begin(*form: Any) -> Iterator[tuple[Any, ...]]:
        request = shown(lambda: requested(*form))
        views = generate(request, model=model, runs=runs, shelf=shelf, loaded=loaded)
        for value in _until_error(views):
            busy = value["done"] < value["total"] and not value["failed"]
            yield (
                value,
                gr.Button(visible=not busy),
                gr.Button(visible=busy),
                gr.Row(visible=not busy),
            )

    def rest() -> tuple[Any, Any]:
        return gr.Button(visible=True), gr.Button(visible=False)

    def halt(value: Any) -> tuple[Any, ...]:
        stopped = {**value, "failed": "Stopped."} if value else None
        return stopped, gr.Button(visible=True), gr.Button(visible=False)

    def send_all(value: Any, how: str, times: float | None) -> None:
        count = shown(lambda: send(store, shelf, value, how=how, overlap=times, project=project))
        gr.Info(f"{count} item{'s' * (count != 1)} queued on the Rank page")

    def add_idea(written: str, event: gr.EventData) -> str:
        lines = [line for line in written.split("\n") if line.strip()]
        return "\n".join(dict.fromkeys([*lines, str(event.prompt)]))

    def reload(event: gr.EventData) -> tuple[Any, Any]:
        value = restore(shelf, str(event.last))
        return (value, gr.Row(visible=True)) if value else (gr.skip(), gr.skip())

    page.load(open_page, outputs=adapter, **PRIVATE)
    # One at a time: two may not fit into the memory of one device.
    serial = PRIVATE | {"concurrency_limit": 1}
    running = start.click(begin, form, [compare, start, cancel, sending], **serial)
    running.then(rest, None, [start, cancel], **PRIVATE)
    cancel.click(halt, compare, [compare, start, cancel], cancels=[running], **PRIVATE)
    go.click(send_all, [compare, how, overlap], None, **PRIVATE)
    compare.idea(add_idea, prompts, prompts, **PRIVATE)
    compare.restore(reload, None, [compare, sending], **PRIVATE)


def _until_error(views: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same views; an error of the project ends them with one that says why."""
    value: dict[str, Any] = {"groups": [], "has_aligned": False, "done": 0, "total": 0, "share": 0}
    try:
        for value in views:
            yield value
    except ImgalignError as error:
        yield {**value, "failed": str(error)}


def _number(label: str, value: int, least: int, most: int | None, elem_id: str) -> gr.Number:
    return gr.Number(
        value, label=label, precision=0, minimum=least, maximum=most, min_width=80, elem_id=elem_id
    )


def _candidates(seeds: Sequence[dict[str, Any]], how: str) -> list[list[str]]:
    """Image ids of each item: pairs, or groups of GROUP with a last one of up to MAX_IMAGES."""
    by_seed = [[cell[row] for row in ("base", "aligned") if cell[row]] for cell in seeds]
    if how == PAIRS:
        return by_seed
    flat = [image_id for ids in by_seed for image_id in ids]
    groups = [flat[i : i + GROUP] for i in range(0, len(flat), GROUP)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        alone = groups.pop()
        groups[-1] += alone
    assert all(len(group) <= MAX_IMAGES for group in groups)
    return groups


def _whole(name: str, value: float | None, *, least: int, below: int) -> int:
    """A number of the form; InputError unless it is a whole one in the range."""
    if value is None or not (least <= value < below and value == int(value)):
        raise InputError(
            f"{name}: expected a whole number from {least} to {below - 1}, got {value}"
        )
    return int(value)


def _resolve(runs: Runs, value: str) -> tuple[str, Path]:
    """The base model and the adapter folder of "run/step-000040"."""
    from imgalign.runs.folder import model_under

    name, _, step = value.partition("/")
    if step not in runs.run(name).adapters:
        raise InputError(f"{value}: no such checkpoint any more; choose another")
    adapter = runs.path(name) / step
    return model_under(adapter), adapter
