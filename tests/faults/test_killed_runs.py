"""Claims: a run that is killed -9 at any moment, as often as one likes, and resumed ends as the one
that was not disturbed: with its weights, state and metrics, and nothing half-written."""

import random
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from algorithm_rows import ALGORITHMS
from fault_counts import LONG, Faults, repeated
from forked_runs import RunServer
from language_runs import language_settings, write_talker
from random_walk import walk_data, walk_data_for, walk_settings
from run_server import Reply, Request
from walk_runs import measured

from imgalign.config import dump_config
from imgalign.runs.checkpoint import checkpoints, verify
from imgalign.runs.folder import CONFIG
from imgalign.runs.status import read_status
from imgalign.train.config import TrainConfig

MOST_KILLS = 4
"""Of one run, before it is left in peace."""
ALIKE = ("best.json", "latest.json", "prompts.json", "rewards.json", CONFIG)

pytestmark = LONG


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to, and what starts it again."""

    request: Request
    reply: Reply

    @property
    def out(self) -> Path:
        return Path(self.request.out)


@pytest.fixture(scope="module")
def warm(server: RunServer, tmp_path_factory: pytest.TempPathFactory) -> RunServer:
    """A server that has imported what a run of the random walk needs."""
    folder = tmp_path_factory.mktemp("warm")
    dump_config(walk_settings(), folder / "settings.yaml")
    request = Request(out=str(folder / "run"), settings=str(folder / "settings.yaml"), warm=True)
    assert server.run(request).code == 0
    return server


def undisturbed(
    server: RunServer, folder: Path, settings: TrainConfig, *, walk: bool
) -> Undisturbed:
    path = folder / "settings.yaml"
    dump_config(settings, path)
    request = Request(out=str(folder / "whole"), settings=str(path), walk=walk)
    if not walk:
        server.run(replace(request, out=str(folder / "warm"), warm=True))
    reply = server.run(request)
    assert reply.code == 0, reply.said
    return Undisturbed(request, reply)


def attempt(whole: Undisturbed, out: Path, chance: random.Random) -> Request:
    """A run or its resumption that is killed at a random moment: by the clock, or at a write."""
    request = replace(whole.request, out=str(out), resume=(out / CONFIG).exists())
    if chance.random() < 0.3:
        return replace(request, seconds=chance.uniform(0, whole.reply.seconds))
    return replace(request, operation=chance.randint(1, whole.reply.operations))


def killed_until_it_ends(
    server: RunServer, whole: Undisturbed, out: Path, chance: random.Random
) -> int:
    """How often it was killed before it ended."""
    kills = 0
    for _ in range(chance.randint(1, MOST_KILLS)):
        reply = server.run(attempt(whole, out, chance))
        if reply.code == 0:  # it ended before its moment came
            return kills
        assert reply.code == -signal.SIGKILL, reply.said
        kills += 1
    request = replace(whole.request, out=str(out), resume=(out / CONFIG).exists())
    reply = server.run(request)
    assert reply.code == 0, reply.said
    return kills


def assert_same(whole: Path, out: Path) -> None:
    """The same files, the same content but for what clocks say, and nothing half-written."""
    names = [{path.relative_to(each) for path in each.rglob("*")} for each in (whole, out)]
    assert names[0] == names[1]
    for newest in zip(checkpoints(whole), checkpoints(out), strict=True):
        verify(newest[1])
        for path in newest[0].iterdir():
            assert path.read_bytes() == (newest[1] / path.name).read_bytes(), path
    for path in whole.rglob("*.png"):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes(), path
    for name in ALIKE:
        if (whole / name).exists():
            assert (whole / name).read_bytes() == (out / name).read_bytes(), name
    assert measured(whole) == measured(out)
    status = read_status(out)
    assert status is not None
    assert status.state == "finished"


@dataclass(frozen=True)
class Drilled:
    """What is killed, and the name of its algorithm."""

    name: str
    whole: Undisturbed


def survives(
    server: RunServer, drilled: Drilled, out: Path, faults: Faults, *, kind: str, number: int
) -> None:
    """Kill and resume a run as often as chance has it, and compare it with the undisturbed one."""
    chance = random.Random(f"{drilled.name}, {number}")
    kills = killed_until_it_ends(server, drilled.whole, out, chance)
    kind = f"kill -9, {kind}, {drilled.name}"
    faults.injected[kind] += kills
    assert_same(drilled.whole.out, out)
    faults.survived[kind] += kills
    shutil.rmtree(out)


@pytest.fixture(scope="module", params=ALGORITHMS)
def walk(request, warm, tmp_path_factory) -> Drilled:
    folder, algorithm = tmp_path_factory.mktemp("walk"), ALGORITHMS[request.param]
    data = walk_data_for(algorithm, folder / "images")
    settings = walk_settings(algorithm=algorithm, data=data, iterations=4, keep_checkpoints=2)
    return Drilled(request.param, undisturbed(warm, folder, settings, walk=True))


@pytest.fixture(scope="module", params=["grpo", "dpo"])
def talker(request, warm, tmp_path_factory) -> Drilled:
    folder = tmp_path_factory.mktemp("talker")
    model, algorithm = write_talker(folder / "model"), {"name": request.param, "minibatches": 2}
    settings = language_settings(model, algorithm=algorithm)
    return Drilled(request.param, undisturbed(warm, folder, settings, walk=False))


@pytest.fixture(scope="module", params=["grpo", "supervised, reward"])
def painter(request, warm, tiny_pipeline_folder, tmp_path_factory) -> Drilled:
    folder = tmp_path_factory.mktemp("painter")
    policy = {
        "model": str(tiny_pipeline_folder),
        "dtype": "float32",
        "batch_size": 4,
        "num_inference_steps": 3,
    }
    prompts = folder / "prompts.txt"
    prompts.write_text("a red house\na blue boat\na green tree\nthe house\n", encoding="utf-8")
    data, algorithm = walk_data(prompts={"file": str(prompts)}), ALGORITHMS[request.param]
    settings = walk_settings(
        policy=policy, algorithm=algorithm, data=data, iterations=2, checkpoint_every=1
    )
    return Drilled(request.param, undisturbed(warm, folder, settings, walk=False))


@repeated(1)
def test_a_run_of_any_algorithm_that_is_killed_at_random_moments_ends_as_it_would_have(
    warm, walk, tmp_path, faults, number
):
    survives(warm, walk, tmp_path / "run", faults, kind="random walk", number=number)


@repeated(1)
def test_a_run_of_a_language_model_does_too(warm, talker, tmp_path, faults, number):
    survives(warm, talker, tmp_path / "run", faults, kind="language model", number=number)


@repeated(1)
def test_a_run_of_a_diffusion_model_does_too(warm, painter, tmp_path, faults, number):
    survives(warm, painter, tmp_path / "run", faults, kind="diffusion model", number=number)
