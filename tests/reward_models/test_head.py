import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from reward_models.contract import HeadConfig
from reward_models.head import PRODUCT_SHARE, PreferenceHead

WIDTH = 6
STYLE = 4


def make_features(count, seed=0, style=0):
    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(2, count, WIDTH, generator=generator)
    image, text = F.normalize(image + 1, dim=1), F.normalize(text, dim=1)
    own = F.normalize(torch.rand(count, style, generator=generator), dim=1)
    return torch.cat([image, own], dim=1), text


def make_head(hidden=5, seed=0, style=0):
    config = HeadConfig(hidden=hidden)
    generator = torch.Generator().manual_seed(seed)
    return PreferenceHead(WIDTH, config, style_width=style, generator=generator)


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_new_head_is_the_cosine(hidden):
    image, text = make_features(7)
    assert_close(make_head(hidden)(image, text), F.cosine_similarity(image, text))


def test_a_standardised_head_is_the_cosine_at_unit_spread():
    image, text = make_features(50)
    head = make_head()
    head.standardise(image, text)
    utility = head(image, text)
    assert_close(utility.std(correction=0), torch.tensor(1.0))
    expected = F.cosine_similarity(image, text)
    assert_close(utility / utility.norm(), expected / expected.norm())


def test_style_is_seen_by_the_linear_part_and_the_network_and_never_by_the_cosine():
    looks, text = make_features(50, style=STYLE)
    head = make_head(style=STYLE)
    head.standardise(looks, text)
    cosine = F.cosine_similarity(looks[:, :WIDTH], text)
    utility = head(looks, text)
    assert_close(utility / utility.norm(), cosine / cosine.norm())
    other = torch.cat([looks[:, :WIDTH], looks[:, WIDTH:].flip(0)], dim=1)
    assert_close(head(other, text), utility)
    with torch.no_grad():
        head.linear[WIDTH] = 1.0
    # One unit of weight adds the standardised input, whatever its size was.
    expected = looks[:, WIDTH]
    expected = (expected - expected.mean()) / expected.std(correction=0)
    assert_close(head(looks, text) - utility, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        head.linear.zero_()
        head.out.fill_(1.0)
    assert (head(other, text) - head(looks, text)).abs().min() > 1e-6


def test_standardising_survives_a_single_prompt():
    """What never varied in training must not blow up on the first new prompt."""
    image, text = make_features(50)
    head = make_head()
    head.standardise(image, text[:1].expand(50, -1))
    with torch.no_grad():
        head.out.fill_(1.0)
    new = head(image, make_features(50, seed=9)[1])
    assert float(new.detach().abs().max()) < 1e3


@pytest.mark.parametrize("style", [0, STYLE])
@pytest.mark.parametrize(("half", "share"), [(0, 1.0), (1, PRODUCT_SHARE)])
def test_prior_std_is_the_spread_that_a_draw_from_the_prior_adds(half, share, style):
    """The scale of the penalty, checked by sampling a linear part from the density it is."""
    image, text = make_features(4000, style=style)
    head = make_head(hidden=0, style=style)
    head.standardise(image, text)
    std, generator = 2.0, torch.Generator().manual_seed(3)
    with torch.no_grad():
        head.cosine.zero_()
        part = head.linear.split([WIDTH + style, WIDTH])[half]
        part.fill_(1.0)
        # penalty = sum w^2 / (2 v): read off the variance v of one weight.
        variance = len(part) / (2 * float(head.penalty(std=std)))
        spreads = []
        for _ in range(300):
            draw = torch.randn(part.shape, generator=generator)
            part.copy_(math.sqrt(variance) * draw)
            spreads.append(float(head(image, text).var()))
    # 300 draws of a variance; correlated inputs make it noisy: about 5 % standard error.
    assert math.sqrt(sum(spreads) / len(spreads)) == pytest.approx(share * std, rel=0.12)


def test_every_parameter_has_a_prior_or_is_a_scalar_and_gets_a_gradient():
    image, text = make_features(20)
    head = make_head()
    with torch.no_grad():
        head.out.fill_(0.1)
    head(image, text).square().sum().backward()
    listed = [*head.weights(), *head.scalars()]
    assert {id(p) for p in listed} == {id(p) for p in head.parameters()}
    assert all(float(p.grad.abs().sum()) > 0 for p in listed)
