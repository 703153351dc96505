"""Claims: a checkpoint of which any file is damaged gives the weights and state that were saved, or
is refused by a CheckpointError of one line; it never runs code. A run whose newest one is damaged
goes on from an older one, to the same weights."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from damages import Damage, damages, put, with_damage, with_header
from fault_counts import LONG, check_line, examples
from hypothesis import example, given
from hypothesis import strategies as st
from policies import KINDS, Build, Models, move_weights, write_language_models
from random_walk import RandomWalk, walk_settings
from walk_runs import measured, start, weights

from imgalign.errors import CheckpointError, ConfigError
from imgalign.runs.checkpoint import checkpoints, save_checkpoint, verify
from imgalign.runs.state import load_state, save_state
from imgalign.runs.trained import ADAPTER, find_weights, recorded_hash, weights_hash
from imgalign.train.starting import RESUMED, STATE, load_trainer_state

pytestmark = LONG


@contextmanager
def refused_or_read() -> Iterator[None]:
    """A CheckpointError of one line passes."""
    try:
        yield
    except CheckpointError as error:
        check_line(error)


# --- to resume from


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four iterations with two checkpoints, and a KL budget in its state."""
    out = tmp_path_factory.mktemp("damaged") / "run"
    start(out, settings=walk_settings(iterations=4, kl_budget_nats=50.0))
    return out


def state_in(checkpoint: Path, scratch: Path) -> list[bytes]:
    """What training goes on from, verified, as bytes."""
    verify(checkpoint, needs=[ADAPTER, *RESUMED])
    state = load_trainer_state(checkpoint)
    policy = RandomWalk(num_steps=3)
    policy.load(checkpoint)
    save_state(scratch, "found", {"state": state, "weights": policy.shift.detach()})
    return [(scratch / f"found.{end}").read_bytes() for end in ("json", "safetensors")]


@examples(60)
@given(data=st.data())
def test_a_verified_checkpoint_is_what_was_saved_or_refused(run, tmp_path, faults, data):
    newest = checkpoints(run)[-1]
    expected = state_in(newest, tmp_path)
    damage = data.draw(damages(newest))
    with faults.inject("checkpoints, verified"), with_damage(newest, damage), refused_or_read():
        assert state_in(newest, tmp_path) == expected


@examples(40)
@given(data=st.data())
def test_a_state_that_nobody_verified_is_read_or_refused(run, faults, data):
    newest = checkpoints(run)[-1]
    damage = data.draw(damages(newest))
    with faults.inject("checkpoints, not verified"), with_damage(newest, damage):
        with refused_or_read():
            load_state(newest, STATE)
        with refused_or_read():
            load_trainer_state(newest)


@examples(40)
@given(data=st.data())
def test_whoever_looks_for_the_weights_of_a_run_finds_whole_ones_or_is_refused(run, faults, data):
    known = {weights_hash(each) for each in checkpoints(run)}
    damage = data.draw(damages(run))
    with faults.inject("run folders"), with_damage(run, damage), refused_or_read():
        found = find_weights(run)
        assert weights_hash(found) in known
        recorded_hash(found)


@examples(6)
@given(data=st.data())
def test_a_run_whose_newest_checkpoint_is_damaged_ends_with_the_same_weights(
    run, tmp_path, faults, data
):
    out = tmp_path / "again"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    newest = checkpoints(out)[-1]
    damage = data.draw(damages(newest))
    with faults.inject("resumed from a damaged checkpoint"):
        (newest / damage.name).unlink()
        put(damage, newest / damage.name)
        start(out, settings=walk_settings(iterations=4, kl_budget_nats=50.0), resume=True)
        assert torch.equal(weights(out), weights(run))
        assert measured(out) == measured(run)


# --- weights of networks, from anywhere


@pytest.fixture(scope="module")
def models(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Folders of tiny models."""
    language = write_language_models(tmp_path_factory.mktemp("language"))
    return {"pipeline": tiny_pipeline_folder, **language}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "random walk"])
def test_weights_of_a_network_are_those_that_were_saved_or_refused(models, tmp_path, faults, kind):
    build: Build = KINDS[kind]
    policy = build(models)
    move_weights(policy)
    saved = save_checkpoint(tmp_path / "run", 1, write=policy.save)
    expected = [each.detach().clone() for each in policy.trainable_parameters()]

    @examples(15)
    @given(damage=damages(saved))
    def check(damage):
        with faults.inject(f"weights, {kind}"), with_damage(saved, damage):
            with refused_or_read():
                policy.load(saved)  # as it is: whoever calls this has verified it
            with refused_or_read():
                verify(saved)
                policy.load(saved)
                found = list(policy.trainable_parameters())
                assert all(map(torch.equal, found, expected))

    check()
    policy.load(saved)
    assert all(map(torch.equal, policy.trainable_parameters(), expected))


def with_settings(path: Path, settings: str) -> Damage:
    """Of an adapter in diffusers' layout; in another, more text in its header."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"]["lora_adapter_metadata"] = settings
    return Damage(path.name, content, with_header(header, content[start:]))


def with_text(path: Path) -> Damage:
    """Where the header has settings there is a long text, which the library quotes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start]) | {"__metadata__": "long" * 999}
    return Damage(path.name, content, with_header(header, content[start:]))


@pytest.mark.parametrize("kind", ["diffusion", "language"])
def test_an_adapter_to_start_from_is_read_or_refused(models, tmp_path, faults, kind):
    policy = KINDS[kind](models)
    move_weights(policy)
    folder = tmp_path / "adapter"
    folder.mkdir()
    policy.save(folder)
    whole = next(folder.glob("*.safetensors"))

    @examples(10)
    @given(damage=damages(folder))
    @example(damage=with_settings(whole, "}"))
    @example(damage=with_settings(whole, "[4]"))
    @example(damage=with_settings(whole, "[" * 9999))
    @example(damage=with_text(whole))
    def check(damage):
        with faults.inject(f"adapters, {kind}"), with_damage(folder, damage):
            try:
                KINDS[kind](models, adapter=str(folder))
            except ConfigError as error:
                check_line(error)

    check()
