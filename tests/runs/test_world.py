"""Claims: one process that is all there is keeps every bit of what it is given; one that cannot
meet the others says so unless they have said more."""

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.nn import Parameter
from worlds import in_two

from imgalign.errors import ProcessError
from imgalign.runs import together
from imgalign.runs.world import Alone, World, first_position, join_world, writes_files


def test_alone_is_a_world_that_gives_back_what_it_is_given():
    world, values = join_world(cure="start it again"), torch.tensor([0.1, torch.nan])
    assert isinstance(world, World)
    assert (world.size, world.index, list(world.deal(3))) == (1, 0, [0, 1, 2])
    assert world.total(0.1) == world.largest(0.1) == 0.1
    (gathered,) = world.gather(values)
    assert gathered is values
    assert (world.agree(True), world.agree(False)) == (True, False)
    world.wait()
    assert first_position(world, 7) == 0
    assert writes_files(world)


def test_gradients_of_one_process_stay_as_they_are():
    weight = Parameter(torch.tensor(3.0))
    weight.grad = torch.tensor(0.1)
    Alone().reduce([weight])
    assert weight.grad == torch.tensor(0.1)


def test_each_of_two_processes_knows_where_its_own_begin():
    assert in_two(lambda world: first_position(world, [3, 5][world.index])) == [0, 3]


def test_a_process_that_cannot_meet_another_says_so_unless_another_has_said_why(monkeypatch):
    store = HashStore()
    monkeypatch.setenv("MASTER_ADDR", "a.node")
    monkeypatch.setattr(together, "rendezvous", lambda _: iter([(store, 1, 2)]))

    def ended(*_: object, **__: object) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(dist, "init_process_group", ended)
    with pytest.raises(ProcessError, match=r"process 1 of 2: .* has ended .*; start it again$"):
        together.join(cure="start it again")
    with pytest.raises(SystemExit) as silent:
        together.join(cure="start it again")
    assert silent.value.code == 2
