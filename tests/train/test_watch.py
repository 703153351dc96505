"""Claims: held-out numbers are the same in every process, however the prompts are dealt; a grid
shows every image."""

import pytest
import torch
from PIL import Image
from random_walk import Brightness, RandomWalk
from worlds import in_two

from imgalign.prompts import Prompts
from imgalign.runs.world import Alone, World
from imgalign.train.watch import Measured, measure, save_grid
from imgalign.train.watcher import Watcher


def held_out(*prompts: str, world: World, reward: bool = True) -> Measured:
    policy = RandomWalk(num_steps=2, batch_size=2)
    policy.shift.data.fill_(0.1)
    return measure(
        policy,
        Brightness() if reward else None,
        Prompts(("a red fox", "a blue boat"), prompts),
        images_per_prompt=3,
        world=world,
        watcher=Watcher(),
    )


@pytest.mark.parametrize("prompts", [["a", "b", "c"], ["a"], []])
def test_two_processes_measure_the_same_numbers_as_one(prompts):
    # With one prompt the second process has nothing to sample.
    expected = held_out(*prompts, world=Alone())
    first, second = in_two(lambda world: held_out(*prompts, world=world))
    assert first == second
    assert first.metrics() == pytest.approx(expected.metrics(), rel=1e-6)


def test_the_kl_is_that_of_the_closed_form_and_needs_no_reward():
    # 12 elements moved by 0.1 in two steps: 0.01 / (2 sigma^2) nats each.
    measured = held_out(world=Alone(), reward=False)
    sigma = RandomWalk(num_steps=2).sigma.tolist()
    assert measured.kl == pytest.approx(sum(12 * 0.01 / (2 * each**2) for each in sigma), rel=1e-5)
    assert measured.metrics() == {"held_out_kl": measured.kl}


def test_a_grid_shows_every_pixel_where_it_belongs(tmp_path):
    images = torch.zeros(3, 3, 2, 4)
    images[1, 0] = 1.0  # red, second column
    images[2, 2] = 0.5  # half blue, second row
    save_grid(images, tmp_path / "samples" / "grid.png", columns=2)
    with Image.open(tmp_path / "samples" / "grid.png") as grid:
        assert grid.size == (2 * (4 + 2) + 2, 2 * (2 + 2) + 2)
        assert grid.getpixel((2, 2)) == (0, 0, 0)
        assert grid.getpixel((2 + 6, 2)) == (255, 0, 0)
        assert grid.getpixel((2, 2 + 4)) == (0, 0, 128)
        assert grid.getpixel((2 + 6, 2 + 4)) == (255, 255, 255)  # no fourth image
        assert grid.getpixel((0, 0)) == (255, 255, 255)
