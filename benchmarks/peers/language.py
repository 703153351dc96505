"""TRL's DPOTrainer on a language model: CPU seconds of each step, passes through it, memory.

    python benchmarks/peers/language.py MODEL --data pairs.jsonl --out out.json

It runs in an environment of its own (trl 1.16). `compare_peers.py` calls it beside the same work of
imgalign: all weights, one forward pass and one optimizer step for each batch of pairs.
"""

import argparse
import importlib
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

from measuring import Meter, peak_memory_gb, write
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


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


def measured(trl: Any, given: argparse.Namespace, folder: str) -> Meter:
    """Steps of the trainer."""
    lines = [json.loads(line) for line in given.data.read_text(encoding="utf-8").splitlines()]
    data = importlib.import_module("datasets").Dataset.from_list(
        [
            {
                "prompt": said("user", line["prompt"]),
                "chosen": said("assistant", line["chosen"]),
                "rejected": said("assistant", line["rejected"]),
            }
            for line in lines
        ]
    )
    model, reference = (AutoModelForCausalLM.from_pretrained(given.model) for _ in range(2))
    meter = Meter()
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=reference,
        args=trl.DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=given.batch,
            max_steps=given.epochs,
            gradient_checkpointing=False,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            logging_steps=10**9,
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(given.model),
        callbacks=[Laps(meter)],
    )
    for network in (model, reference):
        meter.watch(network)
    trainer.train()
    return meter


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16, help="Pairs of a step.")
    parser.add_argument("--epochs", type=int, default=11, help="Steps; the first warms up.")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    # By name: it is no dependency of the project.
    trl = importlib.import_module("trl")
    assert trl.DPOTrainer  # which loads what it needs
    imported = peak_memory_gb()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(trl, given, folder).found()
    write(given.out, rows=[found | {"imported_gb": imported}])


if __name__ == "__main__":
    main()
