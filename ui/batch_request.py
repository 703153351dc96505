"""What the form of the Candidates page asks for: its choices, what is wrong in it, what it costs.

Left out: the process that makes the candidates (batches.py) and the page (pages/candidates.py).
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from imgalign.errors import ImgalignError, InputError
from imgalign.preferences import validation
from imgalign.preferences.coverage import has_items, queued_projects
from imgalign.preferences.foreign.image_files import image_files
from imgalign.preferences.records import COMPARISONS, Samples, holds_comparisons
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted, there_are
from imgalign.prompts import prompts_in
from imgalign.runs.checkpoint import STEP
from ui import checks
from ui.batch_asked import Asked
from ui.batches import Batches
from ui.image_request import (
    LARGEST_SEED,
    MOST_GUIDANCE,
    MOST_STEPS,
    SHIPPED,
    Typed,
    checkpoint_folder,
    checkpoints,
    whole,
)
from ui.libraries import load_libraries
from ui.outlook import Line, duration, size
from ui.processes import check_name
from ui.runs import Runs

PROMPTS, IMAGES, TEXTS = "prompts", "images", "texts"
FEWEST, MOST = 1, 9
"""Candidates of a prompt: the keys 1 to 9 rank them."""
MOST_MADE = 20_000
MOST_ANNOTATORS = 50
SHIPPED_PACE = 0.015
"""Seconds of an image and step of the storybook's model, on two cores of a laptop."""
BYTES_OF_A_PIXEL = 1.2
"""Of a PNG file of a generated image, measured on the storybook's; photographs take some more."""
TABLES = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields of the page as they were typed; a hidden or folded one gives None."""

    source: str = PROMPTS
    prompts: str | None = ""
    place: str | None = ""
    upload: str = ""
    """Name of an upload; empty where a folder is named."""
    model: str | None = SHIPPED
    per_prompt: Typed = 4
    project: str | None = "default"
    first_seed: Typed = "0"
    steps: Typed = 20
    guidance: float | None = 1.0
    overlap: Typed = 1


def makers(runs: Runs, model: str) -> list[tuple[str, str]]:
    """(label, value) of what can make images: models of this machine, then checkpoints of runs."""
    named = dict.fromkeys([model, SHIPPED])
    _, *steps = checkpoints(runs, model)
    return [*((name, name) for name in named), *steps]


def projects(store: Store, project: str) -> list[str]:
    """All projects that candidates can go to, the app's own first."""
    found = dict.fromkeys([project, *queued_projects(store)])
    return [each for each in found if not holds_comparisons(each)]


def asked(form: Form, *, store: Store, runs: Runs, batches: Batches) -> Asked:
    """The form as what a batch is made of; InputError says what to change.

    Checked is all that can be before a process starts.
    """
    per_prompt = whole("candidates of a prompt", form.per_prompt, least=FEWEST, below=MOST + 1)
    overlap = whole("annotators per set", form.overlap or 1, least=1, below=MOST_ANNOTATORS + 1)
    project = _project(store, form.project, "texts" if form.source == TEXTS else "images")
    if form.source == IMAGES:
        place = _folder(form.place, form.upload, batches, least=min(per_prompt, 2))
        return Asked(
            source="images",
            project=project,
            per_prompt=per_prompt,
            overlap=overlap,
            place=str(place),
            uploaded=bool(form.upload),
        )
    if form.source == TEXTS:
        table = str(_table(form.place))
        return Asked(
            source="texts", project=project, per_prompt=per_prompt, overlap=overlap, place=table
        )
    prompts = _prompts(form.prompts)
    images = len(prompts) * per_prompt
    if images > MOST_MADE:
        raise InputError(
            f"{images:,} images: expected at most {MOST_MADE:,} in a batch; take fewer prompts or "
            "candidates of each"
        )
    guidance = 1.0 if form.guidance is None else form.guidance
    if not 1 <= guidance <= MOST_GUIDANCE:
        raise InputError(f"guidance: expected 1 (off) to {MOST_GUIDANCE:g}, got {guidance:g}")
    model, adapter, maker = _maker(form.model, runs)
    typed = form.first_seed if str(form.first_seed or "").strip() else "0"
    return Asked(
        source="prompts",
        project=project,
        per_prompt=per_prompt,
        overlap=overlap,
        prompts=prompts,
        model=model,
        adapter=adapter,
        maker=maker,
        first_seed=whole("first seed", typed, least=0, below=LARGEST_SEED - images),
        steps=whole(
            "steps", 20 if form.steps is None else form.steps, least=1, below=MOST_STEPS + 1
        ),
        guidance=guidance,
    )


def refuse_what_is_not_offered(form: Form, *, runs: Runs, model: str) -> None:
    """InputError for a form that names a path of this machine, or a model beyond the list."""
    if form.source == TEXTS:
        raise InputError("texts: tables of this machine are for admins; ask one of them")
    if form.source == IMAGES and not form.upload:
        raise InputError(
            "images: folders of this machine are for admins; send the images from yours"
        )
    if form.source == PROMPTS and form.model not in {value for _, value in makers(runs, model)}:
        raise InputError("made by: models that are not in the list are for admins; choose one")


def _prompts(written: str | None) -> tuple[str, ...]:
    if not (written or "").strip():
        raise InputError("prompts: write at least one, one per line, or open a text file of them")
    prompts = prompts_in(written or "", "prompts")
    for prompt in prompts:
        validation.text("prompts", prompt)
    return prompts


def _project(store: Store, typed: str | None, samples: Samples) -> str:
    name = (typed or "").strip()
    if not name:
        raise InputError("project: choose one, or write the name of a new one")
    if holds_comparisons(name):
        raise InputError(
            f"project {name}: comparisons of models belong there, which no reward may learn from; "
            f"choose another, such as {name.removesuffix(COMPARISONS) or 'default'}"
        )
    if has_items(store, name, samples):
        return name
    if not has_items(store, name):
        check_name(name, what="project")
    else:
        other = "texts" if samples == "images" else "images"
        raise InputError(
            f"project {name}: expected one of {samples}, got one of {other}; choose another, or "
            "write the name of a new one"
        )
    return name


def _maker(chosen: str | None, runs: Runs) -> tuple[str, str, str]:
    """Model, adapter, and what the page calls them."""
    name = (chosen or "").strip()
    if not name:
        raise InputError("made by: choose a model or a checkpoint")
    run, _, step = name.partition("/")
    if STEP.fullmatch(step):
        folder = checkpoint_folder(runs, name)  # or InputError: gone meanwhile
        labels = {value: label for label, value in checkpoints(runs, run)}
        return "", str(folder.absolute()), labels.get(name, name)
    checks.refuse_missing_model("made by", name, runs=runs)
    here = Path(name).expanduser()
    if name != SHIPPED and here.is_dir() and not (here / "model_index.json").is_file():
        raise InputError(
            f"made by: {name}: expected a folder in diffusers' layout, with model_index.json, "
            "found none in it; name the folder of a model"
        )
    return (str(here) if here.exists() else name), "", name


def _folder(typed: str | None, upload: str, batches: Batches, *, least: int) -> Path:
    if upload:
        folder = batches.uploads.path(upload)
    else:
        if not (typed or "").strip():
            raise InputError("images: name a folder of this machine, or send images from yours")
        folder = Path((typed or "").strip()).expanduser().absolute()
    if len(_images_in(folder)) < least:
        expected = "two or more images of a prompt" if least > 1 else "an image"
        raise InputError(f"{folder}: expected {expected}, got fewer images")
    return folder.absolute()


def _images_in(folder: Path) -> list[Path]:
    try:
        return image_files(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); choose another") from None


def _table(typed: str | None) -> Path:
    if not (typed or "").strip():
        raise InputError("texts: name a table of this machine, JSON lines or parquet")
    path = Path((typed or "").strip()).expanduser().absolute()
    if not path.exists():
        raise InputError(f"{path}: expected a table of texts, got nothing; check the name")
    if path.is_file() and path.suffix.lower() not in TABLES:
        raise InputError(
            f"{path}: expected a table, {' or '.join(TABLES)}, got {path.suffix or 'no ending'!r}"
        )
    return path


# --- before the start


def outlook(wanted: Asked, store: Store, batches: Batches, *, at_once: bool = False) -> list[Line]:
    """What there is to say of a batch before it is made: work, time, disk.

    `at_once` leaves out what waits for libraries.
    """
    if wanted.source == "texts":
        return [
            Line(
                "Work",
                f"the texts of {Path(wanted.place).name}, {_together(wanted)}",
            )
        ]
    if wanted.source == "images":
        images = _images_in(Path(wanted.place))
        bytes_there = sum(path.stat().st_size for path in images)
        return [
            Line("Work", f"{counted(len(images), 'image')}, {_together(wanted)}"),
            Line("Disk", f"about {size(bytes_there)} for copies in the store; {_free(store)}"),
        ]
    images_made = wanted.num_images
    work = (
        f"{counted(len(wanted.prompts), 'prompt')}, {counted(images_made, 'image')}, "
        f"{images_made * wanted.steps:,} sampling steps"
    )
    return [
        Line("Work", work),
        Line("Time", _time(wanted, batches)),
        Line("Disk", _free(store) if at_once else _disk(wanted, store)),
        Line("To rank", _sets(wanted)),
    ]


ALONE = "one by one, to like or dislike"


def _sets(wanted: Asked) -> str:
    number = len(wanted.prompts) * wanted.overlap
    if wanted.per_prompt == 1:
        return f"{number} {ALONE}"
    return f"{counted(number, 'set')} of {wanted.per_prompt}"


def _together(wanted: Asked) -> str:
    return ALONE if wanted.per_prompt == 1 else f"up to {wanted.per_prompt} of a prompt together"


def _time(wanted: Asked, batches: Batches) -> str:
    steps = wanted.num_images * wanted.steps
    pace = batches.pace(wanted.maker)
    if pace is not None:
        return f"about {duration(pace * steps)}, by what was made here last"
    if wanted.model == SHIPPED:
        return f"about {duration(SHIPPED_PACE * steps)} on two cores; elsewhere it differs"
    return "not known before the first images of this model"


def _disk(wanted: Asked, store: Store) -> str:
    pixels = _pixels(wanted)
    if pixels is None:
        return _free(store)
    return f"about {size(int(wanted.num_images * pixels * BYTES_OF_A_PIXEL))}; {_free(store)}"


def _free(store: Store) -> str:
    return f"{size(shutil.disk_usage(store.images.root).free)} are free"


def _local_model(wanted: Asked) -> str | None:
    """The model's name where its settings lie on this machine."""
    load_libraries()
    from imgalign.runs.folder import model_under

    name = model_under(Path(wanted.adapter)) if wanted.adapter else wanted.model
    return name if name == SHIPPED or Path(name).expanduser().exists() else None


def _pixels(wanted: Asked) -> int | None:
    try:
        model = _local_model(wanted)
        if model is None:
            return None
        from imgalign.diffusion.generate import planned_size

        width, height = planned_size(model)
    except ImgalignError:  # said by `remarks`
        return None
    return width * height


def remarks(wanted: Asked) -> list[str]:
    """What will not be as somebody may expect; InputError for a model that cannot be used."""
    if wanted.source != "prompts":
        return []
    model = _local_model(wanted)
    if model is None:
        return [f"{wanted.maker} is not on this machine: it is fetched from the hub first"]
    from imgalign.diffusion.generate import unread_ends

    return unread(unread_ends(model, wanted.prompts))


def unread(ends: dict[str, str]) -> list[str]:
    """One line on prompts that are longer than the model reads."""
    if not ends:
        return []
    prompt, end = next(iter(ends.items()))
    one = len(ends) == 1
    return [
        f"{there_are(len(ends), 'prompt')} longer than this model reads: "
        f'of "{_short(prompt)}" the end "{_short(end)}" has no effect; shorten '
        f"{'it' if one else 'them'}"
    ]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
