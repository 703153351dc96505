"""imgalign and its peers in one run: the same work by turns, in CPU seconds of one thread.

    python benchmarks/compare_peers.py ddpo --environments runs/peers
    python benchmarks/compare_peers.py ddpo --environments runs/peers --batches 1 --repetitions 1

Builds the environment of each side in a folder of `--environments` where it is not there yet, all
with one release of PyTorch, runs the sides one after the other, each in a process of its own, as
often as `--repetitions` says, and refuses to compare unless they send the same number of rows
through the network. Writes medians and ranges to `--results`, beside what was measured earlier of
other peers, and prints a table. Left out: what a side does (peers/).
"""

import argparse
import fcntl
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import sd15
import torch
from fetching import fetched

from imgalign.diffusion.loading import load_pipeline
from imgalign.evaluate.origin import command_line, hardware, library_versions
from imgalign.language.loading import STORYBOOK as LANGUAGE_MODEL
from imgalign.storybook.demonstrations import demonstrations
from imgalign.storybook.drawing import draw_prompt
from imgalign.storybook.scenes import candidate_prompts

Facts: TypeAlias = dict[str, Any]

HERE = Path(__file__).parent
OF_SCRIPT = ("script_sha256",)
"""Where a side is a script of somebody else's, which one."""
RESULTS = HERE / "results" / "peers.json"
TORCH = "torch==2.13.0"
"""Of all sides: builds of PyTorch differ in what they hold in memory."""
ROOT = HERE.parent
OURS = "imgalign"
ONCE = ("cpu_seconds_before",)
"""What a side measures once, beside its phases: what it does before the first step."""
NOT_NEEDED = ("open_clip_torch", "torch", "torchvision")
"""Dependencies of imgalign's that these sides do without, or take in the release of all sides."""


def own_packages() -> Sequence[str]:
    """What imgalign depends on, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"]
    return [each for each in asked if re.split("[<>=]", each)[0] not in NOT_NEEDED]


COMMON = (TORCH, "peft", "datasets", "protobuf")
VISION = ("torch==2.14.1", "torchvision==0.29.1")
"""Of both sides where the peer needs torchvision, whose releases each go with one of PyTorch."""
DIFFUSERS_COMMIT = "071190daca865a4d04deac0e02cda5b8c5d6f6fa"
SCRIPT = (
    f"https://raw.githubusercontent.com/huggingface/diffusers/{DIFFUSERS_COMMIT}/examples/"
    "research_projects/diffusion_dpo/train_diffusion_dpo.py"
)
"""A script that is in no package; fetched once, unless it lies in the folder of environments."""
ENVIRONMENTS: Mapping[str, Sequence[str]] = {
    OURS: (*own_packages(), TORCH),
    f"{OURS}-vision": (*own_packages(), *VISION),
    "diffusers-0.42.1": (
        *("diffusers==0.42.1", "transformers==5.24.0", "tensorboard", "wandb", "peft", "datasets"),
        *VISION,
    ),
    "trl-0.23.1": ("trl==0.23.1", "diffusers==0.35.2", "transformers==4.56.2", *COMMON),
    "trl-1.12.0": ("trl==1.12.0", "transformers==5.24.0", *COMMON),
    "trl-1.16.0": ("trl==1.16.0", "transformers==5.24.0", *COMMON),
}
"""The packages of each; 0.23.1 is the last release of TRL with a trainer for diffusion models, and
1.12.0 the last with PPOTrainer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of those that do the same work."""

    name: str
    environment: str
    script: str
    arguments: Sequence[str]
    rows: Mapping[str, float] = field(default_factory=dict)
    """Rows through the network in some phases, for each of the peer's, where it is not one: more
    where the pretrained model is asked for a KL that the peer does not measure, less where the peer
    asks for one more."""


def ddpo(given: argparse.Namespace, folder: Path) -> list[Side]:
    """Policy gradients on the storybook's pipeline; nothing is learned from the last step."""
    sd15.save(load_pipeline("storybook", device=torch.device("cpu")), folder / "pipeline")
    sizes = [f"--{name}={getattr(given, name)}" for name in ("batch", "batches", "steps", "epochs")]
    sizes += [f"--guidance={given.guidance}", "--rank=8"]
    peer = [str(folder / "pipeline"), "--precision=no", f"--learned={given.steps - 1}"]
    learned, one = given.steps - 1, [*sizes, "--reference-passes=1"]
    ours: Facts = {"environment": OURS, "script": "our_ddpo.py"}
    return [
        Side(
            name="TRL 0.23.1, DDPOTrainer, which has no KL",
            environment="trl-0.23.1",
            script="ddpo.py",
            arguments=[*peer, *sizes],
        ),
        *(
            Side(
                name=f"imgalign, {name}", arguments=arguments, rows={"learning": 1 + share}, **ours
            )
            for name, arguments, share in (
                ("no KL", [*sizes, "--reference-passes=0"], 0.0),
                ("KL of one step", one, 1 / learned),
                ("KL of one step, 4 images a pass", [*one, "--in-pass=4"], 1 / learned),
                ("KL of one step, 32 images a pass", [*one, "--in-pass=32"], 1 / learned),
                ("KL of every step", sizes, 1.0),
                ("KL of every step, three in a pass", [*sizes, "--steps-per-pass=3"], 1.0),
            )
        ),
    ]


def diffusion_dpo(given: argparse.Namespace, folder: Path) -> list[Side]:
    """DPO on pairs of the storybook's images, a LoRA of its diffusion model."""
    sd15.save(load_pipeline("storybook", device=torch.device("cpu")), folder / "pipeline")
    pairs = images_of(given, folder)
    sizes = [f"--pairs={pairs}", "--batch=16", f"--epochs={given.image_steps}", "--rank=8"]
    ours: Facts = {"environment": f"{OURS}-vision", "script": "our_dpo.py"}
    script = f"--script={fetched(SCRIPT, given.environments / DIFFUSERS_COMMIT[:8])}"
    return [
        Side(
            name="diffusers, train_diffusion_dpo.py",
            environment="diffusers-0.42.1",
            script="diffusion_dpo.py",
            arguments=[str(folder / "pipeline"), script, *sizes],
        ),
        Side(name="imgalign", arguments=sizes, **ours),
        Side(
            name="imgalign, images encoded at each step, too",
            arguments=[*sizes, "--encode-each-step"],
            **ours,
        ),
    ]


def images_of(given: argparse.Namespace, folder: Path) -> Path:
    """Pairs of drawings of a prompt each, as many as the steps learn from, none twice."""
    (folder / "images").mkdir()
    lines = []
    for number, prompt in enumerate(candidate_prompts(16 * given.image_steps)):
        files = [folder / "images" / f"{number}-{seed}.png" for seed in range(2)]
        for seed, file in enumerate(files):
            draw_prompt(prompt, seed=seed).save(file)
        lines.append({"prompt": prompt, "chosen": str(files[0]), "rejected": str(files[1])})
    pairs = folder / "image-pairs.jsonl"
    pairs.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return pairs


def texts_of(given: argparse.Namespace, folder: Path) -> list[str]:
    """Arguments that name pairs of texts of the storybook, none twice, and the sizes of steps."""
    count, data = 16 * given.language_steps, folder / "pairs.jsonl"
    found = {one.prompt: one.completion for one in demonstrations(4 * count, seed=7)}
    made = list(found.items())[:count]
    assert len(made) == count
    lines = [
        {"prompt": prompt, "chosen": text, "rejected": other}
        for (prompt, text), (_, other) in zip(made, [*made[1:], made[0]], strict=True)
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    data.write_text(text, encoding="utf-8")
    return [f"--data={data}", "--batch=16", f"--epochs={given.language_steps}", "--rate=1e-4"]


def language_peer(name: str, work: str, sizes: Sequence[str]) -> Side:
    """A trainer of TRL's on the storybook's language model."""
    return Side(
        name=f"TRL 1.16.0, {name}",
        environment="trl-1.16.0",
        script="language.py",
        arguments=[work, str(LANGUAGE_MODEL), *sizes],
    )


def own_language(work: str, sizes: Sequence[str], *, name: str = "") -> Side:
    """The same work by imgalign, on the same model."""
    return Side(
        name=f"imgalign{name}",
        environment=OURS,
        script="our_language.py",
        arguments=[work, *sizes],
    )


def language_dpo(given: argparse.Namespace, folder: Path) -> list[Side]:
    """DPO on pairs of texts of the storybook, all weights of its language model."""
    sizes = texts_of(given, folder)
    return [language_peer("DPOTrainer", "dpo", sizes), own_language("dpo", sizes)]


def language_kto(given: argparse.Namespace, folder: Path) -> list[Side]:
    """KTO on likes and dislikes of texts; only TRL has passes of their own for its KL."""
    sizes = texts_of(given, folder)
    without = [*sizes, "--loss=apo_zero_unpaired"]
    return [
        language_peer("KTOTrainer", "kto", sizes),
        replace(language_peer("KTOTrainer without the KL", "kto", without), rows={"total": 1 / 2}),
        replace(own_language("kto", sizes, name=", KL of the step before"), rows={"total": 1 / 2}),
    ]


def language_reward(given: argparse.Namespace, folder: Path) -> list[Side]:
    """Reward models of texts on pairs, all weights; by default ours reads the likelihood, too."""
    sizes = texts_of(given, folder)
    both = [*sizes, "--likelihood"]
    return [
        language_peer("RewardTrainer", "reward", sizes),
        own_language("reward", sizes, name=", a head alone, as TRL"),
        own_language("reward", both, name=", head and likelihood"),
    ]


def language_ppo(given: argparse.Namespace, folder: Path) -> list[Side]:
    """PPO on texts, all weights, a critic and a reward as large as the policy."""
    data, *_ = texts_of(given, folder)
    sizes = [data, "--texts=32", "--tokens=32", "--inner-epochs=4", "--rate=1e-4"]
    sizes.append(f"--epochs={given.language_iterations}")
    return [
        Side(
            name="TRL 1.12.0, PPOTrainer",
            environment="trl-1.12.0",
            script="language_ppo.py",
            arguments=[str(LANGUAGE_MODEL), *sizes],
        ),
        # Scores again what it wrote: 1 pass after 32 tokens. Learning is 5 passes of policy or
        # pretrained model and 5 of the critic, and one more for the exact KL that is reported.
        replace(own_language("ppo", sizes), rows={"sampling": 33 / 32, "learning": 11 / 10}),
    ]


COMPARISONS: Mapping[str, Callable[[argparse.Namespace, Path], list[Side]]] = {
    "ddpo": ddpo,
    "language-dpo": language_dpo,
    "language-kto": language_kto,
    "language-reward": language_reward,
    "language-ppo": language_ppo,
    "diffusion-dpo": diffusion_dpo,
}
"""The sides of each, the peer first, from the settings asked for and a folder for models."""


@contextmanager
def waiting_for(file: Path) -> Iterator[None]:
    """Alone at a file until the end, after whoever else is at it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def python_of(name: str, environments: Path) -> Path:
    """The interpreter of a peer's environment, which is built where it is not complete."""
    with waiting_for(environments / name):
        return built(name, environments / name)


def built(name: str, folder: Path) -> Path:
    """The interpreter of an environment, made anew unless it has what is wanted."""
    python, done = folder / "bin" / "python", folder / "installed"
    packages = " ".join(ENVIRONMENTS[name])
    if not done.is_file() or done.read_text(encoding="utf-8") != packages:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]]
        subprocess.run(install, check=True)
        if name.startswith(OURS):  # this checkout, without what it would install
            (packages_folder,) = (folder / "lib").glob("python*/site-packages")
            (packages_folder / "imgalign.pth").write_text(f"{ROOT}\n", encoding="utf-8")
        done.write_text(packages, encoding="utf-8")
    return python


def run(side: Side, environments: Path, folder: Path) -> Facts:
    """What a side measured of itself, with one thread."""
    python = str(python_of(side.environment, environments))
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    command = [python, str(HERE / "peers" / side.script), *side.arguments, f"--out={out}"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    one = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=clean | one, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side.name}: {' '.join(command)} failed\n{done.stderr[-3000:]}")
    found: Facts = json.loads(out.read_text(encoding="utf-8"))
    (row,) = found.pop("rows")
    return found | row


def check_rows(sides: Sequence[Side], found: Sequence[Facts]) -> None:
    """SystemExit unless each side sent the rows through the network that it has to, by the peer."""
    peer = found[0]["rows"]
    for side, each in zip(sides, found, strict=True):
        expected = {name: round(count * side.rows.get(name, 1)) for name, count in peer.items()}
        if len(peer) > 1:
            expected["total"] = sum(expected.values()) - expected["total"]
        if each["rows"] != expected:
            raise SystemExit(
                f"{side.name}: expected these rows through the network, by what {sides[0].name} "
                f"does: {expected}, got {each['rows']}; the two would not do the same work"
            )


def named(argument: str) -> str:
    """An argument with the names of files alone; the folders are of one machine or temporary."""
    return re.sub(r"(^|=)/(?:[^/]+/)*", r"\1", argument)


def spread(values: Sequence[float]) -> Facts:
    """Example: {"median": 1.02, "low": 1.01, "high": 1.1, "times": 5}."""
    ends = {"low": min(values), "high": max(values), "times": len(values)}
    return {"median": statistics.median(values), **ends}


def summary(sides: Sequence[Side], turns: Sequence[Sequence[Facts]]) -> list[Facts]:
    """One row a side, over all turns; `faster` is CPU seconds of the peer over its own, by turn."""
    rows = []
    for number, side in enumerate(sides):
        own = [turn[number] for turn in turns]
        phases = own[0]["cpu_seconds"]
        seconds = {name: [s for each in own for s in each["cpu_seconds"][name]] for name in phases}
        totals = [[statistics.median(each["cpu_seconds"]["total"]) for each in t] for t in turns]
        rows.append(
            {
                "side": side.name,
                "command": " ".join([f"peers/{side.script}", *map(named, side.arguments)]),
                "versions": own[0]["versions"],
                "threads": own[0]["threads"],
                "instructions": own[0]["instructions"],
                "rows": own[0]["rows"],
                "cpu_seconds": {name: spread(values) for name, values in seconds.items()},
                "faster": spread([total[0] / total[number] for total in totals]),
                "peak_memory_gb": spread([each["peak_memory_gb"] for each in own]),
                "imported_gb": spread([each["imported_gb"] for each in own]),
                **{name: spread([each[name] for each in own]) for name in ONCE if name in own[0]},
                **{name: own[0][name] for name in OF_SCRIPT if name in own[0]},
            }
        )
    return rows


def table(rows: Sequence[Facts]) -> str:
    """Markdown, one line a side."""
    phases = [name for name in rows[0]["cpu_seconds"] if name != "total"]
    head = ["", "CPU seconds", *phases, "rows through the network", "times as fast as the peer"]
    head += ["peak memory, GB", "of it imports"]
    once = any("cpu_seconds_before" in row for row in rows)
    head += ["once, before the first step"] if once else []
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        seconds = [range_of(row["cpu_seconds"][name]) for name in ("total", *phases)]
        peak, imported = (row[f"{name}_gb"]["median"] for name in ("peak_memory", "imported"))
        memory = [f"{peak:.2f}", f"{imported:.2f}"]
        rows_sent = str(row["rows"]["total"])
        cells = [row["side"], *seconds, rows_sent, range_of(row["faster"]), *memory]
        before = row.get("cpu_seconds_before", {"median": 0})["median"]
        cells += [f"{before:.2f} s" if before else ""] if once else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(results: Facts) -> str:
    """The tables of docs/benchmarks.md, one a comparison."""
    return "\n\n".join(table(results[name]["sides"]) for name in COMPARISONS)


def range_of(value: Facts) -> str:
    """Example: "1.02 (1.01 to 1.10)"."""
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def record(file: Path, name: str, rows: Sequence[Facts], repetitions: int) -> None:
    """Write one comparison, and leave the others in the file as they are."""
    with waiting_for(file):
        known: Facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        known[name] = {
            "command": " ".join(["python", *map(named, f"benchmarks/{command_line()}".split())]),
            "hardware": hardware(),
            "versions": library_versions(),
            "repetitions": repetitions,
            "sides": list(rows),
        }
        file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Compare with the peers that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=COMPARISONS)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="The first warms up.")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4, help="Batches of an iteration.")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--image-steps", type=int, default=17, help="The first warms up.")
    parser.add_argument("--language-steps", type=int, default=21, help="The first warms up.")
    parser.add_argument("--language-iterations", type=int, default=8, help="The first warms up.")
    parser.add_argument("--guidance", type=float, default=5.0)
    given = parser.parse_args()
    for name in given.names:
        with tempfile.TemporaryDirectory() as place:
            folder, turns = Path(place), []
            sides = COMPARISONS[name](given, folder)
            for turn in range(given.repetitions):
                # Each is first once: what else the machine does changes slowly.
                first = turn % len(sides)
                order = [*range(first, len(sides)), *range(first)]
                found = {number: run(sides[number], given.environments, folder) for number in order}
                turns.append([found[number] for number in range(len(sides))])
                check_rows(sides, turns[-1])
                rows = summary(sides, turns)
                record(given.results, name, rows, repetitions=turn + 1)
            print(table(rows), flush=True)


if __name__ == "__main__":
    main()
