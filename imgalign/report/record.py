"""Everything a run folder tells, gathered for its report; what is missing is None or empty."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from imgalign.config import load_config
from imgalign.errors import InputError
from imgalign.evaluate.evaluation import FILE, FOLDER, Evaluation, load_evaluation
from imgalign.evaluate.saved_images import Side, load_side
from imgalign.evaluate.texts import load_texts
from imgalign.evaluate.votes import VoteResult, load_votes
from imgalign.files import recover_missing
from imgalign.preferences.fit_report import REPORT_FILE, FitReport, read_fit_report
from imgalign.preferences.records import Samples
from imgalign.runs.folder import CONFIG, METRICS, SAMPLES
from imgalign.runs.metrics import Value, read_metrics
from imgalign.runs.old_format import refuse_old
from imgalign.runs.status import RunStatus, read_status
from imgalign.train.config import TrainConfig
from imgalign.train.data.judged import RECORD as RANKINGS
from imgalign.train.data.judged import read_record

SAMPLE_FILE = re.compile(r"step-(\d{6,12})\.(?:png|json)")
LARGEST = 1e300
"""No number of a run is near it; plots of larger ones overflow."""
LAST_ITERATION = 2**53
"""Iterations above it are damage: plots cannot tell them apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as far as it has come."""

    folder: Path
    settings: TrainConfig
    metrics: Sequence[dict[str, Value]]
    status: RunStatus | None
    grids: Sequence[tuple[int, Path]]
    """Iteration and file of each grid of samples, or of each list of texts, oldest first."""
    reward: FitReport | None
    reward_folder: Path | None
    evaluation: Evaluation | None
    votes: VoteResult | None = None
    """What annotators said of pairs, where it was counted."""
    num_rankings: int = 0
    """Of given samples, where a run keeps such."""
    base: Sequence[Image.Image | str] = field(default=())
    """Samples of the evaluation, in the order of its pairs; empty where they were not kept."""
    aligned: Sequence[Image.Image | str] = field(default=())

    @property
    def samples(self) -> Samples:
        """What the run makes."""
        return self.settings.policy.samples

    @property
    def iterations(self) -> int:
        """How many are done."""
        return max((int(record["step"] or 0) for record in self.metrics), default=0)

    @property
    def num_images(self) -> int:
        """Made for training so far, or learned from where they were given."""
        data = self.settings.data
        if data.gives == "rollouts":
            return self.iterations * (data.groups or 0) * data.images_of_a_prompt
        if data.gives == "demonstrations":
            return round(sum(value for _, value in self.series("samples_used")))
        seconds = dict(self.series("seconds"))
        speed = self.series("images_per_second")
        return round(sum(value * seconds.get(iteration, 0.0) for iteration, value in speed))

    @property
    def seconds(self) -> float:
        """Of all iterations together."""
        return sum(value for _, value in self.series("seconds"))

    def series(self, key: str) -> list[tuple[int, float]]:
        """(iteration, value) of a metric, where it is a finite number."""
        values = [(int(record["step"] or 0), record.get(key)) for record in self.metrics]
        return [
            (iteration, float(value))
            for iteration, value in values
            if isinstance(value, int | float)
            and abs(value) < LARGEST
            and iteration < LAST_ITERATION
        ]


def read_run(
    folder: Path, *, reward: Path | None = None, evaluation: Path | None = None
) -> RunRecord:
    """What is in a run folder, finished or not.

    `reward` is the folder of the reward model, by default the one that the settings name;
    `evaluation` a folder outside the run. InputError where there is no run, or where a file that is
    there cannot be read.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no run here (no {CONFIG}); give the folder of a run")
    refuse_old(folder)
    settings = load_config(TrainConfig, folder / CONFIG)
    place = evaluation or folder / FOLDER
    found = load_evaluation(place) if (place / FILE).is_file() else None
    if evaluation is not None and found is None:
        raise InputError(f"{evaluation}: no {FILE} here; give the folder of an evaluation")
    rewarded = reward or reward_folder(settings)
    if reward is not None and not was_fitted(reward):
        raise InputError(f"{reward}: no {REPORT_FILE} here; give the folder of a reward model")
    images = place / found.images if found else place
    rankings = folder / RANKINGS
    return RunRecord(
        folder=folder,
        settings=settings,
        metrics=read_metrics(folder / METRICS),
        status=read_status(folder),
        grids=sample_grids(folder),
        reward=None if rewarded is None else read_fit_report(rewarded),
        reward_folder=rewarded,
        evaluation=found,
        votes=load_votes(place),
        num_rankings=len(read_record(rankings)) if rankings.is_file() else 0,
        base=side_of(found, images, "base"),
        aligned=side_of(found, images, "aligned"),
    )


def side_of(
    found: Evaluation | None, folder: Path, side: Side
) -> Sequence[Image.Image] | Sequence[str]:
    """The samples of one side of an evaluation; empty where they are missing."""
    if found is None:
        return []
    if found.samples == "texts":
        return load_texts(folder, side, count=len(found.pairs))
    return load_side(folder, side, count=len(found.pairs), columns=found.images_per_prompt)


def reward_folder(settings: TrainConfig) -> Path | None:
    """Where the reward that was maximised is, if it is one that was fitted here."""
    path = settings.reward.path
    return Path(path) if path and was_fitted(Path(path)) else None


def was_fitted(reward: Path) -> bool:
    """Whether a fitted reward is in a folder; one whose replacement was interrupted is put back."""
    recover_missing(reward)
    return (reward / REPORT_FILE).is_file()


def sample_grids(folder: Path) -> list[tuple[int, Path]]:
    """The samples that were made on the way, oldest first."""
    found = ((SAMPLE_FILE.fullmatch(path.name), path) for path in (folder / SAMPLES).glob("step-*"))
    return sorted((int(match[1]), path) for match, path in found if match and path.is_file())
