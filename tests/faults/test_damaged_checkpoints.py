"""Claims: a checkpoint of which any file is damaged gives the weights and state that were saved, or
is refused by a CheckpointError of one line; it never runs code. A run whose newest one is damaged
goes on from an older one, to the same weights."""

import io
import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_counts import LONG, check_line, examples
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import as_json, changed, damaged
from policies import KINDS, Build, Models, move_weights, write_language_models
from random_walk import RandomWalk, walk_settings
from walk_runs import measured, start, weights

from imgalign.errors import CheckpointError, ConfigError
from imgalign.runs.checkpoint import checkpoints, save_checkpoint, verify
from imgalign.runs.state import load_state, save_state
from imgalign.runs.trained import ADAPTER, find_weights, recorded_hash, weights_hash
from imgalign.train.starting import RESUMED, STATE, load_trainer_state

pytestmark = LONG


class Touch:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def pickles(path: Path) -> list[bytes]:
    """Pickles that make a file there, as Python and torch write them."""
    out = io.BytesIO()
    torch.save(Touch(path), out)
    return [pickle.dumps(Touch(path)), out.getvalue()]


class Damage:
    """What is there instead of a file of a folder; None for a folder."""

    def __init__(self, name: str, was: bytes, now: bytes | None) -> None:
        self.name, self.was, self.now = name, was, now

    def __repr__(self) -> str:
        """Where they differ, in short: of a long one hypothesis warns, and hides the failure."""
        if self.now is None:
            return f"{self.name}: a folder"
        begin = 8 + equal(self.was[8:], self.now[8:])  # after the length of a header
        end = equal(self.was[begin:][::-1], self.now[begin:][::-1])
        was, now = (each[begin : len(each) - end] for each in (self.was, self.now))
        return (
            f"{self.name}, after {begin} bytes that end in {self.was[:begin][-40:]!r}:"
            f" {len(was)} bytes {was[:80]!r} became {len(now)} bytes {now[:80]!r}"
        )


def equal(one: bytes, other: bytes) -> int:
    """How many bytes at the start of both are the same."""
    both = list(zip(one, other, strict=False))
    return next((place for place, (a, b) in enumerate(both) if a != b), len(both))


@st.composite
def damages(draw: st.DrawFn, folder: Path) -> Damage:
    """Of one file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = draw(st.sampled_from(files))
    kinds = ["bytes", "bytes", "other", "pickle", "folder", "nothing"]
    special = {".json": "json", ".safetensors": "header"}.get(path.suffix)
    kind = draw(st.sampled_from(kinds + ([special] * 4 if special else [])))
    was, now = path.read_bytes(), b""
    match kind:
        case "json":
            other, _ = draw(changed(json.loads(was)))
            now = as_json(other).encode()
        case "header":
            now = draw(other_header(was))
        case "other":
            now = draw(st.sampled_from(files)).read_bytes()
        case "pickle":
            now = draw(st.sampled_from(pickles(folder.parent / "ran")))
        case "bytes":
            now = draw(damaged(was))
    name = path.relative_to(folder).as_posix()
    return Damage(name, was, None if kind == "folder" else now)


@st.composite
def other_header(draw: st.DrawFn, content: bytes) -> bytes:
    """A file of safetensors whose header, or the settings in it, say something else."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    own = header.get("__metadata__", {})
    name = draw(st.sampled_from([None, *sorted(own.keys() & {"lora_adapter_metadata"})]))
    if name is None:
        header, _ = draw(changed(header))
    elif draw(st.booleans()):
        own[name] = draw(damaged(own[name].encode())).decode(errors="replace")
    else:
        own[name] = as_json(draw(changed(json.loads(own[name])))[0])
    return with_header(header, content[start:])


def with_header(header: Any, tensors: bytes) -> bytes:
    """A file of safetensors, as the library writes it."""
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def put(damage: Damage, path: Path) -> None:
    """Where nothing is."""
    if damage.now is None:
        path.mkdir()
    else:
        path.write_bytes(damage.now)


@contextmanager
def with_damage(folder: Path, damage: Damage) -> Iterator[None]:
    """Inside, a file of the folder is damaged. No code may run meanwhile."""
    path, aside = folder / damage.name, folder.parent / "aside"
    path.rename(aside)
    try:
        put(damage, path)
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        aside.rename(path)
    assert not (folder.parent / "ran").exists()


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
