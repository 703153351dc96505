"""Plot the training curves of the storybook's models from their logs.

    python benchmarks/training_curves.py

Reads benchmarks/results/training/*.jsonl, which are unchanged copies of the training folders'
`log.jsonl`, and writes training.png beside them. Stages of one model follow each other in its file.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt

LOGS = Path(__file__).parent / "results" / "training"
SHOWN = {
    "autoencoder": ("psnr", "PSNR of a batch, dB"),
    "pipeline": ("loss", "v-prediction loss of a batch"),
    "distillation": ("loss", "distance to the teacher of a batch"),
    "clip": ("retrieved", "retrieved among the batch's captions"),
    "verifier": ("kind", "cross-entropy of the object, nats"),
}
WINDOW = 8
"""Log lines, of 50 steps each, that the thick line averages over."""


def main() -> None:
    """Draw all of them."""
    figure, panels = plt.subplots(1, len(SHOWN), figsize=(16, 3.2), layout="constrained")
    for panel, (name, (key, label)) in zip(panels, SHOWN.items(), strict=True):
        lines = (LOGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        samples = [record["samples"] / 1000 for record in records]
        values = [record[key] for record in records]
        smooth = [
            sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW)
            for i in range(len(values))
        ]
        panel.plot(samples, values, color="#d9a98c", linewidth=0.8)
        panel.plot(samples, smooth, color="#b4532a", linewidth=1.8)
        panel.set(title=name, xlabel="thousand samples", ylabel=label)
        panel.set_ylim(*limits(values))
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(LOGS.parent / "training.png", dpi=110)


def limits(values: list[float]) -> tuple[float, float]:
    """Without the first tenth, which is far off and would flatten the rest."""
    rest = values[len(values) // 10 :]
    margin = 0.08 * (max(rest) - min(rest))
    return min(rest) - margin, max(rest) + margin


if __name__ == "__main__":
    main()
