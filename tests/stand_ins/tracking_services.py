"""Trackers that keep in memory what is logged to them, and a library of Weights & Biases of that
kind."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from imgalign.runs.metrics import Value

Log = Callable[[Mapping[str, Any]], None]


class Kept:
    """A tracker of no service."""

    is_new = True
    place = "memory"

    def __init__(self) -> None:
        self.rows: list[dict[str, Value]] = []
        self.grids: list[tuple[int, str]] = []
        self.closed = False

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        self.rows.append({"step": step, **values})

    def show(self, step: int, samples: Path) -> None:
        self.grids.append((step, samples.name))

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Image:
    """What is shown of one."""

    pixels: Any


@dataclass(frozen=True)
class Table:
    columns: list[str]
    data: list[list[str]]
    dataframe: None = None


@dataclass
class Run:
    """One session of a run, as `init` opened it."""

    settings: dict[str, Any]
    """The arguments of `init`."""
    before: Log
    """Called with what is logged, before it is; it may refuse."""
    offline: bool
    url: str = "https://wandb.example/run"
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The history."""
    metrics: dict[str, str | None] = field(default_factory=dict)
    """Over which metric another is drawn, by its name or a pattern of it."""
    config: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    _row: dict[str, Any] = field(default_factory=dict)

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics[name] = step_metric

    def log(self, values: Mapping[str, Any], step: int | None = None, commit: bool = True) -> None:
        self.before(values)
        assert step is None, "the library would refuse one that is not above the last"
        self._row |= values
        if commit:
            self.rows.append(self._row)
            self._row = {}

    def finish(self) -> None:
        self.finished = True


class Wandb(ModuleType):
    """The module, with the runs that were opened on it in `sessions`."""

    def __init__(self, before: Log) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.before = before
        self.sessions: list[Run] = []
        self.Image = Image
        self.Table = Table

    def init(self, **settings: Any) -> Run:
        self.before({})
        offline = settings["settings"].get("mode") == "offline"
        run = Run(settings, self.before, offline=offline)
        self.sessions.append(run)
        self.config = SimpleNamespace(update=lambda values, **_: run.config.update(values))
        return run


def install(monkeypatch: pytest.MonkeyPatch, *, before: Log = lambda values: None) -> Wandb:
    """Let `import wandb` give the stand-in."""
    module = Wandb(before)
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_CONSOLE", "WANDB_SILENT", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return module
