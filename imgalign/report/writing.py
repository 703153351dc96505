"""What happened in a run, as one page that anyone can open, print or send.

`write_report` reads a run folder, finished or not, and leaves report.html in it: no script, no
request, everything inside. A section whose input is missing is one line that says what to run.
`before_after` makes the image to share.
"""

from pathlib import Path

from imgalign.errors import InputError
from imgalign.evaluate.evaluation import FOLDER
from imgalign.files import lock_name, reporting_full_disk, write_atomically
from imgalign.images import write_png
from imgalign.report import gallery, page, sections
from imgalign.report.record import RunRecord, read_run
from imgalign.report.sheets import SHEET, before_after
from imgalign.report.voting import votes

__all__ = ["PAGE", "SHEET", "before_after", "write_report"]

PAGE = "report.html"


def write_report(
    run: Path,
    *,
    reward: Path | None = None,
    evaluation: Path | None = None,
    out: Path | None = None,
) -> Path:
    """Write the report of a run, and of images before_after.png beside its evaluation.

    Returns the page.

    `reward` is the folder of the reward model, by default the one that the run's settings name;
    `evaluation` another folder than the run's own; `out` another file than report.html in the run.
    InputError where there is no run, where a file that is there cannot be read, or where `out` is
    something else than an earlier report.
    """
    if out is not None:
        refuse_foreign(out)
    record = read_run(run, reward=reward, evaluation=evaluation)
    target = out or run / PAGE
    with lock_name(target), reporting_full_disk(run, "writing the report"):
        write_atomically(target, render(record))
        sheet = gallery.sheet_of(record)
        if sheet is not None:
            write_png(sheet, (evaluation or run / FOLDER) / SHEET)
    return target


def refuse_foreign(out: Path) -> None:
    """InputError where a file is there that is no report."""
    if out.is_dir():
        raise InputError(f"{out}: expected a file for the report, got a folder; add a file name")
    if out.exists():
        with out.open("rb") as file:
            if page.GENERATOR.encode() not in file.read(4096):
                raise InputError(f"{out}: is no report of imgalign; choose another name")


def render(record: RunRecord) -> str:
    """The page of a run."""
    return page.page(
        f"imgalign: {record.folder.name}",
        [
            sections.headline(record),
            gallery.hero(record),
            sections.pipeline(record),
            sections.training(record),
            sections.by_slice(record),
            sections.oracle_and_reward(record),
            votes(record),
            sections.reward_model(record),
            gallery.evolution(record),
            gallery.worse(record),
            gallery.better(record),
            sections.origin(record),
        ],
    )
