"""Claims: a checkpoint is whole or it is not there; a full disk costs only the newest save; what is
read back is what was written, bit for bit, without pickles."""

import errno
import json
import math
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from imgalign.errors import CheckpointError, StorageFullError
from imgalign.runs.checkpoint import (
    checkpoints,
    latest_checkpoint,
    mark,
    read_marker,
    remove_checkpoint,
    remove_checkpoints_after,
    save_checkpoint,
    verify,
)
from imgalign.runs.state import load_state, save_state
from imgalign.runs.trained import ADAPTER, find_weights


def write_adapter(folder: Path) -> None:
    save_file({"weight": torch.arange(6.0)}, folder / ADAPTER)


def write_note(folder: Path) -> None:
    (folder / "a").write_bytes(b"abc")


def names(run: Path) -> list[str]:
    return [folder.name for folder in checkpoints(run)]


def test_a_saved_checkpoint_verifies_and_is_the_latest(tmp_path):
    folder = save_checkpoint(tmp_path, 200, write=write_adapter)
    assert folder.name == "step-000200"
    verify(folder)
    assert latest_checkpoint(tmp_path) == folder
    assert read_marker(tmp_path, "latest") == 200


def test_a_flipped_byte_is_found_and_the_older_checkpoint_taken_instead(tmp_path, caplog):
    older = save_checkpoint(tmp_path, 1, write=write_adapter)
    newer = save_checkpoint(tmp_path, 2, write=write_adapter)
    content = bytearray((newer / ADAPTER).read_bytes())
    content[-1] ^= 1
    (newer / ADAPTER).write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        verify(newer)
    assert latest_checkpoint(tmp_path) == older
    assert "step-000002" in caplog.text


@pytest.mark.parametrize("damage", ["remove", "truncate", "manifest", "no manifest", "list"])
def test_every_kind_of_damage_is_one_clear_error(tmp_path, damage):
    folder = save_checkpoint(tmp_path, 1, write=write_adapter)
    match damage:
        case "remove":
            (folder / ADAPTER).unlink()
        case "truncate":
            os.truncate(folder / ADAPTER, 10)
        case "manifest":
            (folder / "manifest.json").write_text('{"files": {"a"')
        case "no manifest":
            (folder / "manifest.json").unlink()
        case "list":
            (folder / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointError) as caught:
        verify(folder)
    assert "\n" not in str(caught.value)
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        ({"step": "200"}, 3),
        ({"step": []}, 3),
        ({"step": True}, 3),
        ({}, math.inf),
        ({}, "3"),
        ({}, None),
    ],
)
def test_a_manifest_whose_numbers_are_none_is_damaged(tmp_path, facts, size):
    folder = tmp_path / "step-000001"
    save_checkpoint(tmp_path, 1, write=write_note)
    manifest = json.loads((folder / "manifest.json").read_text()) | facts
    manifest["files"]["a"]["bytes"] = size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"manifest.json: damaged"):
        verify(folder)


@pytest.mark.parametrize("files", [{}, {ADAPTER: {}}, {"../a": {"bytes": 0, "sha256": ""}}, []])
def test_a_manifest_without_files_verifies_nothing(tmp_path, files):
    folder = save_checkpoint(tmp_path, 1, write=write_adapter)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": files}))
    with pytest.raises(CheckpointError, match="step-000001"):
        verify(folder)
    with pytest.raises(CheckpointError, match="step-000001"):
        find_weights(folder)
    assert latest_checkpoint(tmp_path) is None


def test_a_file_that_is_needed_must_be_listed(tmp_path):
    folder = save_checkpoint(tmp_path, 1, write=write_adapter)
    save_state(folder, "trainer", {})
    verify(folder)  # notes beside the weights are nobody's business
    with pytest.raises(CheckpointError, match=r"trainer.json: not listed in manifest.json"):
        verify(folder, needs=[ADAPTER, "trainer.json"])
    assert latest_checkpoint(tmp_path, needs=["trainer.json"]) is None
    assert latest_checkpoint(tmp_path, needs=[ADAPTER]) == folder


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path):
    save_checkpoint(tmp_path, 1, write=write_adapter).rename(tmp_path / "step-000002")
    with pytest.raises(CheckpointError, match="step-000002: holds iteration 1"):
        verify(tmp_path / "step-000002")


def test_markers_of_checkpoints_that_are_gone_go_too(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, write=write_adapter)
    mark(tmp_path, "best", 2)
    remove_checkpoints_after(tmp_path, 1)
    assert read_marker(tmp_path, "latest") == 1
    assert not (tmp_path / "best.json").exists()
    remove_checkpoints_after(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_older_checkpoints_go_only_beyond_keep_and_the_best_one_stays(tmp_path):
    save_checkpoint(tmp_path, 1, write=write_adapter)
    mark(tmp_path, "best", 1, {"held_out_reward": 0.5})
    for step in (2, 3, 4):
        save_checkpoint(tmp_path, step, write=write_adapter, keep=2)
    assert names(tmp_path) == ["step-000001", "step-000003", "step-000004"]
    save_checkpoint(tmp_path, 5, write=write_adapter, keep=1, protect=[3])
    assert names(tmp_path) == ["step-000001", "step-000003", "step-000005"]


def test_a_failure_while_writing_leaves_the_older_checkpoints_and_no_litter(tmp_path):
    save_checkpoint(tmp_path, 1, write=write_adapter, keep=1)

    def fail(folder: Path) -> None:
        write_adapter(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, write=fail, keep=1)
    assert names(tmp_path) == ["step-000001"]
    assert not list(tmp_path.glob(".tmp-*"))
    verify(tmp_path / "step-000001")


def test_what_a_crash_left_half_written_is_removed_by_the_next_save(tmp_path):
    half = tmp_path / ".tmp-step-000001"
    half.mkdir(parents=True)
    write_adapter(half)
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 2, write=write_adapter)
    assert not half.exists()


def test_saving_the_same_step_again_replaces_it(tmp_path):
    save_checkpoint(tmp_path, 1, write=write_note)
    folder = save_checkpoint(tmp_path, 1, write=write_adapter)
    verify(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", ADAPTER]


def test_every_file_and_folder_of_a_checkpoint_is_on_the_disk_before_it_gets_its_name(
    tmp_path, monkeypatch
):
    synced, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(path.relative_to(tmp_path).as_posix())
        fsync(descriptor)

    def write(folder: Path) -> None:
        write_adapter(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "note").touch()

    monkeypatch.setattr(os, "fsync", record)
    save_checkpoint(tmp_path, 1, write=write)
    inside = [ADAPTER, "manifest.json", "deep", "deep/note"]
    before = {".tmp-step-000001", *(f".tmp-step-000001/{name}" for name in inside)}
    assert before <= set(synced[: synced.index(".")])  # "." is the run: the new name is in there


def test_a_checkpoint_that_was_half_removed_by_a_kill_is_in_nobodys_way(tmp_path):
    aside = tmp_path / ".tmp-old-step-000001"
    aside.mkdir()
    (aside / "left over").touch()
    (tmp_path / "step-000001").mkdir()
    (tmp_path / "step-000001" / ADAPTER).touch()
    remove_checkpoint(tmp_path / "step-000001")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_error_that_names_the_newest_good_checkpoint(
    tmp_path, monkeypatch, number
):
    save_checkpoint(tmp_path, 1, write=write_adapter, keep=1)

    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageFullError, match="newest good checkpoint is step-000001"):
        save_checkpoint(tmp_path, 2, write=write_adapter, keep=1)
    assert names(tmp_path) == ["step-000001"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_other_failures_of_the_disk_keep_their_own_name(tmp_path, monkeypatch):
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="input/output") as caught:
        save_checkpoint(tmp_path, 2, write=write_adapter)
    assert not isinstance(caught.value, StorageFullError)


@pytest.mark.parametrize("writer", ["safetensors file", "trainer state"])
def test_a_real_file_size_limit_while_saving_loses_nothing(tmp_path, writer):
    # The kernel refuses the write in the middle, as a full disk does; safetensors reports that in
    # an error of its own, Python in an OSError.
    save_checkpoint(tmp_path, 1, write=write_adapter, keep=1)

    def write(folder: Path) -> None:
        large = {"weight": torch.zeros(100_000)}
        if writer == "safetensors file":
            save_file(large, folder / ADAPTER)
        else:
            save_state(folder, "trainer", large)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFullError, match="step-000001"):
            save_checkpoint(tmp_path, 2, write=write, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["step-000001"]
    verify(tmp_path / "step-000001")


def test_state_comes_back_equal_bit_for_bit(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    state: dict[str, Any] = {
        "optimizer": {0: {"step": torch.tensor(3.0), "exp_avg": shared[:, 1]}, 7: {}},
        "betas": (0.9, 0.999),
        "scores": [0.1 + 0.2, -0.0, math.inf, 1e-308, 5, True, None, "größer"],
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.tensor([1.1], dtype=torch.bfloat16),
        "views": [shared.T, shared],
        "tensor": {"tensor": "a name that the format uses itself"},
    }
    save_state(tmp_path, "trainer", state)
    back = load_state(tmp_path, "trainer")
    assert list(back["optimizer"]) == [0, 7]
    assert torch.equal(back["optimizer"][0]["exp_avg"], shared[:, 1])
    assert back["optimizer"][0]["step"].shape == ()
    assert back["betas"] == (0.9, 0.999)
    assert back["scores"] == state["scores"]
    assert math.copysign(1, back["scores"][1]) == -1
    assert back["half"].dtype == torch.bfloat16
    assert torch.equal(back["half"], state["half"])
    assert torch.equal(back["views"][0], shared.T)
    assert torch.equal(back["bytes"], state["bytes"])
    assert back["tensor"] == state["tensor"]


def test_state_refuses_what_would_need_a_pickle(tmp_path):
    with pytest.raises(TypeError, match="expected tensors"):
        save_state(tmp_path, "trainer", {"when": object()})


@pytest.mark.parametrize("damage", ["missing", "half"])
def test_damaged_state_is_a_checkpoint_error(tmp_path, damage):
    save_state(tmp_path, "trainer", {"a": torch.zeros(3)})
    if damage == "missing":
        (tmp_path / "trainer.safetensors").unlink()
    else:
        os.truncate(tmp_path / "trainer.safetensors", 20)
    with pytest.raises(CheckpointError, match="trainer"):
        load_state(tmp_path, "trainer")


@pytest.mark.parametrize("content", ["{", "[]", '{"checkpoint": 5}', '{"checkpoint": "../etc"}'])
def test_a_damaged_marker_is_ignored(tmp_path, content):
    (tmp_path / "best.json").write_text(content)
    assert read_marker(tmp_path, "best") is None


def test_the_manifest_is_plain_json_with_size_and_hash(tmp_path):
    folder = save_checkpoint(tmp_path, 1, write=write_note)
    manifest = json.loads((folder / "manifest.json").read_text())
    # SHA-256 of "abc" is the example in FIPS 180-2.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert manifest == {"format": 1, "step": 1, "files": {"a": {"bytes": 3, "sha256": digest}}}
