"""What benchmarks/cost_curves.py measures: its axes, and one point of each in a process of its own.

Seconds are those of the processor. Nothing large is imported here: Linux begins the peak memory of
a process with what the process held that started it.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.request import urlopen

Facts: TypeAlias = dict[str, Any]
Curves: TypeAlias = dict[str, Facts]
"""`cpu_seconds` and `peak_memory_gb` of each curve at one point."""

HERE = Path(__file__).parent
ROOT = HERE.parent
IMGALIGN = (sys.executable, "-m", "imgalign")
ITERATION = "an iteration"
ITERATIONS = 4
"""Of which the first, which makes what is made once, and the last, which measures, do not count."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One number that is varied, and what is measured at each of its values."""

    label: str
    points: Sequence[int]
    measure: Callable[[int, Path], Curves]
    expected: Mapping[str, float]
    """The exponent that the CPU seconds of each curve should have at most: 1 is linear."""
    repetitions: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a process printed and took, with the processes that it waited for."""

    said: str
    cpu_seconds: float
    seconds: float
    peak_memory_gb: float

    def cost(self) -> Facts:
        """What a curve holds."""
        names = ("cpu_seconds", "seconds", "peak_memory_gb")
        return {name: round(getattr(self, name), 4) for name in names}


def one_thread() -> dict[str, str]:
    """The environment of every process."""
    own = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return os.environ | own | {"PYTHONPATH": str(ROOT)}


def finished(command: Sequence[str], folder: Path) -> Finished:
    """Run a command to its end; SystemExit with what it said where it fails."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=folder, env=one_thread(), stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read().decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed\n{said[-3000:]}")
    return Finished(
        said=said,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        seconds=time.monotonic() - began,
        peak_memory_gb=usage.ru_maxrss * 1024 / 1e9,
    )


def trained(recipe: str, settings: Sequence[str], *, processes: int = 1) -> Curves:
    """An iteration of a short run, measured by the run itself, and the whole command."""
    shared = f"--nproc-per-node={processes}"
    launched = ["torch.distributed.run", "--standalone", shared, "-m", "imgalign"]
    program = [sys.executable, "-m", *(launched if processes > 1 else ["imgalign"])]
    quiet = [f"run.samples.{name}=1" for name in ("num_prompts", "images_per_prompt")]
    quiet += ["run.samples.every=1000", "run.checkpoint_every=1000", "run.measure_every=1000"]
    quiet += ["data.held_out.num_prompts=0"]
    short = [f"run.iterations={ITERATIONS}", "run.device=cpu", *quiet]
    with tempfile.TemporaryDirectory() as place:
        command = [*program, "train", recipe, *settings, *short, "--out", f"{place}/run"]
        whole = finished(command, Path(place))
        lines = (Path(place) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for line in lines if "cpu_seconds" in (row := json.loads(line))]
    assert len(rows) == ITERATIONS, f"{len(rows)} iterations in metrics.jsonl"
    iteration = {
        name: round(statistics.median(row[name] for row in rows[1:-1]), 4)
        for name in ("cpu_seconds", "seconds")
    }
    peak = round(max(row["peak_memory_gb"] for row in rows), 4)
    return {ITERATION: {**iteration, "peak_memory_gb": peak}, "the command": whole.cost()}


def of_rollouts(*, prompts: int, settings: Sequence[str] = (), processes: int = 1) -> Curves:
    """GRPO on eight images of each prompt, scored by zero-shot CLIP."""
    wanted = ["reward.path=storybook", f"data.prompts_per_iteration={prompts}", *settings]
    return trained("storybook_grpo", wanted, processes=processes)


def images(count: int, folder: Path) -> Curves:
    """Images of an iteration."""
    return of_rollouts(prompts=count // 8)


def steps(count: int, folder: Path) -> Curves:
    """Denoising steps, all of which are learned from."""
    every = ["algorithm.credited_steps=null", "algorithm.kl_steps=null"]
    return of_rollouts(prompts=1, settings=[*every, f"policy.num_inference_steps={count}"])


def processes(count: int, folder: Path) -> Curves:
    """An iteration of 32 images that processes share: what the first of them takes."""
    found = of_rollouts(prompts=4, processes=count)
    return {f"{ITERATION}, each process": found[ITERATION], "the command": found["the command"]}


def stored(operation: str, folder: Path, *options: str) -> Finished:
    """An operation of cost_store.py on the store in a folder."""
    script = str(HERE / "cost_store.py")
    return finished([sys.executable, script, operation, str(folder), *options], ROOT)


def ranked(count: int, folder: Path) -> Curves:
    """Sixteen rankings of so many images in an iteration of DPO."""
    store = folder / f"images-{count}"
    if not (store / "filled").is_file():
        stored("fill-sets", store, f"--number={count}")
    where = [f"data.database={store / 'imgalign.db'}", f"data.originals={store / 'images'}"]
    return trained("storybook_dpo", [*where, "data.rankings_per_iteration=16"])


OPERATIONS: Mapping[str, float] = {
    "next set": 0.0,
    "vote": 0.0,
    "counts": 0.0,
    "results page": 1.0,
    "results page, after a vote": 1.0,
    "reading for a reward": 1.0,
    "export": 1.0,
}
"""Of cost_store.py, with the exponents that are expected."""


def rankings(count: int, folder: Path) -> Curves:
    """Operations on a store with so many rankings."""
    store = folder / f"rankings-{count}"
    if not (store / "filled").is_file():
        stored("fill", store, f"--number={count}")
    found: Curves = json.loads(stored("measure", store).said.splitlines()[-1])
    return found


def annotators(count: int, folder: Path) -> Curves:
    """So many annotators who together judge about 20 sets a second, or as many as they can."""
    with tempfile.TemporaryDirectory() as place:
        done = stored("annotators", Path(place), f"--number={count}")
    return {"the server, a judged set": json.loads(done.said.splitlines()[-1])}


def server_cost(process: int) -> Facts:
    """CPU seconds of a running process until now, and the most memory that it held."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    held = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    assert held is not None
    taken = (int(fields[11]) + int(fields[12])) / TICKS
    return {"cpu_seconds": taken, "peak_memory_gb": round(int(held[1]) * 1024 / 1e9, 4)}


def first_page(folder: Path) -> Facts:
    """`imgalign ui` in an empty folder until its page came."""
    began = time.monotonic()
    with subprocess.Popen(
        [*IMGALIGN, "ui", "--create", "--port", "0"],
        cwd=folder,
        env=one_thread(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            found = (re.search(r"http://[\d.]+:\d+", line) for line in server.stdout)
            address = next(each.group() for each in found if each)
            with urlopen(address, timeout=600) as page:
                assert b"<html" in page.read()
            return {**server_cost(server.pid), "seconds": round(time.monotonic() - began, 4)}
        finally:
            server.terminate()


def start(count: int, folder: Path) -> Curves:
    """What one waits for before anything can be done."""
    with tempfile.TemporaryDirectory() as place:
        drawn = ["generate", "--prompt", "a red cat on a blue house", "--out", f"{place}/images"]
        return {
            "imgalign --help": finished([*IMGALIGN, "--help"], Path(place)).cost(),
            "imgalign generate, one image": finished([*IMGALIGN, *drawn], Path(place)).cost(),
            "imgalign ui, first page": first_page(Path(place)),
        }


AXES: Mapping[str, Axis] = {
    "images": Axis(
        label="images an iteration",
        points=(8, 16, 32, 64),
        measure=images,
        expected={ITERATION: 1.0},
        repetitions=2,
    ),
    "steps": Axis(
        label="denoising steps",
        points=(5, 10, 20, 40),
        measure=steps,
        expected={ITERATION: 1.0},
    ),
    "k": Axis(
        label="images a ranking",
        points=(2, 3, 4, 6, 9),
        measure=ranked,
        expected={ITERATION: 1.0},
    ),
    "rankings": Axis(
        label="rankings in the store",
        points=(1_000, 3_000, 10_000, 30_000, 100_000),
        measure=rankings,
        expected=OPERATIONS,
    ),
    "annotators": Axis(
        label="annotators at once",
        points=(1, 10, 30, 100),
        measure=annotators,
        expected={"the server, a judged set": 0.0},
        repetitions=1,
    ),
    "processes": Axis(
        label="processes",
        points=(1, 2, 4),
        measure=processes,
        expected={f"{ITERATION}, each process": -1.0},
        repetitions=2,
    ),
    "start": Axis(label="start", points=(1,), measure=start, expected={}, repetitions=5),
}
