"""Conditional logit by maximum likelihood, with clustered standard errors (McFadden 1974).

Bradley-Terry, Plackett-Luce and its extension to ties are special cases: one of several
alternatives is chosen, alternative a with probability proportional to exp(x_a . theta). The
log-likelihood is concave and maximized by Newton's method. Choices involve few parameters, so they
are stored as small dense blocks over a list of parameter indices.

Shapes: p = parameters, a = alternatives of a choice, l = parameters of a block, c = clusters.
Log-likelihoods are in nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from imgalign.errors import InputError

MAX_STEPS = 200
# Odds of exp(30) to 1: no finite data distinguish such an estimate from infinity.
FARTHEST = 30.0


@dataclass(frozen=True, slots=True)
class Choices:
    """Choices among the same alternatives by the same parameters.

    `features` are the x_a, restricted to the parameters in `index` (one may occur twice: its
    columns add up). Row i says that cluster `clusters[i]` chose `chosen[i]`, `weights[i]` times.
    """

    features: Float[np.ndarray, "a l"]
    index: Int[np.ndarray, " l"]
    chosen: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    clusters: Int[np.ndarray, " n"]


def log_likelihood(
    theta: Float[np.ndarray, " p"], choices: Sequence[Choices], *, ridge: float = 0.0
) -> float:
    """Log-likelihood of all choices, less `ridge`/2 times the squared norm of theta."""
    total = -0.5 * ridge * float(theta @ theta)
    for block in choices:
        log_p = _log_probabilities(theta, block)
        total += float(block.weights @ log_p[block.chosen])
    return total


def gradient(
    theta: Float[np.ndarray, " p"], choices: Sequence[Choices], *, ridge: float = 0.0
) -> Float[np.ndarray, " p"]:
    """Derivative of `log_likelihood`: chosen features less expected features."""
    total = -ridge * theta
    for block in choices:
        expected = np.exp(_log_probabilities(theta, block)) @ block.features
        surprise = block.weights @ block.features[block.chosen] - block.weights.sum() * expected
        np.add.at(total, block.index, surprise)
    return total


def information(
    theta: Float[np.ndarray, " p"], choices: Sequence[Choices], *, ridge: float = 0.0
) -> Float[np.ndarray, "p p"]:
    """The observed information: minus the second derivative of `log_likelihood`."""
    total = ridge * np.eye(len(theta))
    for block in choices:
        probabilities = np.exp(_log_probabilities(theta, block))
        expected = probabilities @ block.features
        spread = (block.features * probabilities[:, None]).T @ block.features
        spread -= np.outer(expected, expected)
        np.add.at(total, np.ix_(block.index, block.index), block.weights.sum() * spread)
    return total


def cluster_scores(
    theta: Float[np.ndarray, " p"], choices: Sequence[Choices], num_clusters: int
) -> Float[np.ndarray, "c p"]:
    """The gradient of every cluster, without the ridge term."""
    scores = np.zeros((num_clusters, len(theta)))
    for block in choices:
        expected = np.exp(_log_probabilities(theta, block)) @ block.features
        surprise = block.weights[:, None] * (block.features[block.chosen] - expected)
        np.add.at(scores, (block.clusters[:, None], block.index[None, :]), surprise)
    return scores


def estimate(
    choices: Sequence[Choices], *, num_parameters: int, num_centred: int, ridge: float = 0.0
) -> Float[np.ndarray, " p"]:
    """Maximum-likelihood estimates.

    Only differences among the first `num_centred` parameters matter: they are made to sum to 0.
    Raises InputError when the likelihood has no finite maximum.
    """
    theta = np.zeros(num_parameters)
    centre = _centre(num_parameters, num_centred)
    value = log_likelihood(theta, choices, ridge=ridge)
    for _ in range(MAX_STEPS):
        slope = gradient(theta, choices, ridge=ridge)
        curvature = information(theta, choices, ridge=ridge) + centre
        step = _solve(curvature, slope)
        gain = float(slope @ step)
        if gain < 1e-16 * max(1.0, abs(value)):
            break
        theta, value = _climb(theta, value, step, gain, choices, ridge)
        if np.abs(theta).max() > FARTHEST:
            raise _no_maximum()
    else:
        raise _no_maximum()
    theta[:num_centred] -= theta[:num_centred].mean()
    return theta


def covariance(
    theta: Float[np.ndarray, " p"],
    choices: Sequence[Choices],
    *,
    num_centred: int,
    ridge: float = 0.0,
) -> Float[np.ndarray, "p p"]:
    """Covariance of the estimates if all choices are independent: the inverse of the information.

    The mean of the first `num_centred`, which the choices say nothing of, has variance 1 /
    `num_centred` in it; their differences are right.
    """
    centre = _centre(len(theta), num_centred)
    return np.asarray(np.linalg.inv(information(theta, choices, ridge=ridge) + centre))


def sandwich(
    theta: Float[np.ndarray, " p"],
    choices: Sequence[Choices],
    *,
    scores: Float[np.ndarray, "c p"],
    num_centred: int,
    ridge: float = 0.0,
) -> Float[np.ndarray, "p p"]:
    """Covariance of the estimates, clustered as the `scores` are (Liang and Zeger 1986), times
    c / (c - 1). Infinite with one cluster, from which no variance can be estimated.
    """
    num_clusters = len(scores)
    if num_clusters < 2:
        return np.full((len(theta), len(theta)), np.inf)
    bread = covariance(theta, choices, num_centred=num_centred, ridge=ridge)
    meat = scores.T @ scores * (num_clusters / (num_clusters - 1))
    return np.asarray(bread @ meat @ bread)


def _centre(num_parameters: int, num_centred: int) -> Float[np.ndarray, "p p"]:
    centre = np.zeros((num_parameters, num_parameters))
    centre[:num_centred, :num_centred] = 1.0 / num_centred
    return centre


def _climb(
    theta: Float[np.ndarray, " p"],
    value: float,
    step: Float[np.ndarray, " p"],
    gain: float,
    choices: Sequence[Choices],
    ridge: float,
) -> tuple[Float[np.ndarray, " p"], float]:
    """Backtracking line search along a Newton step (Armijo's condition)."""
    scale = 1.0
    for _ in range(50):
        there = theta + scale * step
        reached = log_likelihood(there, choices, ridge=ridge)
        # Near the top, rounding may hide a gain that is there: take the full Newton step.
        if reached >= value + 1e-4 * scale * gain or gain < 1e-10 * max(1.0, abs(value)):
            return there, reached
        scale /= 2
    raise _no_maximum()


def _log_probabilities(theta: Float[np.ndarray, " p"], block: Choices) -> Float[np.ndarray, " a"]:
    utility = block.features @ theta[block.index]
    top = utility.max()
    return np.asarray(utility - top - np.log(np.exp(utility - top).sum()))


def _solve(
    matrix: Float[np.ndarray, "p p"], vector: Float[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    try:
        return np.asarray(np.linalg.solve(matrix, vector))
    except np.linalg.LinAlgError as error:
        raise _no_maximum() from error


def _no_maximum() -> InputError:
    return InputError(
        "ratings: the likelihood has no finite maximum, some scores run off to infinity; "
        "collect more rankings or use a ridge of 0.1"
    )
