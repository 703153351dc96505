"""What a run came to: its best iteration and why, its files, and what to do with them next.

Read from the run's folder, so that it is the same after a restart and for runs of a terminal. Left
out: drawing it (assets/monitor.js), and comparing on new prompts (`imgalign evaluate`).
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from imgalign.config import read_mapping
from imgalign.errors import ImgalignError
from imgalign.files import read_json
from imgalign.prompts import Prompts
from imgalign.runs.checkpoint import STEP
from imgalign.runs.folder import CONFIG, PROMPTS, SHIPPED, run_prompts
from imgalign.runs.metric_table import METRICS
from imgalign.runs.status import KILLED
from ui.exports import Download, downloads
from ui.links import generate_link, in_the_app
from ui.runs import Run

Curve = Sequence[tuple[int, float]]
"""(iteration, value), in the order it was measured."""

HIGHER_IS_BETTER: Mapping[str, bool] = {"held_out_reward": True, "held_out_preference_loss": False}
"""The metrics that decide which iteration is best; the first that was measured does."""
KL = ("held_out_kl", "kl")
KEYS = (*HIGHER_IS_BETTER, *KL)
"""What `verdict` reads of metrics.jsonl."""

EVALUATION = Path("evaluation", "evaluation.json")
"""In a run: what `imgalign evaluate` found."""

NUMBER = re.compile(r"\d+")
TERMINAL = re.compile(r"(?:resume|go on) with --resume\b(?! policy)|resume to continue\b")
"""How a message tells a person at a terminal to go on."""
OUT_OF_MEMORY = re.compile(r"out of memory|cannot allocate memory|MemoryError", re.IGNORECASE)
MORE_MEMORY = "lower policy.batch_size, or set policy.gradient_checkpointing=true"
FAULT = re.compile(r"[A-Z]\w*(?:Error|Exception)(?::|$)")
"""The last line of a traceback: nobody wrote it for a person."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Won:
    """How often the aligned sample was better; a tie counts half."""

    rate: Rate
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class Judged:
    """By the judge, and by the reward model that training maximised."""

    win_rate: Won | None = None
    proxy_win_rate: Won | None = None


@dataclass(frozen=True, slots=True)
class Aligned:
    """What was measured."""

    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What the page says of evaluation.json; all else in it is left out."""

    summary: Judged
    aligned: Aligned


MEASURED = TypeAdapter(Measured)


class Command(NamedTuple):
    """For a terminal. Example: ("Compare with the base", "imgalign evaluate runs/a")."""

    why: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the page says of a run that is over."""

    headline: str
    facts: Sequence[str]
    """Sentences with the numbers."""
    path: str
    """The folder to take along: the best checkpoint, or the run where it has none."""
    compare: str
    """The Generate page with that checkpoint, to show it beside its base; empty where it cannot."""
    downloads: Sequence[Download]
    """What the checkpoint can be taken home as."""
    commands: Sequence[Command]


def verdict(run: Run, folder: Path, series: Mapping[str, Curve]) -> Verdict | None:
    """What a run that has ended came to; None while it goes on, and before its first checkpoint."""
    checkpoint = run.recommended
    if run.state not in ("finished", "stopped", "failed") or checkpoint is None:
        return None
    measured = [key for key in HIGHER_IS_BETTER if series[key]]
    chosen = _number(checkpoint)
    facts = [*_compared(folder)]
    facts += [_of_curve(measured[0], series[measured[0]], chosen)] if measured else []
    if (kl := _kl_at(series, chosen)) is not None:
        facts.append(f"KL at iteration {chosen}: {kl:.3g} nats per sample.")
    policy = _section(folder, "policy")
    shown = policy.get("kind", "diffusion") != "language"
    return Verdict(
        headline=("" if run.state == "finished" else "So far: ")
        + _headline(measured, series, chosen, is_best=checkpoint == run.best),
        facts=facts,
        path=str((folder / checkpoint).resolve()),
        compare=generate_link(f"{run.name}/{checkpoint}") if shown else "",
        downloads=downloads(folder / checkpoint),
        commands=_commands(folder, policy),
    )


def _compared(folder: Path) -> Sequence[str]:
    """How often a checkpoint beat its base on new prompts, where that was measured."""
    file = folder / EVALUATION
    try:
        return _read_comparison(file, _changed(file))
    except OSError:
        return ()


@lru_cache(maxsize=32)
def _read_comparison(file: Path, changed: int) -> Sequence[str]:
    try:
        found = MEASURED.validate_python(read_json(file))
    except ValueError:
        return (f"{file}: no evaluation of this version; evaluate again.",)
    won, by = found.summary.win_rate, ""
    if won is None:
        won, by = found.summary.proxy_win_rate, ", by the reward model it was trained on"
    if won is None:
        return ()
    name = Path(found.aligned.adapter or "").name
    what = f"Iteration {_number(name)}" if STEP.fullmatch(name) else "It"
    value, low, high = (None if each is None else f"{100 * each:.0f}" for each in astuple(won.rate))
    interval = "" if low is None or high is None else f" ({low} to {high} %)"
    return (
        f"{what} beats its base in {value} % of {won.wins + won.ties + won.losses} blind "
        f"comparisons on new prompts{interval}{by}.",
    )


def _headline(
    measured: Sequence[str], series: Mapping[str, Curve], chosen: int, *, is_best: bool
) -> str:
    if not measured:
        return (
            f"Use iteration {chosen}, the last one: nothing was measured on held-out prompts, so "
            "none is known to be better"
        )
    key, curve = measured[0], series[measured[0]]
    name = METRICS[key].title.lower()
    if not is_best:
        return f"Use iteration {chosen}, the last one, with care: no iteration has a better {name}"
    higher = HIGHER_IS_BETTER[key]
    value, start = dict(curve).get(chosen), curve[0]
    extreme = (max if higher else min)(each for _, each in curve)
    where = "measured" if value == extreme else "within the limits of the run"
    reason = f"its {name} is the {'highest' if higher else 'lowest'} {where}"
    if value is not None and start[0] == 0 and (value > start[1]) != higher:
        return f"Iteration {chosen} is the best, and no better than the start: {reason}"
    return f"Use iteration {chosen}: {reason}"


def _of_curve(key: str, curve: Curve, chosen: int) -> str:
    start, last, at = curve[0], curve[-1], dict(curve).get(chosen)
    began = "at the start" if start[0] == 0 else f"at iteration {start[0]}"
    parts = [f"{start[1]:.4g} {began}"]
    if at is not None and chosen not in (start[0], last[0]):
        parts.append(f"{at:.4g} at iteration {chosen}")
    if last[0] != start[0]:
        parts.append(f"{last[1]:.4g} at iteration {last[0]}, the last measured")
    return f"{METRICS[key].title}: {', '.join(parts)}."


def _kl_at(series: Mapping[str, Curve], step: int) -> float | None:
    return next((value for key in KL if (value := dict(series[key]).get(step)) is not None), None)


def _number(checkpoint: str) -> int:
    found = NUMBER.search(checkpoint)
    return int(found[0]) if found else 0


def _section(folder: Path, name: str) -> Mapping[str, Any]:
    """A section of a run's settings; empty where it cannot be read."""
    try:
        section = _read_settings(folder / CONFIG, _changed(folder / CONFIG)).get(name)
    except (ImgalignError, OSError):
        return {}
    return section if isinstance(section, dict) else {}


# The page looks every few seconds, and these files hardly ever change.
@lru_cache(maxsize=32)
def _read_settings(path: Path, changed: int) -> Mapping[str, Any]:
    return read_mapping(path)


@lru_cache(maxsize=4)
def _read_prompts(folder: Path, changed: int) -> Prompts:
    return run_prompts(folder)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


def _commands(folder: Path, policy: Mapping[str, Any]) -> list[Command]:
    run = shlex.quote(str(folder))
    prompts = "" if policy.get("model", SHIPPED) == SHIPPED else " prompts=my_prompts.txt"
    evaluate = Command(
        "Measure it against its base on new prompts", f"imgalign evaluate {run}{prompts}"
    )
    full = policy.get("train") == "full"
    if policy.get("kind") == "language":
        layout, where = ("transformers" if full else "peft"), "other tools"
    else:
        layout = "diffusers" if full else "kohya"
        where = "diffusers" if full else "ComfyUI, AUTOMATIC1111 and Forge"
    take = Command(f"Take it to {where}", f"imgalign export {run} --format {layout}")
    return [evaluate, take]


def sample_prompts(run: Run, folder: Path) -> list[str]:
    """The prompts of the rows of a sample grid, the first row first; empty where unknown."""
    if not run.samples:
        return []
    try:
        prompts = _read_prompts(folder, _changed(folder / PROMPTS))
    except (ImgalignError, OSError):
        return []
    samples = _section(folder, "run").get("samples")
    rows = samples.get("num_prompts") if isinstance(samples, dict) else None
    rows = rows if isinstance(rows, int) else 6
    return list((prompts.held_out + prompts.training)[:rows])


def message_for_page(run: Run, *, admin: bool = True) -> str:
    """Why a run ended and how to go on, for a person who sees a button and no terminal.

    Others than admins see no button either.
    """
    message = run.message.removeprefix("error: ")
    on = "go on with Resume" if admin else "an admin can resume it"
    message = in_the_app(TERMINAL.sub(on, message) if run.resumable else message)
    if run.resumable and run.state == "stopped" and on not in message:
        message = f"{message or 'stopped'}; {on}"
    if run.state == "stopped" and KILLED in message:
        cure = MORE_MEMORY if admin else "an admin can start it with less"
        message = f"{message}; if that happens again, the memory may not be enough: {cure}"
    if run.state != "failed":
        return message
    if OUT_OF_MEMORY.search(message):
        cure = MORE_MEMORY if admin else "an admin can start it again with less"
        return f"{message}; the memory was not enough: {cure}"
    if FAULT.match(message):
        return f"{message}; this is a fault of the program: the log below says where it happened"
    return message
