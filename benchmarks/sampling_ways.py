"""Ways to sample with a policy: contexts in which its network runs as an option would have it.

Left out: what they are worth (gpu.py measures it).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from imgalign.diffusion.policy import DiffusionPolicy


class Captured:
    """A network's forward pass as a CUDA graph, for inputs of one shape; LoRA included."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(
        self, latents: Tensor, timesteps: Tensor, *, encoder_hidden_states: Tensor, **more: Any
    ) -> UNet2DConditionOutput:
        """The network's answer; the first time captures the graph."""
        given = [latents, timesteps, encoder_hidden_states]
        if self.graph is None:
            self._capture([each.clone() for each in given])
        for own, new in zip(self.inputs, given, strict=True):
            own.copy_(new)
        self.graph.replay()
        return UNet2DConditionOutput(sample=self.output.clone())

    def _capture(self, inputs: list[Tensor]) -> None:
        self.inputs, stream = inputs, torch.cuda.Stream()
        # What autocast keeps would be freed when it ends, and the graph would read it later.
        with torch.autocast("cuda", torch.get_autocast_dtype("cuda"), cache_enabled=False):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self._run()
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.output = self._run()

    def _run(self) -> Tensor:
        latents, timesteps, states = self.inputs
        output: Tensor = self.forward(latents, timesteps, encoder_hidden_states=states).sample
        return output


Way: TypeAlias = Callable[[DiffusionPolicy], AbstractContextManager[Any]]
"""How to sample: a context in which a policy does it that way."""


def plain(policy: DiffusionPolicy) -> AbstractContextManager[None]:
    """As it is."""
    return nullcontext()


def without_adapter(policy: DiffusionPolicy) -> AbstractContextManager[None]:
    """The pretrained model, as `imgalign generate` samples it."""
    return policy.using("reference")


@contextmanager
def channels_last(policy: DiffusionPolicy) -> Iterator[None]:
    """The network's weights in the other layout of memory."""
    network = policy.family.network
    network.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        network.to(memory_format=torch.contiguous_format)


@contextmanager
def captured(policy: DiffusionPolicy) -> Iterator[None]:
    """One CUDA graph of the network as it is."""
    network = policy.family.network
    network.forward = Captured(network.forward)
    try:
        yield
    finally:
        del network.forward


def compiled(mode: str | None, *, blocks: bool = False) -> Way:
    """`torch.compile` of the network, or of the blocks that come again and again in it."""

    @contextmanager
    def way(policy: DiffusionPolicy) -> Iterator[None]:
        network = policy.family.network
        (network.compile_repeated_blocks if blocks else network.compile)(mode=mode)
        try:
            yield
        finally:
            for module in network.modules():
                module._compiled_call_impl = None
            torch._dynamo.reset()

    return way


@contextmanager
def without_tf32(policy: DiffusionPolicy) -> Iterator[None]:
    """All 23 bits of float32 in convolutions too; in products they are the default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def attention(*backends: SDPBackend) -> Way:
    """PyTorch's attention by these kernels only, the first that can."""
    return lambda policy: sdpa_kernel(list(backends), set_priority=True)
