"""TRL's trainers on a language model: CPU seconds of each step, passes through it, memory.

    python benchmarks/peers/language.py dpo MODEL --data pairs.jsonl --out out.json

It runs in an environment of its own (trl 1.16). `compare_peers.py` calls it beside the same work of
imgalign: all weights, one forward pass with gradients and one optimizer step for each batch.
"""

import argparse
import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from measuring import Meter, peak_memory_gb, write
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

Row: TypeAlias = dict[str, Any]


class Laps(TrainerCallback):
    """A lap of the meter at each optimizer step."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Everything is loaded."""
        self.meter.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The optimizer has made its step."""
        self.meter.lap("total")


def said(role: str, text: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": role, "content": text}]


def pair_rows(lines: list[Row]) -> list[Row]:
    """Pairs in TRL's columns."""
    return [
        {
            "prompt": said("user", line["prompt"]),
            "chosen": said("assistant", line["chosen"]),
            "rejected": said("assistant", line["rejected"]),
        }
        for line in lines
    ]


def label_rows(lines: list[Row]) -> list[Row]:
    """The same texts as likes and dislikes, by turns."""
    return [
        {
            "prompt": said("user", line["prompt"]),
            "completion": said("assistant", line[which]),
            "label": which == "chosen",
        }
        for line in lines
        for which in ("chosen", "rejected")
    ]


def dataset(rows: list[Row]) -> Any:
    """As TRL takes them."""
    return importlib.import_module("datasets").Dataset.from_list(rows)


def common(given: argparse.Namespace, folder: str, *, texts: int, meter: Meter) -> dict[str, Any]:
    """Settings of every trainer: `texts` examples in a batch, a constant learning rate."""
    return {
        "config": {
            "output_dir": folder,
            "per_device_train_batch_size": texts,
            "max_steps": given.epochs,
            "learning_rate": given.rate,
            "lr_scheduler_type": "constant",
            "gradient_checkpointing": False,
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 10**9,
            "disable_tqdm": True,
            "seed": 0,
        },
        "trainer": {
            "processing_class": AutoTokenizer.from_pretrained(given.model),
            "callbacks": [Laps(meter)],
        },
    }


def with_reference(given: argparse.Namespace, meter: Meter) -> dict[str, Any]:
    """The model and the pretrained one, whose passes are counted."""
    models = [AutoModelForCausalLM.from_pretrained(given.model) for _ in range(2)]
    for network in models:
        meter.watch(network)
    return dict(zip(("model", "ref_model"), models, strict=True))


def dpo(trl: Any, given: argparse.Namespace, lines: list[Row], folder: str, meter: Meter) -> Any:
    """DPO on pairs."""
    settings = common(given, folder, texts=given.batch, meter=meter)
    return trl.DPOTrainer(
        args=trl.DPOConfig(**settings["config"]),
        train_dataset=dataset(pair_rows(lines)),
        **with_reference(given, meter),
        **settings["trainer"],
    )


def kto(trl: Any, given: argparse.Namespace, lines: list[Row], folder: str, meter: Meter) -> Any:
    """KTO on likes and dislikes, as many as two to a pair."""
    settings = common(given, folder, texts=2 * given.batch, meter=meter)
    return trl.KTOTrainer(
        args=trl.KTOConfig(loss_type=given.loss, **settings["config"]),
        train_dataset=dataset(label_rows(lines)),
        **with_reference(given, meter),
        **settings["trainer"],
    )


def reward(trl: Any, given: argparse.Namespace, lines: list[Row], folder: str, meter: Meter) -> Any:
    """A reward model on pairs: the body of the model with a new head."""
    settings = common(given, folder, texts=given.batch, meter=meter)
    model = AutoModelForSequenceClassification.from_pretrained(given.model, num_labels=1)
    meter.watch(model)
    return trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(**settings["config"]),
        train_dataset=dataset(pair_rows(lines)),
        **settings["trainer"],
    )


WORK: Mapping[str, Callable[[Any, argparse.Namespace, list[Row], str, Meter], Any]] = {
    "dpo": dpo,
    "kto": kto,
    "reward": reward,
}
"""Each builds a trainer from TRL, settings, pairs and a folder to write to."""


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORK)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16, help="Pairs of a step.")
    parser.add_argument("--epochs", type=int, default=11, help="Steps; the first warms up.")
    parser.add_argument("--rate", type=float, default=1e-4, help="Learning rate.")
    parser.add_argument("--loss", default="kto", choices=["kto", "apo_zero_unpaired"])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # By name: it is no dependency of the project.
    trl = importlib.import_module("trl")
    assert trl.DPOTrainer  # which loads what it needs
    imported, meter = peak_memory_gb(), Meter()
    lines = [json.loads(line) for line in given.data.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        WORK[given.work](trl, given, lines, folder, meter).train()
    write(given.out, rows=[meter.found() | {"imported_gb": imported}])


if __name__ == "__main__":
    main()
