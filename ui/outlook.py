"""What a run will cost, before it starts: iterations, samples, time, memory and disk.

Figures that were measured are those of the newest finished run here that trained the same model in
the same way; without one, those of a shipped recipe (`ui.measured`), else of the recipe's header.
Everything but counts is an estimate, and says so; so does what is not known.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from imgalign.config import read_mapping
from imgalign.errors import ImgalignError
from imgalign.runs.folder import CONFIG
from ui.measured import Measured, checkpoint_bytes, measured
from ui.recipes import Recipe, settings_with
from ui.runs import Runs

if TYPE_CHECKING:
    from imgalign.train.config import TrainConfig

SAYS = re.compile(r"\b(Time|Hardware)(?: and result)?: ([^.]*(?:\.\d[^.]*)*)\.")
COSTS = ("seconds", "peak_memory_gb", "forward_passes")
DECIDES = (
    *("policy.kind", "policy.model", "policy.num_inference_steps", "policy.max_new_tokens"),
    *("policy.train", "policy.batch_size", "algorithm.name", "data.from"),
)
"""Settings that must be the same for the cost of an iteration to be alike."""


class Line(NamedTuple):
    """One row. Example: ("Time", "about 4 min: 10 s an iteration in the run a (estimate)")."""

    term: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The cost of a finished run that was like this one."""

    name: str
    seconds: float
    """Of an iteration, on average, measurements included."""
    samples: float | None
    """In an iteration; None where nobody knows."""
    memory_gb: float | None
    passes: float | None
    """Of the network, in an iteration."""
    checkpoint_bytes: int


def outlook(settings: "TrainConfig", recipe: Recipe, runs: Runs) -> list[Line]:
    """What there is to say of a run with these settings."""
    iterations, own = settings.run.iterations, samples_of(settings)
    past = like(settings, runs)
    usual = measured_like(settings, recipe) if past is None else None
    said = dict(SAYS.findall(recipe.header))
    unknown = f"not known before a first run of this kind with {settings.policy.model}"
    lines = [Line("Work", _work(settings, own, past))]
    if past is not None:
        scale = own / past.samples if own and past.samples else 1.0
        time = duration(past.seconds * scale * (iterations or 1))
        each = "" if iterations else " an iteration"
        lines.append(Line("Time", f"about {time}{each}, by the run {past.name} on this machine"))
    elif usual is not None and usual.seconds is not None and iterations:
        time = duration(usual.seconds * iterations)
        core = "one core of an AMD EPYC" + (" with AVX-512" if usual.by_avx512 else "")
        lines.append(Line("Time", f"about {time} on {core}; elsewhere it differs"))
    elif "Time" in said and not said["Time"].startswith("not yet run"):
        default = type(settings.run)().iterations
        usually = recipe.section("run").get("iterations", default)
        many = f"{usually} iterations" if usually else "one epoch"
        of = f", for its {many}" if usually != iterations else ""
        lines.append(Line("Time", f"{said['Time']}, says the recipe{of}; elsewhere it differs"))
    else:
        lines.append(Line("Time", unknown))
    if past is not None and past.memory_gb is not None:
        lines.append(Line("Memory", f"about {past.memory_gb:.2g} GB, by the same run"))
    elif usual is not None:
        lines.append(Line("Memory", f"about {usual.memory_gb:.2g} GB, as this recipe was measured"))
    else:
        lines.append(Line("Memory", unknown))
    if past is None and "Hardware" in said:
        lines.append(Line("Machine", f"{said['Hardware']}, says the recipe"))
    lines.append(Line("Disk", _disk(settings, past, runs.folder)))
    return lines


ESTIMATED = "<p>Counts are exact unless the run ends early; the rest is an estimate.</p>"


def table(lines: Sequence[Line], *, note: str = ESTIMATED) -> str:
    """The lines as HTML, with a note below them, HTML as well."""
    rows = "".join(f"<dt>{escape(each.term)}</dt><dd>{escape(each.text)}</dd>" for each in lines)
    return f'<div class="cost"><h3>What it will cost</h3><dl>{rows}</dl>{note}</div>'


def samples_of(settings: "TrainConfig") -> int | None:
    """Samples in an iteration, as far as the settings say it; rankings where these are given."""
    groups = settings.data.groups
    return None if groups is None else groups * max(settings.data.images_of_a_prompt, 1)


def _work(settings: "TrainConfig", own: int | None, past: Past | None) -> str:
    iterations = settings.run.iterations
    if iterations is None:
        return "one epoch: as many iterations as it takes to see every given example once"
    text = f"{iterations} iteration{'s' if iterations > 1 else ''}"
    sampled = settings.data.images_of_a_prompt > 0
    if own is not None and sampled:
        text += f" of {own} {settings.policy.samples}, {iterations * own:,} in all"
    elif own is not None:
        text += f" of up to {own} judgements"
    steps = settings.policy.model_dump().get("num_inference_steps")
    if own is not None and sampled and isinstance(steps, int):
        text += f"; {iterations * own * steps:,} sampling steps"
    if past is not None and past.passes is not None:
        scale = own / past.samples if own and past.samples else 1.0
        text += f"; about {past.passes * scale * iterations:,.0f} passes of the network"
    return text


def _disk(settings: "TrainConfig", past: Past | None, folder: Path) -> str:
    places = (folder.absolute(), *folder.absolute().parents)
    there = next(place for place in places if place.is_dir())
    free = f"{size(shutil.disk_usage(there).free)} are free"
    most = settings.run.keep_checkpoints + 2  # the best and the last stay as well
    if past is not None and past.checkpoint_bytes:
        needed = size(most * past.checkpoint_bytes)
        return f"up to about {needed}: {most} checkpoints like those of {past.name}; {free}"
    each = checkpoint_bytes(settings)
    if each is None:
        return f"up to {most} checkpoints, as large as those of a first run will be; {free}"
    return (
        f"up to about {size(most * each)}: {most} checkpoints of {size(each)}, by the number of"
        f" trained weights; {free}"
    )


def measured_like(settings: "TrainConfig", recipe: Recipe) -> Measured | None:
    """What was measured of the recipe, for as many samples; None where the settings are others."""
    found = measured(recipe)
    if found is None:
        return None
    reward = settings.reward.path  # some recipes are not whole without one
    usual = settings_with(recipe, [] if reward is None else [f"reward.path={json.dumps(reward)}"])
    values = (each.model_dump(mode="json", by_alias=True) for each in (settings, usual))
    asked, known = map(_deciding, values)
    if asked != known:
        return None
    own, of_recipe = samples_of(settings), samples_of(usual)
    scale = own / of_recipe if own and of_recipe else 1.0
    return found if found.seconds is None else found._replace(seconds=found.seconds * scale)


# --- earlier runs


def like(settings: "TrainConfig", runs: Runs) -> Past | None:
    """The newest finished run that trained the same model in the same way."""
    wanted = _deciding(settings.model_dump(mode="json", by_alias=True))
    for run in runs.all():
        if run.state != "finished":
            continue
        folder = runs.path(run.name)
        try:
            values = read_mapping(folder / CONFIG)
            series = runs.metrics(run.name, COSTS)
        except (ImgalignError, OSError):
            continue
        seconds = [value for _, value in series["seconds"]]
        if _deciding(values) != wanted or not seconds:
            continue
        passes = [value for _, value in series["forward_passes"]]
        memory = [value for _, value in series["peak_memory_gb"]]
        last = folder / run.adapters[-1] if run.adapters else None
        return Past(
            name=run.name,
            seconds=sum(seconds) / len(seconds),
            samples=_samples_in(values),
            memory_gb=max(memory, default=None),
            passes=sum(passes) / len(passes) if passes else None,
            checkpoint_bytes=0 if last is None else _bytes_in(last),
        )
    return None


def _deciding(values: Mapping[str, object]) -> list[object]:
    def at(path: str) -> object:
        section, _, key = path.partition(".")
        inside = values.get(section)
        return inside.get(key) if isinstance(inside, dict) else None

    return [at(path) for path in DECIDES]


def _samples_in(values: Mapping[str, object]) -> float | None:
    data = values.get("data")
    if not isinstance(data, dict):
        return None
    prompts, group = data.get("prompts_per_iteration"), data.get("group_size")
    if not isinstance(prompts, int) or not isinstance(group, int):
        return None
    return float(prompts * group)


def _bytes_in(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError:
        return 0


def duration(seconds: float) -> str:
    """Example: "4 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Example: "12 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if count >= factor:
            return f"{count / factor:.{0 if count >= 100 * factor else 1}f} {unit}"
    return f"{max(1, count // 1000)} kB"
