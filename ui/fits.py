"""Reward models as the app sees them: folders on disk, and the fits that it started.

A fitted model is a folder among the runs with a contract and a report; a fit under way is a process
of `imgalign reward train`, known by `runs/.fits/<name>.json`. Left out: the page (pages/learn.py).
Neither gradio nor torch here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imgalign.errors import InputError
from imgalign.preferences.coverage import ProjectRankings
from imgalign.preferences.fit_report import FitReport, LearnedFrom, read_fit_report
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.records import compares
from imgalign.preferences.store import Store
from ui.libraries import load_libraries
from ui.processes import IMGALIGN, Processes, check_name, check_overrides, last_line
from ui.runs import Runs

FITS = ".fits"
FIT = (*IMGALIGN, "reward", "train")
PICTURE = "reliability.png"
EPOCH = re.compile(r"epoch (\d+)/(\d+)")
SHARE = re.compile(r"(\d+) %")
FROM = re.compile(r"--(project|group)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Where one reward model stands."""

    name: str
    state: Literal["fitting", "fitted", "stopped", "failed"]
    message: str
    """What the fit said last, or why there is no report."""
    share: float | None
    """How far the present part of the fit has come, in [0, 1], where it says so."""
    learned_from: LearnedFrom | None
    """Which rankings of the store; None where nothing says so."""
    stoppable: bool
    folder: Path
    report: FitReport | None


class Fits:
    """The reward models in a folder of runs, and the only place where the app starts a fit.

    `command` is what fits; options are appended to it. `database` is as of `Runs`.
    """

    def __init__(
        self, runs: Runs, *, command: Sequence[str] = FIT, database: str | None = None
    ) -> None:
        self.runs = runs
        self.processes = Processes(
            runs.folder / FITS, command=command, said="imgalign reward train", database=database
        )

    def all(self) -> list[Fit]:
        """Every reward model, those under way first, then the newest."""
        fitted = [path.name for path in self.runs.rewards()]
        others = sorted(self.processes.names() - set(fitted))
        found = [self.fit(name) for name in (*others, *fitted)]
        return sorted(found, key=lambda fit: fit.state != "fitting")

    def fit(self, name: str) -> Fit:
        """One reward model; InputError for a name that could point anywhere else."""
        folder = self.runs.path(name)
        alive, said = self.processes.alive(name), last_line(self.processes.log(name))
        report, message = None, ""
        if not alive and (folder / "contract.json").is_file():
            try:
                report = read_fit_report(folder)
            except InputError as error:
                message = str(error)
            state: Literal["fitting", "fitted", "stopped", "failed"] = "fitted"
        else:
            state = "fitting" if alive else "failed"
            message = said or ("starting" if alive else "it ended before it began")
            if not alive and self.processes.was_stopped(name):
                state, message = "stopped", "stopped before it was done; nothing of it is kept"
        return Fit(
            name=name,
            state=state,
            message=message,
            share=_share(message) if alive else None,
            learned_from=self._learned_from(name, report),
            stoppable=alive,
            folder=folder,
            report=report,
        )

    def launch(
        self, learned_from: ProjectRankings, *, group: str, name: str, overrides: Sequence[str] = ()
    ) -> None:
        """Start `imgalign reward train` on a project's rankings, or on those of one group."""
        check_name(name, what="name")
        check_overrides(overrides)
        folder = self.runs.path(name)
        if self.processes.alive(name) or any(folder.glob("*")):
            raise InputError(f"{folder}: there is something of that name; choose another")
        self.processes.start(
            name,
            [
                *overrides,
                f"--samples={learned_from.samples}",
                f"--project={learned_from.project}",
                *([f"--group={group}"] if group else []),
                f"--out={folder}",
            ],
        )

    def stop(self, name: str) -> None:
        """End a fit; nothing of it is kept."""
        self.processes.stop(name, what=self.runs.path(name))

    def forget(self, name: str) -> None:
        """Take a fit that failed or was stopped, of which nothing is kept, from the list."""
        if self.fit(name).state not in ("stopped", "failed"):
            raise InputError(
                f"{self.runs.path(name)}: not a fit that failed or was stopped; it stays"
            )
        self.processes.forget(name)

    def free_name(self, learned_from: ProjectRankings | None) -> str:
        """A name for the next fit: "reward", then "reward-2", ..."""
        stem = "reward"
        if learned_from is not None and learned_from.samples == "texts":
            stem = "text-reward"
        taken, number, name = self.processes.names(), 1, stem
        while name in taken or self.runs.path(name).exists():
            number += 1
            name = f"{stem}-{number}"
        return name

    def picture(self, name: str) -> Path:
        """The plot of a report; InputError where there is none."""
        path = self.runs.path(name) / PICTURE
        if not path.is_file():
            raise InputError(f"{name}: no picture of a report")
        return path

    def shown(self, name: str) -> frozenset[str]:
        """The samples that the report of a reward model has to be looked at."""
        report = self.fit(name).report
        judged = () if report is None else (*report.disagreements, *report.agreements)
        return frozenset(sample for each in judged for sample in (each.better, each.worse))

    def _learned_from(self, name: str, report: FitReport | None) -> LearnedFrom | None:
        if report is not None and report.learned_from is not None:
            return report.learned_from
        launch = self.processes.launched(name)
        given = [] if launch is None else [FROM.fullmatch(each) for each in launch.command]
        found = {match[1]: match[2] for match in given if match}
        if not found:
            return None
        return LearnedFrom(project=found.get("project"), group=found.get("group"))


def check_fit(
    store: Store, learned_from: ProjectRankings, *, group: str, overrides: Sequence[str]
) -> None:
    """ConfigError or InputError, as the fit would end with, before a process is started for it."""
    check_overrides(overrides)
    load_libraries()
    from imgalign.config import load_config
    from reward_models.outcome import SplitConfig, split
    from reward_models.text_training import TextFitConfig
    from reward_models.training import FitConfig

    kind: type[SplitConfig] = FitConfig if learned_from.samples == "images" else TextFitConfig
    config = load_config(kind, None, overrides)
    found = chosen_rankings(
        store, learned_from.samples, project=learned_from.project, group=group or None
    )
    split([ranking for ranking in found if compares(ranking)], config)


def _share(message: str) -> float | None:
    if match := EPOCH.search(message):
        return int(match[1]) / max(1, int(match[2]))
    return int(match[1]) / 100 if (match := SHARE.search(message)) else None
