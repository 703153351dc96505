"""Claims: what a run trained is found from whatever refers to it, an adapter or full weights;
damaged weights are never taken, and a hash stands for all of them."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imgalign.errors import CheckpointError
from imgalign.files import sha256
from imgalign.runs.checkpoint import mark, save_checkpoint
from imgalign.runs.state import save_state
from imgalign.runs.trained import (
    ADAPTER,
    find_weights,
    full_weights,
    holds_weights,
    weight_files,
    weights_hash,
)

WHOLE = "net/diffusion_pytorch_model.safetensors"
SHARDS = tuple(f"net/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2))


def write_adapter(folder: Path) -> None:
    save_file({"weight": torch.arange(6.0)}, folder / ADAPTER)


def write_full(folder: Path, *names: str) -> None:
    (folder / "net").mkdir(parents=True)
    (folder / "net" / "config.json").write_text("{}")
    for number, name in enumerate(names or [WHOLE]):
        save_file({f"weight {number}": torch.arange(6.0)}, folder / name)


def write_shards(folder: Path) -> None:
    write_full(folder, *SHARDS)


def test_a_checkpoint_named_directly_is_verified(tmp_path):
    folder = save_checkpoint(tmp_path / "run", 1, write=write_adapter)
    content = bytearray((folder / ADAPTER).read_bytes())
    content[-1] ^= 1
    (folder / ADAPTER).write_bytes(content)
    for named in (folder, folder / ADAPTER):
        with pytest.raises(CheckpointError, match="SHA-256 differs"):
            find_weights(named)


def test_weights_may_be_used_without_the_trainers_state_that_was_saved_with_them(tmp_path):
    def write(folder: Path) -> None:
        write_adapter(folder)
        save_state(folder, "trainer", {})

    folder = save_checkpoint(tmp_path / "run", 1, write=write)
    (folder / "trainer.json").unlink()
    shared = folder.rename(tmp_path / "shared with a friend")
    assert find_weights(shared) == shared


def test_an_adapter_is_found_from_its_folder_its_file_and_its_run(tmp_path):
    run = tmp_path / "run"
    first = save_checkpoint(run, 1, write=write_adapter)
    second = save_checkpoint(run, 2, write=write_adapter)
    assert find_weights(first) == first
    assert find_weights(first / ADAPTER) == first
    assert find_weights(run) == second
    mark(run, "best", 1)
    assert find_weights(run) == first


def test_a_lora_file_may_have_a_name_of_its_own(tmp_path):
    style = tmp_path / "styles" / "my_style_v1.safetensors"
    style.parent.mkdir()
    style.touch()
    assert find_weights(style) == style
    assert find_weights(style.parent) == style
    (style.parent / "other.safetensors").touch()  # which of them?
    with pytest.raises(CheckpointError, match="my_style_v1"):
        find_weights(style.parent)
    (style.parent / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file"):
        find_weights(style.parent / "notes.txt")


def test_a_damaged_best_checkpoint_gives_way_to_the_newest_good_one(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, write=write_adapter)
    mark(tmp_path, "best", 1)
    os.truncate(tmp_path / "step-000001" / ADAPTER, 8)
    assert find_weights(tmp_path).name == "step-000002"


def test_a_folder_without_weights_says_what_it_found_instead(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        find_weights(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="the folder is empty"):
        find_weights(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match=r"no pytorch_lora_weights.*found: config.yaml"):
        find_weights(tmp_path)
    save_checkpoint(tmp_path, 3, write=lambda folder: None)
    with pytest.raises(CheckpointError, match="checkpoints found: step-000003, none usable"):
        find_weights(tmp_path)


@pytest.mark.parametrize("write", [write_full, write_shards])
def test_full_weights_are_found_from_their_folder_a_file_of_theirs_and_their_run(tmp_path, write):
    run = tmp_path / "run"
    first = save_checkpoint(run, 1, write=write)
    second = save_checkpoint(run, 2, write=write)
    assert find_weights(first) == first
    for file in weight_files(first):
        assert find_weights(file) == first
    assert find_weights(run) == second
    mark(run, "best", 1)
    assert find_weights(run) == first
    assert full_weights(first) == first / "net"


def test_an_adapter_and_a_lora_file_are_no_full_weights(tmp_path):
    folder = save_checkpoint(tmp_path / "run", 1, write=write_adapter)
    style = tmp_path / "style.safetensors"
    style.touch()
    assert full_weights(folder) is None
    assert full_weights(style) is None


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_or_lost_part_of_full_weights_is_found(tmp_path, damaged):
    folder = save_checkpoint(tmp_path, 2, write=write_shards)
    good = save_checkpoint(tmp_path, 1, write=write_shards)
    content = bytearray((folder / SHARDS[damaged]).read_bytes())
    content[-1] ^= 1
    (folder / SHARDS[damaged]).write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        find_weights(folder)
    assert find_weights(tmp_path) == good
    (folder / SHARDS[damaged]).unlink()
    with pytest.raises(CheckpointError, match="but missing"):
        find_weights(folder)
    assert find_weights(tmp_path) == good


def test_a_whole_model_is_named_as_a_model_and_not_taken_for_weights(tmp_path):
    write_full(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is a whole model.*with --model"):
        find_weights(tmp_path)


def test_weights_of_two_networks_are_not_those_of_one(tmp_path):
    write_full(tmp_path)
    (tmp_path / "vae").mkdir()
    save_file({"w": torch.ones(1)}, tmp_path / "vae" / Path(WHOLE).name)
    assert not holds_weights(tmp_path)
    with pytest.raises(
        CheckpointError,
        match=r"no pytorch_lora_weights\S+ or adapter_model\S+ or full weights here",
    ):
        find_weights(tmp_path)


def test_the_hash_of_one_file_is_its_own_and_that_of_several_is_of_all(tmp_path):
    adapter, whole, parts = (tmp_path / name for name in ("adapter", "whole", "parts"))
    adapter.mkdir()
    write_adapter(adapter)
    write_full(whole)
    write_shards(parts)
    assert weights_hash(adapter) == sha256(adapter / ADAPTER)
    assert weights_hash(whole) == sha256(whole / WHOLE)
    before = weights_hash(parts)
    for shard in SHARDS:
        kept = (parts / shard).read_bytes()
        save_file({"other": torch.ones(2)}, parts / shard)
        assert weights_hash(parts) != before
        (parts / shard).write_bytes(kept)
    assert weights_hash(parts) == before
