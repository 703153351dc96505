"""Adding LoRA layers to the weights of a model, which then needs no adapter.

Left out: saving the model (saving.py), layouts of adapters (layouts.py).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.diffusion.adapters import Component, Layer


@torch.no_grad()
def merge(
    layers: Sequence[Layer],
    components: Sequence[Component],
    *,
    on_layer: Callable[[], None] = lambda: None,
) -> None:
    """Add each layer to its weight: W + alpha / rank * up @ down (arXiv:2106.09685, eq. 3).

    The sum is taken in float64 and rounded to the weight's dtype once. `on_layer` is called after
    each layer.
    """
    networks = {each.name: each.network for each in components}
    for layer in layers:
        weight: Tensor = networks[layer.component].get_submodule(layer.name).weight
        weight.copy_(weight.double() + difference(layer).view_as(weight).to(weight.device))
        on_layer()


def difference(layer: Layer) -> Float[Tensor, "out into"]:
    """What a layer adds to its weight, in float64; a convolution's kernel is part of `into`."""
    up, down = layer.up.double().flatten(1), layer.down.double().flatten(1)
    return layer.alpha / layer.rank * up @ down
