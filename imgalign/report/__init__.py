"""What happened in a run, as one page that anyone can open, print or send.

`write_report` reads a run folder, finished or not, and leaves report.html in it: no script, no
request, everything inside. A section whose input is missing is one line that says what to run.
`before_after` makes the picture to share.
"""

from pathlib import Path

from imgalign.evaluate import FOLDER
from imgalign.files import reporting_full_disk, write_atomically
from imgalign.pictures import write_png
from imgalign.report import gallery, page, sections
from imgalign.report.record import RunRecord, read_run
from imgalign.report.sheets import before_after

__all__ = ["PAGE", "SHEET", "before_after", "write_report"]

PAGE = "report.html"
SHEET = "before_after.png"
NUM_ON_SHEET = 8


def write_report(
    run: Path,
    *,
    reward: Path | None = None,
    evaluation: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write the report of a run, and before_after.png beside its evaluation; returns the page.

    `reward` is the folder of the reward model, by default the one that the run's settings name;
    `evaluation` another folder than the run's own; `out` another file than report.html in the run.
    InputError where there is no run, or where a file that is there cannot be read.
    """
    record = read_run(run, reward=reward, evaluation=evaluation)
    target = out or run / PAGE
    with reporting_full_disk(run, "writing the report"):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, render(record))
        if record.evaluation and record.base and record.aligned:
            chosen = gallery.evenly(record.evaluation, NUM_ON_SHEET)
            sheet = before_after(
                [record.base[i] for i in chosen],
                [record.aligned[i] for i in chosen],
                [record.evaluation.pairs[i].prompt for i in chosen],
                subtitle=record.evaluation.verdict(),
            )
            write_png(sheet, (evaluation or run / FOLDER) / SHEET)
    return target


def render(record: RunRecord) -> str:
    """The page of a run."""
    return page.page(
        f"imgalign: {record.folder.name}",
        [
            sections.headline(record),
            gallery.hero(record),
            sections.pipeline(record),
            sections.training(record),
            sections.by_form(record),
            sections.gold_and_reward(record),
            sections.reward_model(record),
            gallery.evolution(record),
            gallery.worse(record),
            gallery.better(record),
            sections.origin(record),
        ],
    )
