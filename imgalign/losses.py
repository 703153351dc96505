"""Losses shared by reward models, diffusion and language.

Pure functions of tensors: no model, no config, no randomness, no device moves. Every loss returns
one value per example; the caller averages. Left out: advantages (advantages.py), and the KL term,
which is `torch.distributions.kl_divergence` of a policy's step distributions.

Shapes: b = examples, t = denoising steps or tokens, k = candidates of one ranking, c = items of the
largest tie, n = groups of them. Log-probabilities are in nats.
"""

from functools import lru_cache
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from imgalign.errors import InputError

LISTED = 4
"""Rankings of up to so many have their groups listed, which is the faster way there: half the time
for four, four times the time for nine."""
NEVER = -1e30
"""A logarithm of zero that can be subtracted from itself."""


def clipped_surrogate_loss(
    log_prob: Float[Tensor, "b t"],
    old_log_prob: Float[Tensor, "b t"],
    advantage: Float[Tensor, "#b #t"],
    *,
    clip_nats: float,
) -> Float[Tensor, "b t"]:
    """Clipped surrogate objective of each step (arXiv:1707.06347, eq. 7), to be minimised.

    The log-ratio, and not the ratio, is clipped: to +- `clip_nats`, the same factor up and down.
    Its value is minus the advantage when the two log-probabilities agree. The gradient is zero
    where the step has already moved further than the clip in the direction of its advantage.
    """
    log_ratio = log_prob - old_log_prob
    # Not min(ratio * a, clipped * a): exp overflows in the branch that min drops, and its zero
    # gradient times infinity is NaN.
    pessimistic = torch.where(
        advantage >= 0, log_ratio.clamp(max=clip_nats), log_ratio.clamp(min=-clip_nats)
    )
    return -advantage * pessimistic.exp()


def value_loss(
    value: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"], *, clip: float
) -> Float[Tensor, "*shape"]:
    """Half the squared error, continued as a straight line where the error exceeds `clip`.

    Huber's loss: the gradient never exceeds `clip`, so a few surprising rewards cannot take the
    estimator away. `math.inf` gives the plain squared error.
    """
    error = (value - target).abs()
    inner = error.clamp(max=clip)
    return 0.5 * inner**2 + inner * (error - inner)


def clipped_value_loss(
    value: Float[Tensor, "*shape"],
    old_value: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    *,
    clip: float,
) -> Float[Tensor, "*shape"]:
    """Clipped value loss: half the squared error, for a value that moves at most `clip`.

    max((V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2) / 2, as in OpenAI's baselines,
    TRL, OpenRLHF and verl. Value, target R and clip are in the unit of the reward. The gradient is
    zero where the value has already moved further than `clip` towards its target, as it is in
    `clipped_surrogate_loss`. `math.inf` gives half the squared error.
    """
    near = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum((value - target) ** 2, (near - target) ** 2) / 2


def bradley_terry_loss(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], *, label_smoothing: float = 0.0
) -> Float[Tensor, " b"]:
    """Negative log-probability that `chosen` beats `rejected` (Bradley & Terry 1952).

    Takes scores on the scale where a difference is a log-odds; equals log 2 when they agree.
    `label_smoothing` is the assumed probability that a human label is flipped.
    """
    margin = chosen - rejected
    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


def ipo_loss(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], *, beta: float
) -> Float[Tensor, " b"]:
    """Squared distance of the margin to 1 / (2 beta) (IPO, arXiv:2310.12036, eq. 17).

    Takes log-ratios of policy and reference in nats, not yet multiplied by `beta`. The margin has a
    target, so unlike `bradley_terry_loss` it does not push for ever where all labels agree.
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def kto_loss(
    log_ratio: Float[Tensor, "*shape"],
    desirable: Bool[Tensor, "*shape"],
    *,
    beta: float,
    baseline: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """Loss of a like or a dislike without a partner (KTO, arXiv:2402.01306, eq. 8).

    `log_ratio` of policy and reference and `baseline`, an estimate of their KL, are in nats. A like
    costs 1 - sigmoid(beta (log_ratio - baseline)) and a dislike the same with the sign turned,
    each times its weight (the paper's lambdas).
    """
    sign = torch.where(desirable, 1.0, -1.0).to(log_ratio)
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(log_ratio)
    return weight * torch.sigmoid(-sign * beta * (log_ratio - baseline))


def cardinal_loss(
    score: Float[Tensor, "b k"],
    advantage: Float[Tensor, "b k"],
    present: Bool[Tensor, "b k"],
    *,
    largest: float,
) -> Float[Tensor, " b"]:
    """Regression of implicit rewards on centred reward weights (LAIR, arXiv:2605.26491).

    -sum(advantage * score) + penalty * mean(score^2), over the k candidates of each ranking that
    are present. It is least where a score is k * advantage / (2 * penalty); the penalty is set so
    that this is `largest` for the largest advantage there can be, 1 - 1/k.
    """
    score = torch.where(present, score, 0.0)
    advantage = torch.where(present, advantage, 0.0)
    count = present.sum(1).clamp(min=2)
    penalty = (count - 1) / (2 * largest)
    return -(advantage * score).sum(1) + penalty * score.square().sum(1) / count


def plackett_luce_loss(
    scores: Float[Tensor, "b k"],
    ranks: Int[Tensor, "b k"],
    *,
    log_tie: Float[Tensor, " order"] | None = None,
) -> Float[Tensor, " b"]:
    """Negative log-probability of each ranking under Davidson-Luce (Firth, Kosmidis & Turner 2019).

    `ranks`: 0 is best, equal is a tie, -1 is not there; only the order counts, so gaps are fine.
    A group C of tied items with scores s weighs delta_|C| * exp(mean of s over C), delta_1 = 1, and
    from best to worst each group is chosen among all groups that the remaining items can form.
    `log_tie` holds log delta_2, log delta_3, ...; groups beyond it are impossible. Without it there
    are no ties, and this is Plackett-Luce, for k = 2 Bradley-Terry.

    A ranking of fewer than two items has loss 0. Adding a constant to all scores changes nothing.
    InputError where the data hold a tie that `log_tie` does not model.
    """
    k = scores.shape[1]
    present = ranks >= 0
    tied_with = (ranks[:, :, None] == ranks[:, None, :]) & present[:, None, :]
    group_size = tied_with.sum(2)
    largest = 1 if log_tie is None else min(k, 1 + len(log_tie))
    if bool((group_size > largest)[present].any()):
        found = int(group_size[present].max())
        raise InputError(
            f"plackett_luce_loss: expected ties of at most {largest} items, got {found};"
            " pass log_tie with one value for each larger group"
        )

    # What is not there may hold anything, NaN too: keep it out of the forward and the gradient.
    scores = torch.where(present, scores, 0.0)
    log_delta = scores.new_zeros(1)
    if log_tie is not None:
        log_delta = torch.cat([log_delta, log_tie.to(scores)])
    totals = _listed_totals if k <= LISTED else _grown_totals
    log_total = totals(scores, ranks, log_delta[:largest])

    # Summed over items, with 1 / size each, so that every group counts once.
    group_size = group_size.clamp(min=1)
    terms = (log_delta[group_size - 1] + scores - log_total) / group_size
    return -torch.where(present, terms, 0.0).sum(1)


def _listed_totals(
    scores: Float[Tensor, "b k"], ranks: Int[Tensor, "b k"], log_delta: Float[Tensor, " c"]
) -> Float[Tensor, "b k"]:
    """The log-weight of all groups among which the group of each item was chosen, from a list."""
    subsets = _subsets(scores.shape[1], len(log_delta)).to(scores.device)
    sizes = subsets.sum(1)
    # A product and a sum, not a matrix product, which autocast would round to half precision.
    means = (scores[:, None, :] * subsets).sum(2) / sizes
    log_weight = log_delta[sizes - 1] + means
    # When i's group was chosen, what ranks above it was gone: a subset competed if its best member
    # ranks no higher than i. Absent items, at -1, are gone from the start.
    best_member = torch.where(subsets, ranks[:, None, :], ranks.max() + 1).amin(2)
    competed = best_member[:, :, None] >= ranks[:, None, :]
    return log_weight[:, :, None].masked_fill(~competed, -torch.inf).logsumexp(1)


@lru_cache(maxsize=64)
def _subsets(k: int, largest: int) -> Bool[Tensor, "n {k}"]:
    """Which of k items are in each of their non-empty subsets of at most `largest`."""
    chosen = [members for size in range(1, largest + 1) for members in combinations(range(k), size)]
    subsets = torch.zeros(len(chosen), k, dtype=torch.bool)
    for row, members in enumerate(chosen):
        subsets[row, list(members)] = True
    return subsets


def _grown_totals(
    scores: Float[Tensor, "b k"], ranks: Int[Tensor, "b k"], log_delta: Float[Tensor, " c"]
) -> Float[Tensor, "b k"]:
    """The same without a list of the groups, of which there are up to 2^k: in k * c^2 steps.

    The groups of one size weigh together delta times the elementary symmetric polynomial of
    exp(s / size), which grows item by item.
    """
    # What is left when a group is chosen are the worst. Absent items, at -1, come last here.
    worst_first = ranks.argsort(dim=1, descending=True)
    (largest,) = log_delta.shape
    sizes = torch.arange(1, largest + 1, device=scores.device)
    shares = scores.gather(1, worst_first)[:, :, None] / sizes
    # By size and members so far: the empty group. With -inf for the others gradients would be nan.
    members = torch.arange(largest + 1, device=scores.device)
    grown = torch.where(members == 0, scores.new_zeros(()), NEVER).expand(len(scores), largest, -1)
    totals = []
    for share in shares.unbind(dim=1):
        joined = torch.logaddexp(grown[..., 1:], grown[..., :-1] + share[:, :, None])
        grown = torch.cat([grown[..., :1], joined], dim=2)
        totals.append((log_delta + joined.diagonal(dim1=1, dim2=2)).logsumexp(1))
    num_left = (ranks[:, None, :] >= ranks[:, :, None]).sum(2)
    return torch.stack(totals, dim=1).gather(1, num_left - 1)
