"""Claims: processes that share frozen weights may make any passes in any order: each computes what
the whole network does, and none waits for ever. What cannot be shared is refused in one line."""

import json
import signal

import pytest
import torch
from fsdp import with_fsdp
from processes import Processes
from sharded_passes import DIES, OUTLIVES, STRETCHES, Network
from source_tree import ROOT
from torch import nn
from torch.distributed.fsdp import FSDPModule

from imgalign.errors import ConfigError
from imgalign.runs.sharding import blocks_of, refuse
from imgalign.runs.world import join_world, outside_passes

CHILD = ROOT / "tests" / "stand_ins" / "sharded_passes.py"


@with_fsdp
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_passes_two_processes_make_each_has_the_bits_of_the_whole_network():
    ends = Processes([CHILD], folder=ROOT).ends()
    assert [(code, OUTLIVES in told) for code, _, told in ends] == [(0, False)] * 2, ends
    first, second = (json.loads(said) for _, said, _ in ends)
    assert first["same"] == second["same"] == [True] * len(STRETCHES)
    for name, weight in Network().named_parameters():
        parts = [each["own"][name] for each in (first, second)]
        assert first["shapes"][name] == list(weight.shape)
        if weight.requires_grad:
            assert parts == [weight.numel()] * 2
        else:
            rows = len(weight)
            each = weight.numel() // rows
            assert parts == [-(-rows // 2) * each, rows // 2 * each]


@with_fsdp
@pytest.mark.slow
def test_a_process_that_dies_before_weights_are_shared_ends_the_others():
    (code, _, told), (killed, _, _) = Processes([CHILD, DIES], folder=ROOT).ends()
    assert killed == -signal.SIGKILL
    assert code == 1
    assert "another process of this run has ended or cannot be reached; start it again" in told


def test_a_network_that_is_not_shared_is_used_as_it_is():
    network = nn.Linear(2, 2)
    with outside_passes(network):
        assert not isinstance(network, FSDPModule)


def test_blocks_are_what_a_library_does_not_split_or_the_members_of_outermost_lists():
    network = Network()
    assert [*blocks_of(network)] == [*reversed(network.layers), network]
    inner = nn.ModuleList([nn.Linear(2, 2)])
    outer = nn.Sequential(nn.ModuleList([nn.Sequential(inner), nn.Tanh()]))
    assert [type(each) for each in blocks_of(outer)] == [nn.Tanh, nn.Sequential, nn.Sequential]
    vars(network)["_no_split_modules"] = ["Linear"]
    linear = [each for each in network.modules() if isinstance(each, nn.Linear)]
    assert [*blocks_of(network)] == [*reversed(linear), network]


@with_fsdp
def test_weights_in_channels_last_are_refused_with_the_cure():
    weight = nn.Parameter(torch.zeros(2, 2, 3, 3).to(memory_format=torch.channels_last))
    with pytest.raises(ConfigError, match=r"channels_last: expected false with FSDP.*got true"):
        refuse([weight])


def test_a_torch_that_cannot_share_is_refused_with_the_cure(monkeypatch):
    monkeypatch.delattr(FSDPModule, "set_custom_all_gather", raising=False)
    with pytest.raises(ConfigError, match=r"FSDP needs a torch whose .*; update torch, or launch"):
        refuse([])


@pytest.mark.parametrize(
    ("environment", "can_share", "line"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, True, "DeepSpeed is not supported here"),
        ({"ACCELERATE_USE_FSDP": "true"}, False, "FSDP is not supported here"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, True, "expected 2, got 1"),
    ],
)
def test_ways_to_cut_a_model_that_a_command_does_not_know_are_refused_with_the_cure(
    monkeypatch, environment, can_share, line
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"{line}.*; launch with configs/accelerate/"):
        join_world(cure="start it again", can_share=can_share)
