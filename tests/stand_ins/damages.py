"""Files of a folder as disks, editors and strangers damage them; strategies of hypothesis."""

import io
import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from mutations import as_json, changed, damaged


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
