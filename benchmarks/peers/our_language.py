"""imgalign on a language model at the settings of a peer: CPU seconds of each step, passes, memory.

    python benchmarks/peers/our_language.py dpo --data pairs.jsonl --out ours.json

`compare_peers.py` calls it beside the peer. Policies, algorithms and optimizer steps are those of a
training run; the model is the storybook's, with all weights.
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from measuring import Meter, peak_memory_gb, write

from imgalign.algorithms.beta import PerNatConfig
from imgalign.algorithms.critic import CriticConfig
from imgalign.algorithms.kl import FixedKLConfig
from imgalign.algorithms.objectives import DPOConfig, KTOConfig
from imgalign.algorithms.policy_gradient import PPOConfig
from imgalign.algorithms.rankings import RankedBatch
from imgalign.language.config import FullLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.policy import Data
from imgalign.runs.world import Alone
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.data.rollouts import collect

if TYPE_CHECKING:
    from reward_models.text import TextReward
    from reward_models.text_training import TextData

CPU = torch.device("cpu")
NO_TOKEN = -1


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


def reward(given: argparse.Namespace) -> Meter:
    """A pass of the fit of a reward model over pairs of texts, from one optimizer step to the next.

    The first lap has all that comes before it: indexing and a validation.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from reward_models.text_training import TextFitConfig, train_text_attempt

    config = TextFitConfig(
        batch_size=given.batch,
        epochs=1,
        learning_rate=given.rate,
        head_learning_rate=given.rate,
        likelihood=given.likelihood,
    )
    unfitted, meter = unfitted_reward(likelihood=given.likelihood), Meter()
    meter.watch(unfitted.model)

    def lap(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if type(optimizer) is torch.optim.AdamW:  # another one fits the weights of ties before
            meter.lap("total")

    hook = register_optimizer_step_post_hook(lap)
    meter.begin()
    train_text_attempt(
        0,
        unfitted.model,
        pair_data(unfitted, read_lines(given.data)[: given.batch * given.epochs]),
        train=torch.arange(given.batch * given.epochs),
        validation=torch.arange(1),
        config=config,
        world=Alone(),
    )
    hook.remove()
    return meter


def ppo(given: argparse.Namespace) -> Meter:
    """Iterations of PPO with a critic and the KL in the reward; no response ends early.

    The pretrained model is asked twice: for the log-ratios in the reward, and for the exact KL that
    is reported. What was written is scored once more, so that a first ratio is exactly one.
    """
    loaded = replace(load_language_model("storybook", device=CPU), ends=frozenset({NO_TOKEN}))
    config = FullLanguageConfig(batch_size=given.texts, max_new_tokens=given.tokens)
    policy, reward, meter = (
        LanguagePolicy(loaded, config),
        unfitted_reward(likelihood=False),
        Meter(),
    )
    learner = build_learner(
        policy,
        algorithm=PPOConfig(
            kl=FixedKLConfig(coefficient=0.05, place="reward"),
            inner_epochs=given.inner_epochs,
            baseline=CriticConfig(
                epochs=given.inner_epochs, batch_size=given.texts, learning_rate=given.rate
            ),
        ),
        optimizer=OptimizerConfig(learning_rate=given.rate),
        seed=0,
        world=Alone(),
        reward=reward,
    )
    for network in (loaded.model, learner.algorithm.baseline.critic.model, reward.model):
        meter.watch(network)
    vars(policy)["sample"] = meter.watched("sampling", policy.sample)
    vars(reward)["score"] = meter.watched("scoring", reward.score)
    lines, size = read_lines(given.data), given.texts
    meter.begin()
    for iteration in range(given.epochs):
        seeds = range(iteration * size, (iteration + 1) * size)
        prompts = [lines[number % len(lines)]["prompt"] for number in seeds]
        rollout = collect(policy, reward, prompts, seeds=seeds, world=Alone())
        learner.update(rollout, iteration=iteration)
        meter.lap("total")
    meter.rest("learning", of="total", without=("sampling", "scoring"))
    return meter


def unfitted_reward(*, likelihood: bool) -> "TextReward":
    """The language model with a new head."""
    from reward_models.text import TextReward
    from reward_models.text_models import scalar_model

    loaded = load_language_model("storybook", device=CPU)
    return TextReward(
        scalar_model(loaded.model, likelihood=likelihood),
        loaded.tokenizer,
        context_length=loaded.context_length,
    )


def pair_data(reward: "TextReward", lines: Sequence[Mapping[str, str]]) -> "TextData":
    """Pairs of texts as the fit takes them."""
    from reward_models.data import RankingData
    from reward_models.text_training import TextData

    size = len(lines)
    prompts = [line["prompt"] for line in lines]
    texts = [line[which] for line in lines for which in ("chosen", "rejected")]
    rows = reward.rows([prompt for prompt in prompts for _ in range(2)], texts)
    return TextData(
        rankings=RankingData(
            rankings=[],
            prompts=prompts,
            images=texts,
            prompt_index=torch.arange(size),
            image_index=torch.arange(2 * size).view(size, 2),
            ranks=torch.tensor([[0, 1]] * size),
            weights=torch.ones(size),
        ),
        tokens={(number // 2, number): row for number, row in enumerate(rows)},
        pad=reward.padded,
    )


WORK: Mapping[str, Callable[[argparse.Namespace], Meter]] = {
    "dpo": dpo,
    "kto": kto,
    "reward": reward,
    "ppo": ppo,
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
    parser.add_argument("--texts", type=int, default=32, help="Of an iteration of PPO.")
    parser.add_argument("--tokens", type=int, default=32, help="Of a response of PPO.")
    parser.add_argument("--inner-epochs", type=int, default=4, help="Passes of PPO over a batch.")
    parser.add_argument("--likelihood", action="store_true", help="Of a reward, as by default.")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    imported = peak_memory_gb()
    meter = WORK[given.work](given)
    write(given.out, rows=[meter.found() | {"imported_gb": imported}])


if __name__ == "__main__":
    main()
