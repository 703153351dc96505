"""Implicit rewards: log-ratios of policy and pretrained model, with the same draws for both.

Shapes: r = rankings, k = candidates of the longest one, m = rows: one draw of one candidate.
Units: nats, summed over the elements of a sample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from imgalign.algorithms.rankings import RankedBatch, better_pairs, disliked, liked
from imgalign.errors import ConfigError
from imgalign.policy import Data, Draws, LikelihoodPolicy, LogProb, Weights
from imgalign.prompts import training_seed

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2

LEVELS = 2**20
"""Starts of the noise levels of a batch."""


class DrawKey(NamedTuple):
    """What one draw of one ranking follows from. Example: (2971215073, 0.618)."""

    seed: int
    level: float
    """The place of its noise level in the distribution of levels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Rankings that are scored together."""

    batch: RankedBatch
    numbers: list[int]
    """Their positions among all rankings of this process, from which their draws follow."""
    draws: int
    num_passes: int
    """Forward passes that their rows take."""

    def keys(self, base: int, first: int) -> list[list[DrawKey]]:
        """What each draw of each ranking follows from, the same in any batch and any process.

        `first`: how many rankings the processes before this one have.
        """
        places = [(first + number) * self.draws for number in self.numbers]
        return [
            [
                DrawKey(seed=training_seed(base, place + turn), level=spread(base, place + turn))
                for turn in range(self.draws)
            ]
            for place in places
        ]


def spread(base: int, place: int) -> float:
    """A number in [0, 1) for each place, such that those of any run of places are evenly spread.

    Steps of the golden ratio from a start that `base` decides. Losses of one noise level differ
    less than those of different ones, so evenly spread levels give less noisy gradients.
    """
    start = training_seed(base, 0) % LEVELS / LEVELS
    return (start + place * GOLDEN_RATIO) % 1.0


def pieces_of(
    batch: RankedBatch, rankings: Int[Tensor, " s"], *, draws: int, limit: int
) -> list[Piece]:
    """Some rankings, cut into pieces of at most `limit` rows, or of one ranking that has more."""
    rows = (batch.present.sum(dim=1) * draws).tolist()
    pieces: list[list[int]] = []
    filled = limit
    for number in rankings.tolist():
        if filled + rows[number] > limit:
            pieces.append([])
            filled = 0
        pieces[-1].append(number)
        filled += rows[number]
    return [
        Piece(
            batch=batch.select(torch.tensor(own)),
            numbers=own,
            draws=draws,
            num_passes=-(-sum(rows[number] for number in own) // limit),
        )
        for own in pieces
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """What goes through the network: one draw of one candidate in each row."""

    data: Data
    keys: list[DrawKey]
    """Of the draws: equal for the candidates of a ranking."""
    ranking: Int[Tensor, " m"]
    """Positions in the batch of rankings."""
    candidate: Int[Tensor, " m"]
    draw: Int[Tensor, " m"]

    @property
    def num_draws(self) -> int:
        """Of each candidate."""
        return int(self.draw.max()) + 1

    def __len__(self) -> int:
        return len(self.ranking)

    def select(self, index: Int[Tensor, " n"]) -> "Rows":
        """The rows at these positions."""
        return Rows(
            data=self.data.select(index.tolist()),
            keys=[self.keys[row] for row in index.tolist()],
            ranking=self.ranking[index],
            candidate=self.candidate[index],
            draw=self.draw[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """Rows under the policy and the pretrained model."""

    log_prob: LogProb
    """Under the policy; differentiable unless it was computed without gradients."""
    log_ratio: Float[Tensor, " m"]
    """Policy less pretrained model; on the CPU, without gradients."""


def rows_of(batch: RankedBatch, keys: Sequence[Sequence[DrawKey]]) -> Rows:
    """All draws of all candidates. `keys` has one for each draw of each ranking.

    The candidates of a ranking share noise and noise level in each draw.
    """
    ranking, candidate = batch.present.nonzero().unbind(dim=1)
    num_draws = len(keys[0]) if keys else 1
    # Draw by draw within a ranking, so that a cut between rankings keeps them whole.
    ranking, candidate = (each.repeat_interleave(num_draws) for each in (ranking, candidate))
    draw = torch.arange(num_draws).repeat(len(ranking) // num_draws)
    data = batch.data.select(batch.index[ranking, candidate].tolist())
    own = [keys[row][turn] for row, turn in zip(ranking.tolist(), draw.tolist(), strict=True)]
    return Rows(
        data=data,
        keys=own,
        ranking=ranking,
        candidate=candidate,
        draw=draw,
    )


def log_prob_of(policy: LikelihoodPolicy, rows: Rows) -> LogProb:
    """Of the policy alone, with the rows' draws."""
    return policy.log_prob(rows.data, draw(policy, rows))


def draw(policy: LikelihoodPolicy, rows: Rows) -> Draws:
    """The draws of rows."""
    seeds, levels = zip(*rows.keys, strict=True)
    return policy.draw(rows.data, seeds=seeds, levels=levels)


def score(policy: LikelihoodPolicy, rows: Rows, *, reference: Weights = "reference") -> Scored:
    """Both scores of some rows."""
    draws = draw(policy, rows)
    # Reference first: it switches adapters off and on, which must not happen inside a live graph.
    with torch.no_grad(), policy.using(reference):
        pretrained = policy.log_prob(rows.data, draws)
    current = policy.log_prob(rows.data, draws)
    log_ratio = (current.values.detach() - pretrained.values).float().cpu()
    return Scored(log_prob=current, log_ratio=log_ratio)


def score_in_parts(
    policy: LikelihoodPolicy,
    rows: Rows,
    parts: Sequence[Tensor],
    *,
    reference: Weights = "reference",
) -> Scored:
    """`score` without gradients, some rows at a time."""
    with torch.no_grad():
        each = [score(policy, rows.select(part), reference=reference) for part in parts]
    found_in = [found.log_prob for found in each]
    return Scored(
        log_prob=LogProb(
            values=torch.cat([part.values for part in found_in]),
            kind=found_in[0].kind,
            num_elements=found_in[0].num_elements,
            counts=joined([part.counts for part in found_in]),
            slopes=joined([part.slopes for part in found_in]),
        ),
        log_ratio=torch.cat([found.log_ratio for found in each]),
    )


def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """One after the other; None where a policy has no such thing."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def over_draws(
    values: Float[Tensor, " m"], rows: Rows, shape: Sequence[int]
) -> Float[Tensor, "r k"]:
    """The mean over the draws of each candidate; 0 where there is none."""
    sums, counts = torch.zeros(shape), torch.zeros(shape)
    where = (rows.ranking, rows.candidate)
    sums.index_put_(where, values, accumulate=True)
    counts.index_put_(where, torch.ones(len(rows)), accumulate=True)
    return sums / counts.clamp(min=1)


def elements_of(log_prob: LogProb, rows: Rows, shape: Sequence[int]) -> Float[Tensor, "r k"]:
    """The number of elements of each candidate; 1 where there is none."""
    counts = log_prob.counts
    if counts is None:
        return torch.full(tuple(shape), float(log_prob.num_elements))
    return over_draws(counts.float().cpu(), rows, shape).clamp(min=1)


def push_limits(
    coefficients: Float[Tensor, "r k"], scored: Scored, rows: Rows, *, keep: float
) -> Float[Tensor, " r"]:
    """Factor of each ranking's push away, so that its pull keeps a share of its effect.

    `coefficients` is the gradient of a loss with respect to the log-probabilities: negative for
    candidates that are to become likelier (the pull), positive for others (the push). With P and Q
    the two parts of the step in the network's outputs, the factor f is the largest in [0, 1] with
    <P, P - f Q> >= keep * |P|^2: arXiv:2511.03317, section 4, of all candidates of a ranking.
    """
    slopes = scored.log_prob.slopes
    if slopes is None:
        raise ConfigError(
            "algorithm.keep_chosen: this kind of policy has no outputs to compare; leave it out"
        )
    num_draws = rows.num_draws
    own = coefficients[rows.ranking, rows.candidate].to(slopes)
    weighted = own[:, None] * slopes.flatten(1)
    place = (rows.ranking * num_draws + rows.draw).to(slopes.device)
    empty = torch.zeros(len(coefficients) * num_draws, weighted.shape[1]).to(slopes)
    pull = empty.index_add(0, place[own < 0], -weighted[own < 0]).view(len(coefficients), -1)
    push = empty.index_add(0, place[own > 0], weighted[own > 0]).view(len(coefficients), -1)
    inner, size = (push * pull).sum(dim=1), pull.square().sum(dim=1)
    limit = (1 - keep) * size / torch.where(inner > 0, inner, 1.0)
    return torch.where(inner > 0, limit.clamp(max=1.0), 1.0).cpu()


SUMS = (
    *("loss", "weight", "limit", "right", "negative", "factor", "margin", "pairs"),
    *("chosen", "num_chosen", "chosen_size", "rejected", "num_rejected", "log_ratio", "candidates"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratios:
    """Log-ratios of the candidates of some rankings."""

    nats: Float[Tensor, "r k"]
    """Summed over the elements of a sample."""
    counts: Float[Tensor, "r k"] | None
    """Elements of each sample, where an objective compares means over them."""
    beta: float
    """Per nat of what is compared."""

    @property
    def compared(self) -> Float[Tensor, "r k"]:
        """What the objective sees."""
        return self.nats if self.counts is None else self.nats / self.counts


@dataclass(slots=True, kw_only=True)
class Seen:
    """What was seen of the rankings of one optimizer step; sums are weighted by the rankings."""

    ties: Float[Tensor, " t"]
    """Gradient of the losses with respect to the log-weights of ties."""
    margins: list[Tensor] = field(default_factory=lambda: [torch.zeros(0)])
    """Of every pair with a preference, as the objective compares them."""
    unordered: list[Tensor] = field(default_factory=lambda: [torch.zeros(0)])
    """What the objective compares in rankings without an order."""
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0.0))
    beta: float = 0.0

    def add(
        self,
        batch: RankedBatch,
        ratios: Ratios,
        losses: Float[Tensor, " r"],
        *,
        limits: Float[Tensor, " r"],
        ties: Float[Tensor, " t"] | None,
    ) -> None:
        """Add some rankings."""
        log_ratio, compared, beta = ratios.nats, ratios.compared, ratios.beta
        pairs = better_pairs(batch.ranks)
        margins = (compared[:, :, None] - compared[:, None, :])[pairs]
        chosen, rejected = liked(batch), disliked(batch)
        right = (margins > 0).float() + (margins == 0).float() / 2
        found = {
            "loss": (losses * batch.weights).sum(),
            "weight": batch.weights.sum(),
            "limit": (limits * batch.weights).sum(),
            "right": right.sum(),
            "negative": (margins < 0).sum(),
            "factor": torch.sigmoid(-beta * margins).sum(),
            "margin": (beta * margins).sum(),
            "pairs": pairs.sum(),
            "chosen": log_ratio[chosen].sum(),
            "num_chosen": chosen.sum(),
            "chosen_size": log_ratio[chosen].abs().sum(),
            "rejected": log_ratio[rejected].sum(),
            "num_rejected": rejected.sum(),
            "log_ratio": log_ratio[batch.present].sum(),
            "candidates": batch.present.sum(),
        }
        self.sums = added(self.sums, {name: float(value) for name, value in found.items()})
        self.margins.append(margins)
        self.beta = beta
        if ties is not None:
            self.ties += ties


def added(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Sums by name, in an order that is the same in every process: each asks the others for one."""
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


def metrics_of(sums: Mapping[str, float]) -> dict[str, float]:
    """Means under the keys of docs/metrics.md, without those of nothing at all."""
    means = {
        "preference_loss": ("loss", "weight"),
        "implicit_accuracy": ("right", "pairs"),
        "implicit_margin": ("margin", "pairs"),
        "negative_margins": ("negative", "pairs"),
        "gradient_factor": ("factor", "pairs"),
        "chosen_log_ratio": ("chosen", "num_chosen"),
        "rejected_log_ratio": ("rejected", "num_rejected"),
        "push_limit": ("limit", "weight"),
    }
    return {key: sums[name] / sums[count] for key, (name, count) in means.items() if sums[count]}
