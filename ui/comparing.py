"""Blind comparisons as the Results page shows them: who won, how sure that is, what to do next."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from imgalign.errors import ImgalignError
from imgalign.preferences.comparisons import Comparison
from imgalign.runs.trained import recorded_hash
from ui import exports
from ui.runs import Runs


def cards(found: Sequence[Comparison], *, offered: Callable[[Comparison], str]) -> str:
    """Each as HTML, the latest first; `offered` is what follows, as HTML."""
    shown = "".join(f"<section>{_card(each)}{offered(each)}</section>" for each in found)
    return f'<div class="duels">{shown}</div>' if shown else ""


def downloads(runs: Runs, comparison: Comparison) -> str:
    """Buttons to take the checkpoint of a comparison home, where it is a run's of this folder."""
    checkpoint = checkpoint_of(runs, comparison)
    offered = exports.downloads(checkpoint) if checkpoint is not None else []
    if not offered:
        return ""
    strength = comparison.one.strength
    how = "" if strength == 1 else f"to be used at strength {strength:g}"
    return exports.buttons(offered, "Take it home as a LoRA for", how)


def checkpoint_of(runs: Runs, comparison: Comparison) -> Path | None:
    """The checkpoint of a run of this folder whose images were compared, if it is still there."""
    told = Path(comparison.path or "")
    try:
        run = runs.run(told.parent.name)
        folder = runs.path(run.name) / told.name
        # Another run may have had the name.
        same = told.name in run.adapters and recorded_hash(folder) == comparison.one.weights
    except (ImgalignError, OSError):  # made elsewhere, or gone
        return None
    return folder if same else None


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
