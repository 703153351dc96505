"""Does a reward need fewer rankings where what tells most is ranked first?

    python benchmarks/active_choice.py runs/demo-seeds/seed-* --results benchmarks/results

Replays the rankings of finished demos, which simulated annotators of the storybook gave. A reward
learns from more and more of them: the first ones are of sets drawn at random; the others are of the
sets that are expected to tell most, by the reward that was fitted last, with a share that is drawn
(`EXPLORED`), or, as the control, all in random order. A set is ranked by all its annotators before
the next, as in the app. Prompts of the validation and test split are never chosen; their rankings
are there from the start, and the accuracy is on the test split. Splits of one demo share rankings,
so their spread is not that of independent studies. Writes active_choice.json.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from algorithms import record

from imgalign.images import read_tensor
from imgalign.preferences.choosing import EXPLORED
from imgalign.preferences.records import Ranking
from imgalign.preferences.store import Store
from imgalign.runs.world import Alone
from reward_models.clip_models import load_towers
from reward_models.data import RankingData, index_rankings
from reward_models.evaluate import judged
from reward_models.features import Features, encode
from reward_models.informative import comparisons, information
from reward_models.outcome import rows_of, share_right, split
from reward_models.training import Attempt, FitConfig, ranking_scores, train_attempt

BUDGETS = (30, 60, 120, 240)
"""Rankings that the training split has at each fit."""
ARMS = ("what tells most first", "random order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Everything that was ranked in a demo, encoded once."""

    config: FitConfig
    data: RankingData
    features: Features
    parts: dict[str, list[Ranking]]

    def items(self) -> dict[str, list[int]]:
        """Rows of the training rankings of each item."""
        found: dict[str, list[int]] = {}
        for row, ranking in enumerate(self.parts["train"]):
            found.setdefault(ranking.item_id, []).append(row)
        return found

    def fitted(self, rows: Sequence[int]) -> Attempt:
        """A head that learned from these rankings of the training split."""
        own = rows_of(self.parts, self.features.towers.device)
        return train_attempt(
            self.config.seeds[0],
            self.features,
            [],
            self.data,
            train=torch.tensor(sorted(rows)),
            validation=own["validation"],
            config=self.config,
            world=Alone(),
        )

    @torch.no_grad()
    def accuracy(self, attempt: Attempt) -> float:
        """Share of the test pairs that it orders as the annotators did."""
        test = rows_of(self.parts, self.features.towers.device)["test"]
        scores = ranking_scores(attempt.head, self.features, self.data, test).tolist()
        ranked = self.parts["test"]
        own = [row[: len(each.sample_ids)] for row, each in zip(scores, ranked, strict=True)]
        return share_right(ranked, own)

    @torch.no_grad()
    def compared(self, attempt: Attempt, row: int) -> torch.Tensor:
        """The comparisons of the set of a ranking."""
        there = self.data.ranks[row] >= 0
        image = self.features.of_images(self.data.image_index[row][there])
        text = self.features.of_prompts(self.data.prompt_index[row : row + 1])
        text = text.expand(len(image), -1)
        head = attempt.head
        return comparisons(head.linear_inputs(image, text), head(image, text))


def replay_of(demo: Path, *, seed: int, split_seed: int) -> Replay:
    """The rankings of a demo, split by prompts."""
    config = FitConfig(seeds=(seed,), split_seed=split_seed)
    with Store.open(f"sqlite:///{demo}/imgalign.db", images=demo / "images", create=False) as store:
        parts = split(judged(store.rankings())[0], config)
        ordered = [ranking for own in parts.values() for ranking in own]
        towers = load_towers(config.clip)
        data = index_rankings(ordered, [1.0] * len(ordered), device=towers.device)
        features = encode(
            data,
            lambda image_id: read_tensor(store.image_path(image_id)),
            towers,
            style=config.head.style,
            live_image=False,
            live_text=False,
            world=Alone(),
        )
    return Replay(config=config, data=data, features=features, parts=parts)


def accuracies(replay: Replay, arm: str, *, seed: int) -> list[float]:
    """Test accuracy at each budget."""
    random, items = Random(seed), replay.items()
    waiting = sorted(items)
    random.shuffle(waiting)
    rows: list[int] = []
    found = []
    attempt = None
    for budget in BUDGETS:
        nats: dict[str, float] = {}
        if arm == ARMS[0] and attempt is not None:
            prior = attempt.head.prior_precision(std=attempt.prior_std)
            told = information(
                (replay.compared(attempt, row) for row in rows),
                (replay.compared(attempt, items[item][0]) for item in waiting),
                prior=prior,
            )
            nats = dict(zip(waiting, told, strict=True))
        while len(rows) < budget and waiting:
            drawn = not nats or random.random() < EXPLORED
            item = random.choice(waiting) if drawn else max(waiting, key=nats.__getitem__)
            waiting.remove(item)
            rows += items[item]
        attempt = replay.fitted(rows)
        found.append(replay.accuracy(attempt))
        print(arm, seed, len(rows), f"{found[-1]:.3f}", flush=True)
    return found


def main() -> None:
    """Replay the demos, then write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed, demo in enumerate(given.demos):
        for split_seed in range(given.splits):
            replay = replay_of(demo, seed=seed, split_seed=split_seed)
            random = 100 * seed + split_seed
            whole = replay.accuracy(replay.fitted(range(len(replay.parts["train"]))))
            facts: dict[str, object] = {"seed": seed, "split": split_seed, "all": whole}
            rows.append(facts | {arm: accuracies(replay, arm, seed=random) for arm in ARMS})
            print(json.dumps(rows[-1]), flush=True)
    gains = [
        [first - second for first, second in zip(row[ARMS[0]], row[ARMS[1]], strict=True)]
        for row in rows
    ]
    summary = {
        str(budget): {
            **{arm: statistics.fmean(row[arm][place] for row in rows) for arm in ARMS},
            "gain": statistics.fmean(own[place] for own in gains),
            "standard_deviation_of_gains": statistics.stdev(own[place] for own in gains),
        }
        for place, budget in enumerate(BUDGETS)
    }
    summary["all"] = {"accuracy": statistics.fmean(row["all"] for row in rows)}
    command = "python benchmarks/active_choice.py runs/demo-seeds/seed-*"
    record(given.results / "active_choice.json", command, summary=summary, replays=rows)
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
