"""Fixtures of the evaluation's tests."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen
from voting import BASE, Queue, Vote

from imgalign.config import dump_config
from imgalign.images import png
from imgalign.preferences.records import Submission
from imgalign.preferences.store import Store
from imgalign.runs.checkpoint import save_checkpoint
from imgalign.runs.metrics import MetricsWriter
from imgalign.runs.trained import ADAPTER
from imgalign.train.config import TrainConfig
from imgalign.train.data.rollouts import PromptsConfig, RolloutsConfig
from imgalign.train.data.source import HeldOutConfig
from imgalign.train.schedule import RunConfig


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / ADAPTER).write_bytes(b"")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint, step 3, and metrics around it."""
    folder = tmp_path / "run"

    def write(checkpoint: Path) -> None:
        (checkpoint / ADAPTER).write_bytes(b"")

    save_checkpoint(folder, 3, write=write)
    settings = TrainConfig(
        data=RolloutsConfig(
            prompts=PromptsConfig(num_storybook=5), held_out=HeldOutConfig(num_prompts=4)
        ),
        run=RunConfig(kl_budget_nats=12.0),
    )
    dump_config(settings, folder / "config.yaml")
    kept = settings.data.load_prompts()._asdict()
    (folder / "prompts.json").write_text(json.dumps(kept))
    with MetricsWriter(folder / "metrics.jsonl") as metrics:
        metrics.write(3, {"kl": 1.0})
        metrics.write(4, {"kl": 2.5})
    return folder


@pytest.fixture
def aligned(adapter: Path) -> dict[str, Any]:
    digest = sha256((adapter / ADAPTER).read_bytes()).hexdigest()
    return BASE | {"adapter": str(adapter), "adapter_hash": digest}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMGALIGN_DATABASE", raising=False)
    opened = Store.open(tmp_path / "imgalign.db")
    for name in ("ann", "bob", "cat"):
        opened.add_annotator(name)
    return opened


@pytest.fixture
def queue(store: Store) -> Queue:
    """Queue an item of one new image by each of the makers."""
    num = 0

    def add(
        prompt: str, *makers: dict[str, Any], project: str = "default", overlap: int = 9
    ) -> str:
        nonlocal num
        images = []
        for facts in makers:
            num += 1
            image = png(Image.new("RGB", (8, 8), (num // 256, num % 256, 0)))
            images.append(store.add_image(image, provenance(prompt=prompt, **facts)))
        return store.add_item(prompt, images, source="test", project=project, overlap=overlap)

    return add


@pytest.fixture
def vote(store: Store) -> Vote:
    """The annotator's judgement of the item that is next for them; ">" prefers its first image."""

    def say(who: str, said: Any, *, project: str = "default", **fields: Any) -> Submission:
        rankings = {">": ((0,), (1,)), "<": ((1,), (0,)), "=": ((0, 1),)}
        item = store.next_item(who, project=project)
        if said in ("all_bad", "skipped"):
            fields |= {"verdict": said, "ranking": None, "reason": "blurred"}
        else:
            ranking = rankings[said] if isinstance(said, str) else said
            fields["ranking"] = on_screen(store, item, ranking, who)
        submission = judge(item, who, **fields)
        store.submit(submission)
        return submission

    return say
