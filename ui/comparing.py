"""Blind comparisons as the Results page shows them: who won, how sure that is, what to do next."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from imgalign.errors import ImgalignError
from imgalign.preferences.both_bad import BothBad
from imgalign.preferences.comparisons import Comparison
from imgalign.preferences.outcomes import Maker
from imgalign.runs.trained import recorded_hash
from ui import exports
from ui.runs import Runs

DRAW_OTHERS = (
    '<p>On the <a href="generate">Generate</a> page draw them on other prompts, or with other '
    "seeds, and send the pairs to ranking.</p>"
)


def cards(found: Sequence[Comparison], *, offered: Callable[[Comparison], str]) -> str:
    """Each as HTML, the latest first; `offered` is what follows, as HTML."""
    shown = "".join(f"<section>{_card(each)}{offered(each)}</section>" for each in found)
    return f'<div class="duels">{shown}</div>' if shown else ""


def downloads(runs: Runs, comparison: Comparison) -> str:
    """Buttons to take home who is preferred, or while that is not decided each of the two; where
    they are checkpoints of runs of this folder.
    """
    sides = {
        "one": (comparison.one, comparison.path),
        "other": (comparison.other, comparison.other_path),
    }
    chosen = sides.values() if comparison.preferred is None else [sides[comparison.preferred]]
    return "".join(_offer(runs, *side) for side in chosen)


def checkpoint_of(runs: Runs, maker: Maker, path: str | None) -> Path | None:
    """The checkpoint of a run of this folder that made images, if it is still there; `path` is
    where it was then.
    """
    told = Path(path or "")
    try:
        run = runs.run(told.parent.name)
        folder = runs.path(run.name) / told.name
        # Another run may have had the name.
        same = told.name in run.adapters and recorded_hash(folder) == maker.weights
    except (ImgalignError, OSError):  # made elsewhere, or gone
        return None
    return folder if same else None


def without_votes(found: Sequence[BothBad]) -> str:
    """Cards of those of which nobody is preferred because both were bad each time."""
    shown = "".join(
        '<section><div class="duel" data-state="open"><h3>Both bad '
        f"<small>{escape(each.line())}.</small></h3>{DRAW_OTHERS}</div></section>"
        for each in found
    )
    return f'<div class="duels">{shown}</div>' if shown else ""


def _offer(runs: Runs, maker: Maker, path: str | None) -> str:
    checkpoint = None if maker.weights is None else checkpoint_of(runs, maker, path)
    offered = exports.downloads(checkpoint) if checkpoint is not None else []
    if checkpoint is None or not offered:
        return ""
    which = f"{checkpoint.parent.name}/{checkpoint.name}"
    how = "" if maker.strength == 1 else f"to be used at strength {maker.strength:g}"
    return exports.buttons(offered, f"Take {which} home for", how)


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
