"""The preference head: a utility from image and text features.

Utility = weight * cosine + linear(image, style, image * text)
        + small network(image, style, image * text, text).
The linear part and the network start at zero, so a new head ranks exactly as zero-shot CLIP does,
and a normal prior keeps it near. Features that depend on the prompt alone enter only
through the network: a linear term of them shifts all images of a prompt alike, which no ranking
can see.

Shapes: b = images, d = width of the shared space of the towers, s = width of the style (0 without),
n = 3 d + s inputs. Image and style features come as one tensor `image` [b l], l = d + s
(`Towers.image_features`).
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from reward_models.contract import HeadConfig

SPREAD_FLOOR = 0.1
"""Least standard deviation of an input, relative to the typical size of its kind of features;
otherwise inputs of new prompts could be standardised to extreme values."""


PRODUCT_SHARE = 1 / 3
"""Prior scale of terms in image and prompt together, relative to terms in the image alone: the
cosine covers the former already, and tastes in images are the latter."""


class PreferenceHead(nn.Module):
    """Features to utility; inputs are standardised by buffers set from the training data."""

    center: Tensor
    spread: Tensor
    cosine_spread: Tensor

    def __init__(
        self, width: int, config: HeadConfig, *, generator: Generator, style_width: int = 0
    ) -> None:
        super().__init__()
        self.parts = [width, *([style_width] if style_width else []), width, width]
        inputs = sum(self.parts)
        self.register_buffer("center", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.register_buffer("cosine_spread", torch.ones(()))
        self.cosine = nn.Parameter(torch.ones(()))
        self.linear = nn.Parameter(torch.zeros(inputs - width))
        self.hidden = nn.Parameter(torch.empty(config.hidden, inputs))
        self.bias = nn.Parameter(torch.zeros(config.hidden))
        self.out = nn.Parameter(torch.zeros(config.hidden))
        nn.init.normal_(self.hidden, std=inputs**-0.5, generator=generator)

    def forward(
        self, image: Float[Tensor, "b l"], text: Float[Tensor, "b d"]
    ) -> Float[Tensor, " b"]:
        """Utility of each image for its prompt; each kind of features has unit length."""
        inputs = self._standardised(image, text)
        linear = inputs[:, : len(self.linear)] @ self.linear
        network = F.gelu(inputs @ self.hidden.T + self.bias) @ self.out
        cosine = self.cosine * _product(image, text).sum(1) / self.cosine_spread
        utility: Tensor = cosine + linear + network
        return utility

    def linear_inputs(
        self, image: Float[Tensor, "b l"], text: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n_linear"]:
        """What the weights `linear` are multiplied with."""
        return self._standardised(image, text)[:, : len(self.linear)]

    def _standardised(self, image: Tensor, text: Tensor) -> Tensor:
        return (_join(image, text) - self.center) / self.spread

    @torch.no_grad()
    def standardise(self, image: Float[Tensor, "b l"], text: Float[Tensor, "b d"]) -> None:
        """Set center and spread of the inputs, and the cosine's spread, from training features."""
        inputs = _join(image, text)
        self.center.copy_(inputs.mean(0))
        parts = torch.split(inputs, self.parts, dim=1)
        floors = [SPREAD_FLOOR * part.square().mean().sqrt() for part in parts]
        spread = torch.split(inputs.std(0, correction=0), self.parts)
        self.spread.copy_(
            torch.cat([s.clamp(min=floor) for s, floor in zip(spread, floors, strict=True)])
        )
        self.cosine_spread.copy_(_product(image, text).sum(1).std(correction=0).clamp(min=1e-3))

    def penalty(self, *, std: float) -> Float[Tensor, ""]:
        """Negative log density of a normal prior around zero-shot CLIP, in nats, up to a constant.

        `std`: prior standard deviation of the utility from terms linear in image and style; terms
        linear in image * text and the network each have PRODUCT_SHARE of it.
        """
        width = self.parts[-1]
        # Inputs have unit variance: n weights of variance std^2 / n add a spread of std.
        image, product = (
            len(part) * part.square().sum() for part in self.linear.tensor_split([-width])
        )
        out = len(self.out) * self.out.square().sum()
        hidden = self.hidden.shape[1] * self.hidden.square().sum()
        return (image + (product + out) / PRODUCT_SHARE**2) / (2 * std**2) + hidden / 2

    def prior_precision(self, *, std: float) -> Float[Tensor, " n_linear"]:
        """Inverse variance of each weight of `linear` under the prior of `penalty`."""
        width = self.parts[-1]
        image = len(self.linear) - width
        scale = torch.tensor(
            [*[image] * image, *[width / PRODUCT_SHARE**2] * width], device=self.linear.device
        )
        return scale / std**2

    def scalars(self) -> list[nn.Parameter]:
        """Parameters without a prior: the weight of the cosine, and the biases."""
        return [self.cosine, self.bias]

    def weights(self) -> list[nn.Parameter]:
        """Parameters with a prior."""
        return [self.linear, self.hidden, self.out]


def zero_shot_head(width: int, *, style_width: int = 0) -> PreferenceHead:
    """A head whose utility is the cosine itself."""
    return PreferenceHead(
        width, HeadConfig(hidden=0), style_width=style_width, generator=Generator()
    )


def _product(image: Tensor, text: Tensor) -> Tensor:
    return image[:, : text.shape[1]] * text


def _join(image: Tensor, text: Tensor) -> Tensor:
    return torch.cat([image, _product(image, text), text], dim=1)
