"""Activations that are computed a second time for the gradients, instead of being kept.

What transformers offers for it works in training mode alone, in which some layers drop numbers at
random; a policy never is in that mode, since it must score what it sampled.
"""

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from imgalign.errors import ConfigError


def recompute_layers(model: torch.nn.Module, *, setting: str) -> None:
    """Keep of each layer of a model only what goes in. ConfigError for one without such layers."""
    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            f"{setting}: expected false, got true; {type(model).__name__} does not say which of "
            "its layers could be computed again"
        )
    for layer in layers:
        layer.forward = Recomputed(layer.forward)


class Recomputed:
    """The forward pass of a layer, computed again where there are gradients."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the layer's own, bit for bit."""
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)
