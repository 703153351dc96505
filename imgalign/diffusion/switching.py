"""Switching what runs trained on and off in one loaded pipeline.

Left out: reading adapters (adapters.py) and full weights (full_weights.py).
"""

from collections.abc import Mapping
from pathlib import Path

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor
from torch.nn import Parameter

from imgalign.diffusion.families.table import family_of
from imgalign.diffusion.full_weights import read_network
from imgalign.diffusion.loading import use_adapter
from imgalign.runs.trained import full_weights


class WeightSwitch:
    """A pipeline, and whose weights it has: the pretrained ones, an adapter's on top, or others.

    The pretrained weights are kept while all of them are replaced, so full weights cost the size of
    the network once more, and nothing while they are off.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self.pipeline = pipeline
        family = family_of(pipeline)
        self._network_name = family.network_name
        # Of the bare network: under an adapter its layers have other names.
        self._parameters: Mapping[str, Parameter] = dict(family.network.named_parameters())
        self._pretrained: dict[str, Tensor] = {}
        """Empty while the network has them."""

    def use(self, found: Path | None, *, strength: float = 1.0) -> None:
        """Switch to what `find_weights` found, or with None to the pretrained weights alone.

        A LoRA is applied at this strength. What was on before is removed first, and leaves nothing
        behind. CheckpointError, and nothing changes, where the new weights do not fit the model.
        """
        folder = None if found is None else full_weights(found)
        if folder is None:
            use_adapter(self.pipeline, found, strength=strength)
            self._restore()
            return
        values = read_network(folder, self._parameters, network_name=self._network_name)
        use_adapter(self.pipeline, None)
        if not self._pretrained:
            self._pretrained = {name: each.data for name, each in self._parameters.items()}
        for name, parameter in self._parameters.items():
            parameter.data = values.pop(name).to(parameter.device, parameter.dtype)

    def _restore(self) -> None:
        for name, value in self._pretrained.items():
            self._parameters[name].data = value
        self._pretrained = {}
