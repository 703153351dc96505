"""The loss of a clipped policy gradient, of one forward pass.

Shapes: b = samples, s = steps. Units: nats, summed over the elements of a step.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import kl_divergence

from imgalign.algorithms.batches import MicroBatch, masked
from imgalign.losses import clipped_surrogate_loss
from imgalign.policy import StepPolicy


def policy_gradient_loss(
    policy: StepPolicy,
    micro: MicroBatch,
    *,
    clip: Callable[[int], float],
    kl_coefficient: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Share of one micro-batch in its minibatch's loss, and sums over its transitions.

    `clip` gives the limit of a step's log-ratio, in nats, for so many elements.

    The loss is divided by the number of elements of a latent: an update's direction stays the
    same, and gradient norms compare across resolutions and with the field's per-element habit.
    """
    trajectory, steps, mask = micro.trajectory, micro.steps, micro.mask
    pretrained = None
    if micro.kl_weight:
        # Reference first: it switches adapters off and on, which must not happen in a live graph.
        with torch.no_grad(), policy.using("reference"):
            pretrained = policy.step_distributions(trajectory, steps)
    current = policy.step_distributions(trajectory, steps)
    num_elements = current.event_shape.numel()
    clip_nats = clip(num_elements)
    log_prob = current.log_prob(policy.actions(trajectory, steps))
    old_log_prob = trajectory.log_probs[:, steps]
    surrogate = masked(
        clipped_surrogate_loss(log_prob, old_log_prob, micro.advantages, clip_nats=clip_nats), mask
    )
    kl = torch.zeros_like(surrogate)
    if pretrained is not None:
        kl = micro.kl_weight * masked(kl_divergence(current, pretrained), mask)
    weights = micro.weights
    loss = ((surrogate + kl_coefficient * kl) * weights).sum() / (micro.total_weight * num_elements)
    with torch.no_grad():
        log_ratio = masked(log_prob - old_log_prob, mask)
        stats = {
            "surrogate": (surrogate.detach() * weights).sum(),
            "kl": (kl.detach() * weights).sum(),
            "clip_fraction": ((log_ratio.abs() > clip_nats) * weights).sum(),
            # Schulman's k3 estimate of KL(old || new): unbiased and never negative.
            "approx_kl": ((log_ratio.expm1() - log_ratio) * weights).sum(),
            "log_ratio_max": log_ratio.abs().max(),
            "entropy": (masked(current.entropy(), mask) * weights).sum(),
        }
    return loss, stats
