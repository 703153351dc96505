"""What the verifier is trained with: targets that decode back, augmentations and corruptions."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from imgalign.storybook.scenes import COLOURS, OBJECTS, is_held_out
from imgalign.storybook.train.corruption import (
    CORRUPTIONS,
    _cosines,
    augment,
    blur,
    cross_fades,
    mosaics,
    scrambled_phases,
    shuffled_blocks,
    warp,
)
from imgalign.storybook.train.data import item_rows
from imgalign.storybook.train.verifier import _said_by, detection_loss, free_scene, targets
from imgalign.storybook.verifier import Maps, decode


@pytest.fixture
def images():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield torch.rand(8, 3, 64, 64)


def perfect_maps(items):
    """What a network that has reached its targets would say."""
    heat, kind, colour, where, _ = targets(items)
    return Maps(
        heat=torch.logit(heat, eps=1e-5),
        kind=30 * torch.nn.functional.one_hot(kind, len(OBJECTS)).permute(0, 3, 1, 2).float(),
        colour=30 * torch.nn.functional.one_hot(colour, len(COLOURS)).permute(0, 3, 1, 2).float(),
        where=where,
        setting=torch.zeros(len(items), 6),
        readable=torch.full((len(items),), 20.0),
    )


def scenes(num):
    return [free_scene(np.random.default_rng((3, i))) for i in range(num)]


def test_targets_decode_to_the_scene_they_were_made_of():
    drawn = scenes(60)
    items = torch.from_numpy(np.stack([item_rows(scene) for scene in drawn]))
    for scene, reading in zip(drawn, decode(perfect_maps(items)), strict=True):
        said = sorted((a.kind, a.colour, a.x, a.y, a.size) for a in reading.items)
        meant = sorted((a.kind, a.colour, a.x, a.y, a.size) for a in scene.items)
        assert [one[:2] for one in said] == [one[:2] for one in meant]
        for one, other in zip(said, meant, strict=True):
            assert one[2:] == pytest.approx(other[2:], abs=1e-5)


def test_the_loss_of_a_perfect_answer_is_next_to_nothing():
    items = torch.from_numpy(np.stack([item_rows(scene) for scene in scenes(8)]))
    maps = perfect_maps(items)
    _, terms = detection_loss(
        maps, items, torch.zeros(8).long(), readable=torch.ones(8), coloured=torch.ones(8)
    )
    for name in ("kind", "colour", "where", "readable"):
        assert terms[name] < 1e-6
    # Cells near a centre are asked for less than 1, so the focal loss has a floor.
    assert terms["heat"] < 1.0


def test_colours_that_are_not_trusted_do_not_count():
    items = torch.from_numpy(np.stack([item_rows(scene) for scene in scenes(8)]))
    maps = perfect_maps(items)
    wrong = Maps(
        **{name: getattr(maps, name) for name in Maps.__slots__} | {"colour": -maps.colour}
    )
    settings, ones = torch.zeros(8).long(), torch.ones(8)
    trusted = detection_loss(wrong, items, settings, ones, ones)[1]["colour"]
    untrusted = detection_loss(wrong, items, settings, ones, torch.zeros(8))[1]["colour"]
    assert trusted > 1
    assert untrusted == 0


def test_free_scenes_show_nothing_held_out_and_some_are_empty():
    drawn = scenes(100)
    assert not any(is_held_out(spec) for scene in drawn for spec in _said_by(scene.items))
    assert {len(scene.items) for scene in drawn} == {0, 1, 2, 3, 4}


def test_every_change_keeps_the_shape_and_range_of_images(images):
    for change in (augment, *CORRUPTIONS.values()):
        changed = change(images.clone())
        assert changed.shape == images.shape
        assert changed.isfinite().all()
        assert changed.min() >= -0.5
        assert changed.max() <= 1.5


def test_the_cosine_basis_is_orthonormal():
    assert_close(_cosines() @ _cosines().T, torch.eye(8), atol=1e-6, rtol=0)


def test_blur_keeps_a_plain_colour_and_warp_without_strength_keeps_everything(images):
    plain = torch.full((1, 3, 64, 64), 0.3)
    assert_close(blur(plain, 3.0), plain)
    assert_close(warp(images, 0.0), images, atol=1e-4, rtol=0)


def test_blocks_are_moved_and_not_changed(images):
    shuffled = shuffled_blocks(images)
    assert not torch.equal(shuffled, images)
    assert_close(shuffled.flatten(2).sort().values, images.flatten(2).sort().values)


def test_scrambling_keeps_the_spectrum_and_blending_the_mean(images):
    half = 0.4 + 0.2 * images  # away from the edges of the range, so that nothing is clipped
    scrambled = scrambled_phases(half)
    assert_close(
        torch.fft.rfft2(scrambled).abs()[:, :, 1:32, 1:32],
        torch.fft.rfft2(half).abs()[:, :, 1:32, 1:32],
        atol=1e-3,
        rtol=1e-3,  # float32 transforms there and back
    )
    twice = cross_fades(torch.stack([half[0], half[0]]))
    assert_close(twice, torch.stack([half[0], half[0]]))


def test_mosaics_take_each_pixel_from_some_image():
    plain = torch.arange(4.0)[:, None, None, None].expand(4, 3, 64, 64) / 4
    assert set(mosaics(plain).unique().tolist()) <= {0.0, 0.25, 0.5, 0.75}
