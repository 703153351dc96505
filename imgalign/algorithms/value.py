"""A value estimator: the expected reward of a prompt at a timestep.

A small network on a prompt's embedding and a step's timestep. The reward comes once, at the end, so
every step's target is that reward. Left out: a view of the latent; the estimator reduces variance
and does not judge unfinished samples.

Shapes: b = samples, t = steps, d = elements of a prompt embedding.
"""

import copy
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from imgalign.errors import CheckpointError
from imgalign.losses import value_loss

TIMESTEP_WIDTH = 32


class ValueEstimator:
    """V(prompt, timestep), kept on the CPU in float32 with an optimizer of its own.

    Rewards are standardised by the mean and deviation of the first batch, which stay fixed, so that
    one learning rate fits every reward. Before any training it predicts that mean.
    """

    def __init__(
        self,
        *,
        prompt_width: int,
        hidden: int,
        learning_rate: float,
        epochs: int,
        error_clip: float,
        seed: int,
    ) -> None:
        self.prompt_width = prompt_width
        self.epochs = epochs
        self.error_clip = error_clip
        self.center = 0.0
        self.scale = 1.0
        self.fitted = False
        self.net = build_network(prompt_width, hidden, seed=seed)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=learning_rate)

    @torch.no_grad()
    def predict(self, features: Mapping[str, Tensor]) -> Float[Tensor, "b t"]:
        """Expected reward of each sample at each step, in the reward's own unit."""
        values: Tensor = self.net(network_input(features)).squeeze(-1)
        return values * self.scale + self.center

    def fit(
        self,
        features: Mapping[str, Tensor],
        returns: Float[Tensor, "b t"],
        mask: Bool[Tensor, "b t"],
    ) -> float:
        """Learn from a batch; returns the loss before the first step, in squared deviations."""
        if not self.fitted:
            counted = returns[mask].double()
            self.center = counted.mean().item()
            self.scale = counted.std(correction=0).item() or 1.0
            self.fitted = True
        inputs = network_input(features)
        target = (returns - self.center) / self.scale
        first = math.nan
        for epoch in range(self.epochs):
            error = value_loss(self.net(inputs).squeeze(-1), target, clip=self.error_clip)
            loss = error[mask].mean()
            if epoch == 0:
                first = loss.item()
            if not loss.isfinite():  # which would spoil the network for good
                break
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
        return first

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        # Copied, because torch returns the tensors that the next step changes in place.
        return copy.deepcopy(
            {
                "prompt_width": self.prompt_width,
                "center": self.center,
                "scale": self.scale,
                "fitted": self.fitted,
                "net": dict(self.net.state_dict()),
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where the network has another size."""
        try:
            self.net.load_state_dict(state["net"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"value estimator: the checkpoint is of another size ({reason}); "
                "resume with the settings that the run began with"
            ) from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.center, self.scale = state["center"], state["scale"]
        self.fitted = state["fitted"]


def explained_variance(
    returns: Float[Tensor, "b t"], values: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> float:
    """Share of the returns' variance that the values predicted: 1 is all, 0 none, below 0 worse.

    NaN where the returns do not vary.
    """
    target = returns.double()[mask]
    error = target - values.double()[mask]
    variance = target.var(correction=0)
    if variance == 0:
        return math.nan
    return 1 - (error.var(correction=0) / variance).item()


def build_network(prompt_width: int, hidden: int, *, seed: int) -> nn.Sequential:
    """Two hidden layers; the last layer starts at zero, so that it first predicts a constant."""
    generator = torch.Generator("cpu").manual_seed(seed)
    widths = [prompt_width + TIMESTEP_WIDTH, hidden, hidden, 1]
    layers: list[nn.Module] = [nn.LayerNorm(widths[0])]
    for position, (inner, outer) in enumerate(pairwise(widths)):
        # Made without numbers first: the usual constructor draws from the global generator.
        linear = nn.Linear(inner, outer, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            nn.init.xavier_uniform_(linear.weight, generator=generator)
            linear.bias.zero_()
            if position == len(widths) - 2:
                linear.weight.zero_()
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def network_input(features: Mapping[str, Tensor]) -> Float[Tensor, "b t n"]:
    """Each prompt beside each timestep; prompts are scaled to unit mean square."""
    prompt = features["prompt"].detach().float().cpu()
    prompt = prompt / prompt.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
    timestep = embed_timestep(features["timestep"].detach().cpu())
    b, t = len(prompt), len(timestep)
    return torch.cat([prompt[:, None].expand(b, t, -1), timestep[None].expand(b, t, -1)], dim=-1)


def embed_timestep(timestep: Shaped[Tensor, " t"]) -> Float[Tensor, "t w"]:
    """Sines and cosines of a timestep in [0, 1), as networks see it (arXiv:1706.03762).

    Wavelengths grow geometrically from 2 pi to 20000 pi thousandths.
    """
    half = TIMESTEP_WIDTH // 2
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
    angle = 1000 * timestep.float()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
