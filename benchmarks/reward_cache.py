"""A pass of a reward fit on cached image features, beside one that encodes every image anew.

    OMP_NUM_THREADS=1 python benchmarks/reward_cache.py

The head of `imgalign reward train` with its defaults, on rankings of four images of noise, of a
size that the storybook's pipeline makes, in memory: to read them from files would make the second
pass slower still. Both make the same optimizer steps on the same rows. CPU seconds of each pass,
medians with their range, and what encoding all once takes. Writes results/reward_cache.json.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ceiling import seconds

from imgalign.evaluate.origin import command_line, hardware, library_versions
from imgalign.losses import plackett_luce_loss
from imgalign.runs.world import Alone
from reward_models.clip_models import load_towers
from reward_models.data import RankingData
from reward_models.descent import one_pass
from reward_models.features import Features, encode
from reward_models.head import PreferenceHead
from reward_models.training import FitConfig, ranking_scores

RESULTS = Path(__file__).parent / "results" / "reward_cache.json"
CANDIDATES, SIDE = 4, 64
CPU = torch.device("cpu")


def rankings(count: int) -> RankingData:
    """Of images that are each in one ranking, each for a prompt of its own."""
    images = count * CANDIDATES
    return RankingData(
        rankings=[],
        prompts=[f"a picture of {number} red cats" for number in range(count)],
        images=[str(number) for number in range(images)],
        prompt_index=torch.arange(count),
        image_index=torch.arange(images).view(count, CANDIDATES),
        ranks=torch.arange(CANDIDATES).repeat(count, 1),
        weights=torch.ones(count),
    )


def pass_over(features: Features, data: RankingData, config: FitConfig) -> Callable[[], float]:
    """A pass of the fit of a new head."""
    generator = torch.Generator().manual_seed(0)
    width, style_width = features.towers.width, features.image.shape[1] - features.towers.width
    head = PreferenceHead(width, config.head, style_width=style_width, generator=generator)
    rows = torch.arange(len(data.prompts))
    prompts = features.text.repeat_interleave(CANDIDATES, dim=0)
    head.standardise(features.image, prompts)
    log_tie = torch.full((CANDIDATES - 1,), -1.0)
    optimizer = torch.optim.Adam(head.parameters(), lr=config.learning_rate)

    def losses(of: torch.Tensor) -> torch.Tensor:
        scores = ranking_scores(head, features, data, of)
        return plackett_luce_loss(scores, data.ranks[of], log_tie=log_tie)

    return lambda: one_pass(
        optimizer,
        rows,
        data.weights,
        batch_size=config.batch_size,
        generator=generator,
        losses=losses,
        penalty=lambda: head.penalty(std=1.0),
        world=Alone(),
    )


def spread(values: list[float]) -> dict[str, float]:
    """Example: {"median": 1.02, "low": 1.01, "high": 1.1, "times": 5}."""
    ends = {"low": min(values), "high": max(values), "times": len(values)}
    return {"median": statistics.median(values), **ends}


def measured(count: int, turns: int) -> dict[str, Any]:
    """Both passes, and encoding everything once."""
    towers, data, config = load_towers("storybook"), rankings(count), FitConfig()
    towers.freeze()
    made = torch.Generator().manual_seed(0)
    pixels = torch.rand(len(data.images), 3, SIDE, SIDE, generator=made)

    def encoded() -> Features:
        return encode(
            data,
            lambda name: pixels[int(name)],
            towers,
            style=config.head.style,
            live_image=False,
            live_text=False,
            world=Alone(),
        )

    cached = encoded()
    prepared = torch.cat([towers.prepare(each[None]) for each in pixels])
    anew = replace(cached, prepared=prepared, tokens=towers.tokenize(data.prompts))
    of_cached, of_anew = pass_over(cached, data, config), pass_over(anew, data, config)
    first = of_cached(), of_anew()
    assert abs(first[0] - first[1]) < 1e-3 * abs(first[0]), first  # the same work
    once = seconds(encoded, turns)
    found = {"cached": seconds(of_cached, 5 * turns), "anew": seconds(of_anew, turns)}
    times = statistics.median(found["anew"]) / statistics.median(found["cached"])
    return {
        "rankings": count,
        "images": len(data.images),
        "optimizer_steps": -(-count // config.batch_size),
        "cpu_seconds": {name: spread(each) for name, each in found.items()},
        "encoding_once": spread(once),
        "times_as_fast": times,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rankings", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    found = {
        "command": f"python benchmarks/{command_line()}",
        "hardware": hardware(),
        "versions": library_versions(),
        "threads": torch.get_num_threads(),
        **measured(given.rankings, given.turns),
    }
    given.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    seconds_of = {name: each["median"] for name, each in found["cpu_seconds"].items()}
    print(f"{found['times_as_fast']:.0f} times as fast: {seconds_of} CPU seconds a pass")


if __name__ == "__main__":
    main()
