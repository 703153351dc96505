"""imgalign on a language model at the settings of a peer: CPU seconds of each step, passes, memory.

    python benchmarks/peers/our_language.py dpo --data pairs.jsonl --out ours.json

`compare_peers.py` calls it beside the peer. Policies, algorithms and optimizer steps are those of a
training run; the model is the storybook's, with all weights.
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from measuring import Meter, peak_memory_gb, write

from imgalign.algorithms.beta import PerNatConfig
from imgalign.algorithms.objectives import DPOConfig, KTOConfig
from imgalign.algorithms.rankings import RankedBatch
from imgalign.language.config import FullLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.policy import Data
from imgalign.runs.world import Alone
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig

CPU = torch.device("cpu")


def read_lines(file: Path) -> list[dict[str, str]]:
    """JSON lines."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def pair_batch(policy: LanguagePolicy, pairs: Sequence[Mapping[str, str]]) -> RankedBatch:
    """Pairs of texts, the better one first."""
    size = len(pairs)
    return RankedBatch(
        data=both_texts(policy, pairs),
        index=torch.arange(2 * size).view(size, 2),
        ranks=torch.tensor([[0, 1]] * size),
        all_bad=torch.zeros(size, dtype=torch.bool),
        all_good=torch.zeros(size, dtype=torch.bool),
        weights=torch.ones(size),
    )


def label_batch(policy: LanguagePolicy, pairs: Sequence[Mapping[str, str]]) -> RankedBatch:
    """The same texts as likes and dislikes, by turns."""
    size = 2 * len(pairs)
    liked = torch.arange(size) % 2 == 0
    return RankedBatch(
        data=both_texts(policy, pairs),
        index=torch.arange(size)[:, None],
        ranks=torch.full((size, 1), -1),
        all_bad=~liked,
        all_good=liked,
        weights=torch.ones(size),
    )


def both_texts(policy: LanguagePolicy, pairs: Sequence[Mapping[str, str]]) -> Data:
    """Of each pair both texts, one after the other."""
    return policy.encode(
        [pair["prompt"] for pair in pairs for _ in range(2)],
        [text for pair in pairs for text in (pair["chosen"], pair["rejected"])],
    )


def direct_steps(
    given: argparse.Namespace,
    algorithm: DPOConfig | KTOConfig,
    batch_of: Callable[[LanguagePolicy, Sequence[Mapping[str, str]]], RankedBatch],
) -> Meter:
    """Optimizer steps on pairs of texts, all weights, in one forward pass."""
    loaded = load_language_model("storybook", device=CPU)
    config = FullLanguageConfig(batch_size=2 * given.batch)
    policy, meter = LanguagePolicy(loaded, config), Meter()
    optimizer = OptimizerConfig(learning_rate=given.rate)
    learner = build_learner(policy, algorithm=algorithm, optimizer=optimizer, seed=0, world=Alone())
    meter.watch(loaded.model)
    lines, size = read_lines(given.data), given.batch
    meter.begin()
    for iteration in range(given.epochs):
        pairs = [lines[(iteration * size + number) % len(lines)] for number in range(size)]
        learner.update(batch_of(policy, pairs), iteration=iteration)
        meter.lap("total")
    return meter


def dpo(given: argparse.Namespace) -> Meter:
    """DPO on pairs of texts."""
    return direct_steps(given, DPOConfig(beta=PerNatConfig(value=0.1)), pair_batch)


def kto(given: argparse.Namespace) -> Meter:
    """KTO on likes and dislikes; its estimate of the KL is the one of the step before."""
    return direct_steps(given, KTOConfig(beta=PerNatConfig(value=0.1)), label_batch)


WORK: Mapping[str, Callable[[argparse.Namespace], Meter]] = {
    "dpo": dpo,
    "kto": kto,
}


def main() -> None:
    """Do one kind of work and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--data", type=Path, required=True, help="Lines of prompt and texts.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16, help="Pairs of a step.")
    parser.add_argument("--epochs", type=int, default=11, help="Steps; the first warms up.")
    parser.add_argument("--rate", type=float, default=1e-4, help="Learning rate.")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    imported = peak_memory_gb()
    meter = WORK[given.work](given)
    write(given.out, rows=[meter.found() | {"imported_gb": imported}])


if __name__ == "__main__":
    main()
