"""Blind comparisons as the Results page shows them: who won, how sure that is, what to do next."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from imgalign.errors import ImgalignError
from imgalign.preferences.comparisons import Comparison
from imgalign.runs.trained import weights_hash
from ui.exports import TOOLS, layouts
from ui.runs import Runs


def cards(found: Sequence[Comparison], *, offered: Callable[[Comparison], str]) -> str:
    """Each as HTML, the latest first; `offered` is what follows, as HTML."""
    shown = "".join(f"<section>{_card(each)}{offered(each)}</section>" for each in found)
    return f'<div class="duels">{shown}</div>' if shown else ""


def downloads(runs: Runs, comparison: Comparison) -> str:
    """Links to take the checkpoint of a comparison home, where it is a run's of this folder."""
    checkpoint = _checkpoint_of(runs, comparison)
    offered = layouts(runs, checkpoint) if checkpoint is not None else ()
    if not (checkpoint and offered and _is_unchanged(runs, checkpoint, comparison)):
        return ""
    links = " · ".join(
        f'<a href="api/exports/{escape(checkpoint)}/{layout}" download>{TOOLS[layout]}</a>'
        for layout in offered
    )
    strength = comparison.one.strength
    how = "" if strength == 1 else f"; use it at strength {strength:g}"
    return f"<p>Take it home as a LoRA for {links}{how}</p>"


def _checkpoint_of(runs: Runs, comparison: Comparison) -> str | None:
    """The checkpoint that is told about by its place in a run, such as "first/step-000024"."""
    folder = Path(comparison.path or "")
    name, step = folder.parent.name, folder.name
    try:
        return f"{name}/{step}" if step in runs.run(name).adapters else None
    except (ImgalignError, OSError):  # made elsewhere, or gone
        return None


def _is_unchanged(runs: Runs, checkpoint: str, comparison: Comparison) -> bool:
    """Whether its weights are those that made the images: another run may have had the name."""
    return weights_hash(runs.folder / checkpoint) == comparison.one.weights


def _card(found: Comparison) -> str:
    state = {"one": "won", "other": "lost", None: "open"}[found.preferred]
    said, *rest = found.lines()
    lines = "".join(f"<p>{escape(line)}.</p>" for line in rest)
    head = f"<h3>{100 * found.rate.value:.0f} % <small>{escape(said)}.</small></h3>"
    return f'<div class="duel" data-state="{state}">{head}{_bar(found)}{lines}</div>'


def _bar(found: Comparison) -> str:
    """The rate on a scale from 0 to 100 %, with the interval that holds whenever one looks."""
    value, low, high = (100 * share for share in found.whenever)
    return (
        f'<span class="range" role="img" aria-label="{low:.0f} to {high:.0f} %">'
        f'<em></em><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<b style="left:{value:.1f}%"></b></span>'
    )
