"""Claims: losses of a batch whose images depend on each other, and batch normalisation, have the
gradients of one process where two share the batch, in parts that differ."""

from copy import deepcopy

import pytest
import torch
from numpy.random import default_rng
from torch import Tensor, nn
from torch.testing import assert_close
from worlds import in_two

from imgalign.runs.world import Alone, World
from imgalign.storybook.train.clip import above, contrast
from imgalign.storybook.train.data import scene_arrays
from imgalign.storybook.train.loop import part_of
from imgalign.storybook.train.shared import counted_once, gathered, share_batch_norm
from imgalign.storybook.train.verifier import detection_loss, free_scene, of_all
from imgalign.storybook.verifier import VerifierNetwork


def features(count: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def gradients_of_a_contrast(world: World) -> list[Tensor]:
    """Of five images and seven captions, two of which are false."""
    image_weight, text_weight = (features(4, 3, seed).requires_grad_() for seed in (0, 1))
    log_scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    images, captions = features(5, 4, 2), features(7, 4, 3)
    (own, _), (own_captions, _) = (part_of(world, len(each)) for each in (images, captions))
    image = gathered(world, images[own] @ image_weight)
    text = gathered(world, captions[own_captions] @ text_weight)
    loss, logits = contrast(image, text, counted_once(world, log_scale.exp()))
    (loss + above(logits.diagonal(), logits[:2, 5])).backward()
    trained = [nn.Parameter(each.detach()) for each in (image_weight, text_weight, log_scale)]
    for parameter, each in zip(trained, (image_weight, text_weight, log_scale), strict=True):
        parameter.grad = each.grad
    world.reduce(trained)
    return [parameter.grad for parameter in trained if parameter.grad is not None]


def test_the_gradients_of_a_contrast_in_two_processes_add_up_to_those_of_one():
    expected = gradients_of_a_contrast(Alone())
    assert all(each.abs().max() > 0.01 for each in expected)
    for found in in_two(gradients_of_a_contrast):
        for own, whole in zip(found, expected, strict=True):
            assert_close(own, whole, rtol=1e-12, atol=1e-12)


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), inner)


def learned(world: World, network: nn.Sequential, images: Tensor) -> tuple[nn.Sequential, Tensor]:
    """A copy with the gradients of all images and after their statistics, and their output."""
    own, share = part_of(world, len(images))
    trained = deepcopy(network)
    share_batch_norm(trained, world)
    found = trained(images[own])
    (share * found.square().mean()).backward()
    world.reduce(list(trained.parameters()))
    return trained, gathered(world, found.detach())


def test_batch_normalisation_in_two_processes_is_that_of_the_whole_batch(network):
    images = features(5 * 3 * 8, 8, 0).view(5, 3, 8, 8).float() * 3 + 100  # far from 0
    one, expected = learned(Alone(), network, images)
    for two, output in in_two(lambda world: learned(world, network, images)):
        assert_close(output, expected, rtol=0, atol=1e-4)
        for own, whole in zip(two.parameters(), one.parameters(), strict=True):
            assert own.grad is not None
            assert whole.grad is not None
            assert_close(own.grad, whole.grad, rtol=0, atol=1e-5)
        for (name, own), (known, whole) in zip(
            two.state_dict().items(), one.state_dict().items(), strict=True
        ):
            assert name == known
            assert_close(own, whole)
        two.eval()
        assert_close(two(images[:1]), one.eval()(images[:1]), rtol=1e-4, atol=1e-4)


def test_the_verifiers_gradients_in_two_processes_are_those_of_one():
    items = torch.from_numpy(scene_arrays([free_scene(default_rng(i)) for i in range(6)])[1])
    images = features(6 * 3 * 64, 64, 0).view(6, 3, 64, 64).sigmoid()
    readable, coloured = torch.ones(6), torch.ones(6)
    readable[1] = coloured[4] = 0
    verifier = VerifierNetwork(width=4, blocks=1).double().train()

    def work(world: World) -> list[Tensor]:
        trained = deepcopy(verifier)
        share_batch_norm(trained, world)
        own, _ = part_of(world, 6)
        maps = of_all(trained(images[own]), world)
        loss, _ = detection_loss(maps, items, torch.arange(6), readable, coloured)
        loss.backward()
        world.reduce(list(trained.parameters()))
        return [each.grad for each in trained.parameters() if each.grad is not None]

    expected = work(Alone())
    largest = max(each.abs().max().item() for each in expected)
    for found in in_two(work):
        for own, whole in zip(found, expected, strict=True):
            assert_close(own, whole, rtol=0, atol=1e-6 * largest)  # the loss is in float32


def test_one_process_keeps_its_batch_normalisation_and_its_features(network):
    before, own = list(network.modules()), features(2, 3, 0)
    share_batch_norm(network, Alone())
    assert list(network.modules()) == before
    assert gathered(Alone(), own) is own
    assert counted_once(Alone(), own) is own
