"""How far an aligned checkpoint is from its base: the KL per image that its run measured."""

from dataclasses import dataclass
from pathlib import Path

from imgalign.config import load_config, read_mapping
from imgalign.runs.checkpoint import STEP, step_of
from imgalign.runs.folder import CONFIG, METRICS
from imgalign.runs.metrics import read_metrics
from imgalign.runs.old_format import is_old
from imgalign.runs.trained import find_weights
from imgalign.train.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """KL(policy ‖ pretrained) per image in nats, as the run measured it."""

    nats: float
    budget_nats: float | None = None
    source: str = ""
    """Where the number is from. Example: "held-out prompts, iteration 40"."""


def drift_of(run: Path, adapter: Path) -> Drift | None:
    """The KL of a checkpoint of a run, from its metrics; None where they do not have it.

    On held-out prompts at that iteration; else on the training images of the next iteration, which
    is measured before its update and so for the same weights.
    """
    folder = find_weights(adapter)
    if not STEP.fullmatch(folder.name):
        return None
    step, budget = step_of(folder), None
    if not is_old(read_mapping(run / CONFIG)):
        budget = load_config(TrainConfig, run / CONFIG).run.kl_budget_nats
    for key, at, what in (("held_out_kl", step, "held-out"), ("kl", step + 1, "training")):
        for record in read_metrics(run / METRICS):
            value = record.get(key)
            if record["step"] == at and isinstance(value, int | float):
                source = f"{what} prompts, iteration {step}"
                return Drift(nats=float(value), budget_nats=budget, source=source)
    return None
