"""The preference head: from the towers' features to a utility.

Utility = weight * cosine + linear(image, image * text) + small network(image, image * text, text).
The linear part and the network start at zero, so a new head ranks exactly as zero-shot CLIP does,
and a normal prior keeps it near. Features that depend on the prompt alone enter only
through the network: a linear term of them shifts all images of a prompt alike, which no ranking
can see.

Shapes: b = images, d = width of the shared space of the towers, n = 3 d inputs.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from reward_models.contract import HeadConfig

SPREAD_FLOOR = 0.1
"""An input that hardly varies is divided by no less than this share of its part's typical size, or
a prompt that the fit never saw would be far outside of everything."""


PRODUCT_SHARE = 1 / 3
"""Expected size of what depends on image and prompt together, relative to what the image alone
adds: the cosine covers the former already, a taste in pictures is what it cannot know."""


class PreferenceHead(nn.Module):
    """One member: features to utility. Inputs are standardised by buffers set from the data."""

    center: Tensor
    spread: Tensor
    cosine_spread: Tensor

    def __init__(self, width: int, config: HeadConfig, *, generator: Generator) -> None:
        super().__init__()
        inputs = 3 * width
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.register_buffer("cosine_spread", torch.ones(()))
        self.cosine = nn.Parameter(torch.ones(()))
        self.linear = nn.Parameter(torch.zeros(2 * width))
        self.hidden = nn.Parameter(torch.empty(config.hidden, inputs))
        self.bias = nn.Parameter(torch.zeros(config.hidden))
        self.out = nn.Parameter(torch.zeros(config.hidden))
        nn.init.normal_(self.hidden, std=inputs**-0.5, generator=generator)

    def forward(
        self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"]
    ) -> Float[Tensor, " b"]:
        """Utility of each image for its prompt; features come with length 1."""
        inputs = (_join(image, text) - self.center) / self.spread
        linear = inputs[:, : len(self.linear)] @ self.linear
        network = F.gelu(inputs @ self.hidden.T + self.bias) @ self.out
        cosine = self.cosine * (image * text).sum(1) / self.cosine_spread
        utility: Tensor = cosine + linear + network
        return utility

    @torch.no_grad()
    def standardise(self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"]) -> None:
        """Set center and spread of the inputs, and the cosine's spread, from training features."""
        inputs = _join(image, text)
        self.center.copy_(inputs.mean(0))
        floors = [SPREAD_FLOOR * part.square().mean().sqrt() for part in inputs.chunk(3, dim=1)]
        spread = inputs.std(0, correction=0).chunk(3)
        self.spread.copy_(
            torch.cat([s.clamp(min=floor) for s, floor in zip(spread, floors, strict=True)])
        )
        self.cosine_spread.copy_((image * text).sum(1).std(correction=0).clamp(min=1e-3))

    def penalty(self, *, std: float) -> Float[Tensor, ""]:
        """Negative log density of a normal prior around zero-shot CLIP, in nats, up to a constant.

        `std`: spread that what is linear in the image is expected to add to utilities; what is
        linear in image * text and the network each add PRODUCT_SHARE of it.
        """
        # Inputs have unit variance: n weights of variance std^2 / n add a spread of std.
        image, product = (len(part) * part.square().sum() for part in self.linear.chunk(2))
        out = len(self.out) * self.out.square().sum()
        hidden = self.hidden.shape[1] * self.hidden.square().sum()
        return (image + (product + out) / PRODUCT_SHARE**2) / (2 * std**2) + hidden / 2

    def scalars(self) -> list[nn.Parameter]:
        """What has no prior: the weight of the cosine, and the biases."""
        return [self.cosine, self.bias]

    def weights(self) -> list[nn.Parameter]:
        """What has a prior."""
        return [self.linear, self.hidden, self.out]


def zero_shot_head(width: int) -> PreferenceHead:
    """A head whose utility is the cosine itself."""
    return PreferenceHead(width, HeadConfig(hidden=0), generator=Generator())


def _join(image: Tensor, text: Tensor) -> Tensor:
    return torch.cat([image, image * text, text], dim=1)
