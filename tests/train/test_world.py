"""Claims: one process that is all there is keeps every bit of what it is given."""

import torch
from torch.nn import Parameter

from imgalign.algorithms.interface import World
from imgalign.train.world import Alone


def test_alone_is_a_world_that_gives_back_what_it_is_given():
    world, values = Alone(), torch.tensor([0.1, torch.nan])
    assert isinstance(world, World)
    assert (world.size, world.index, list(world.deal(3))) == (1, 0, [0, 1, 2])
    assert world.total(0.1) == world.largest(0.1) == 0.1
    assert world.gather(values) is values
    assert (world.agree(True), world.agree(False)) == (True, False)


def test_gradients_of_one_process_stay_as_they_are():
    weight = Parameter(torch.tensor(3.0))
    weight.grad = torch.tensor(0.1)
    Alone().reduce([weight])
    assert weight.grad == torch.tensor(0.1)
