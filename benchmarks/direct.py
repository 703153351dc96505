"""Direct methods side by side: the demo's rankings, equal cost, several seeds, and controls.

    python benchmarks/direct.py runs/demo-seeds/seed-* --out runs/direct
    OMP_NUM_THREADS=1 python benchmarks/direct.py runs/demo-seeds/seed-* --jobs 16

For each finished demo (`benchmarks/demo_seeds.py` makes them) and each variant it trains with the
demo's seed on the demo's rankings, and compares the result with the base as the demo does, and then
with the base at the guidance at which that is best on that seed. A run that is finished is not run
again. Every variant has iterations for the same number of passes of the network, PASSES, as
`evaluations` counts them; a run that leaves its KL budget ends before. Controls: `shuffled`
permutes the candidates of each ranking, so that nothing may improve; `flipped` turns 30 % of the
rankings around. `-60` and `-240` have that many rankings; `single-pairs` has one random pair of
each ranking, `single-pairs-480` half of these, so that as many images are looked at as for 240
rankings. `--jobs` trains so many runs side by side. Writes direct.json and prints a table.

All of it takes about seven hours of one core, so it may be done in parts: a row that an earlier
part wrote into direct.json is kept if its demo and its settings are the same, and only what is
missing runs (`--hours` begins no run after that many). `--again` keeps none.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from typing import Any, TypeAlias

from algorithms import asked, estimate, measured, run, save

from imgalign.demo import DemoConfig
from imgalign.evaluate.evaluation import FILE, FOLDER, load_evaluation
from imgalign.files import sha256_of
from imgalign.runs.checkpoint import step_of
from imgalign.runs.folder import METRICS
from imgalign.runs.metrics import Value, read_metrics
from imgalign.runs.status import read_status
from imgalign.runs.trained import find_weights

TieGroups: TypeAlias = list[list[int]]
Change: TypeAlias = Callable[[TieGroups, random.Random], TieGroups]

PASSES = 160 * 16 * 4 * (1 + 1 + 2)
"""Of one image: 160 iterations of 16 rankings of four, each seen by policy and reference, and a
backward pass, which counts as two."""

PAIRS = ("algorithm.compare=all_pairs",)
GRPO = ("storybook_grpo", "run.iterations=19")
ONLINE = ("storybook_online_dpo", "run.iterations=24")
SFT = ("storybook_sft", "run.iterations=190")
SINGLE = ("storybook_dpo", "data.from=table", "run.iterations=320", "run.measure_every=40")
IPO = ("storybook_dpo", "algorithm.name=ipo", "algorithm.beta.value=0.3")
SCORES = ("algorithm.temperature=0.1", "algorithm.beta.value=0.2")
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "grpo": GRPO,
    "sft": SFT,
    "dpo": ("storybook_dpo",),
    "dpo-pairs": ("storybook_dpo", *PAIRS),
    "dpo-best-worst": ("storybook_dpo", "algorithm.compare=best_worst"),
    "dpo-auto": ("storybook_dpo", "algorithm.beta.kind=auto"),
    "dpo-safeguard": ("storybook_dpo", "algorithm.keep_chosen=0.5"),
    "dpo-sft": ("storybook_dpo", "algorithm.sft=0.1"),
    "dpo-all-levels": ("storybook_dpo", "policy.noise_levels=[0.0,1.0]"),
    "dpo-refresh": (
        *("storybook_dpo", "algorithm.refresh.every=32"),
        "algorithm.refresh.max_nats=3.0",
    ),
    "dpo-own-noise": ("storybook_dpo", "data.noise=provenance"),
    "ipo": IPO,
    "kto": ("storybook_dpo", "algorithm.name=kto"),
    "cardinal": ("storybook_dpo", "algorithm.name=cardinal", "reward.path={reward}", *SCORES),
    "online-dpo": ONLINE,
    "dpo-shuffled": ("storybook_dpo", "data.database={shuffled}"),
    "dpo-flipped": ("storybook_dpo", "data.database={flipped}"),
    "dpo-pairs-flipped": ("storybook_dpo", *PAIRS, "data.database={flipped}"),
    "smoothed-flipped": (
        *("storybook_dpo", *PAIRS, "algorithm.label_smoothing=0.3"),
        "data.database={flipped}",
    ),
    "ipo-flipped": (*IPO, "data.database={flipped}"),
    "dpo-60": ("storybook_dpo", "data.database={first 60}"),
    "dpo-240": ("storybook_dpo", "data.database={first 240}"),
    "grpo-60": (*GRPO, "reward.path={reward 60}"),
    "grpo-240": (*GRPO, "reward.path={reward 240}"),
    "single-pairs": (*SINGLE, "data.file={single pairs}"),
    "single-pairs-480": (*SINGLE, "data.file={some pairs 480}"),
}
"""A recipe and its overrides; what stands in braces is made of the demo by `Places`."""

GUIDED = (
    *("dpo", "dpo-pairs", "dpo-best-worst", "ipo", "kto", "cardinal", "online-dpo", "sft"),
    "grpo",
)
"""What is compared with the base at its best guidance, too."""

UNEQUAL = 0.05
"""How much passes may differ, as a fraction: rankings that tie have several best images."""

FLIPPED = 0.3
GUIDANCE_SCALES = (1.5, 2.0, 3.0, 5.0)


def shuffle(groups: TieGroups, luck: random.Random) -> TieGroups:
    """The same tie groups of permuted candidates."""
    order = [candidate for group in groups for candidate in group]
    given = iter(luck.sample(order, len(order)))
    return [[next(given) for _ in group] for group in groups]


def flip(groups: TieGroups, luck: random.Random) -> TieGroups:
    """Worst first, in a share of the cases."""
    return groups[::-1] if luck.random() < FLIPPED else groups


CHANGES: Mapping[str, Change] = {"shuffled": shuffle, "flipped": flip}


class Places(dict[str, str]):
    """What the names in braces stand for; made when it is asked for first, by one thread."""

    def __init__(self, demo: Path) -> None:
        super().__init__(reward=str(demo / "reward"))
        self.demo = demo
        self.lock = RLock()

    def __missing__(self, name: str) -> str:
        with self.lock:
            return self[name] if name in self else self._made(name)

    def _made(self, name: str) -> str:
        if name in CHANGES:
            self[name] = str(self.store(name, change=CHANGES[name]))
        elif name.startswith("first "):
            count = int(name.removeprefix("first "))
            self[name] = str(self.store(f"first-{count}", count=count))
        elif name == "single pairs":
            self[name] = str(self.single_pairs())
        elif name.startswith("some pairs "):
            self[name] = str(self.some_pairs(int(name.removeprefix("some pairs "))))
        else:
            self[name] = str(self.reward(name.removeprefix("reward ")))
        return self[name]

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        """All that the demo's store says."""
        file = folder / "before.jsonl"
        call("data", "export", file, *self.database(self.demo / "imgalign.db"))
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def database(self, file: Path) -> tuple[str, str]:
        """As an option."""
        return "--database", f"sqlite:///{file.absolute()}"

    def store(self, name: str, *, change: Change | None = None, count: int | None = None) -> Path:
        """A store with the demo's images and other rankings of them, or only some."""
        folder = self.demo / name
        database = folder / "imgalign.db"
        if database.exists():
            return database
        folder.mkdir(exist_ok=True)
        luck, rows = random.Random(f"{name}/{self.demo.name}"), self.rows(folder)
        places = [place for place, row in enumerate(rows) if row["kind"] == "ranking"]
        kept = set(places if count is None else luck.sample(places, count))
        after = folder / "after.jsonl"
        with after.open("w", encoding="utf-8") as target:
            for place, row in enumerate(rows):
                if row["kind"] == "ranking":
                    if place not in kept:
                        continue
                    if change is not None and row["tie_groups"] is not None:
                        row["tie_groups"] = change(row["tie_groups"], luck)
                target.write(json.dumps(row, ensure_ascii=False) + "\n")
        unfinished = folder / "unfinished.db"
        unfinished.unlink(missing_ok=True)
        own = ["--images", folder / "images", "--source-images", self.demo / "images"]
        call("data", "import", after, *self.database(unfinished), "--create", *own)
        unfinished.rename(database)
        return database

    def single_pairs(self) -> Path:
        """A table with two random candidates of each ranking."""
        folder = self.demo / "single-pairs"
        folder.mkdir(exist_ok=True)
        luck, rows = random.Random(f"single pairs/{self.demo.name}"), self.rows(folder)
        prompts = {row["item_id"]: row["prompt"] for row in rows if row["kind"] == "item"}
        images = {
            (row["item_id"], row["candidate"]): row["image_id"]
            for row in rows
            if row["kind"] == "candidate"
        }
        lines = []
        for row in rows:
            if row["kind"] != "ranking" or row["tie_groups"] is None:
                continue
            ranks = {place: rank for rank, all_ in enumerate(row["tie_groups"]) for place in all_}
            pair = luck.sample(sorted(ranks), 2)
            where = [
                next(self.demo.glob(f"images/**/{images[row['item_id'], place]}.png"))
                for place in pair
            ]
            line = {
                "prompt": prompts[row["item_id"]],
                "images": [str(file.absolute()) for file in where],
                "ranks": [ranks[place] for place in pair],
            }
            lines.append(json.dumps(line) + "\n")
        table = folder / "pairs.jsonl"
        table.write_text("".join(lines), encoding="utf-8")
        return table

    def some_pairs(self, count: int) -> Path:
        """A table with so many of the single pairs, at random."""
        table = Path(self["single pairs"])
        luck = random.Random(f"some pairs/{self.demo.name}")
        lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
        some = table.with_name(f"pairs-{count}.jsonl")
        some.write_text("".join(luck.sample(lines, count)), encoding="utf-8")
        return some

    def reward(self, count: str) -> Path:
        """A reward model fitted to some of the rankings, as the demo fits it to all."""
        folder = self.demo / f"reward-{count}"
        if not folder.exists():
            seed = asked(self.demo)["seed"]
            settings = [f"seeds=[{seed}]", f"split_seed={seed}"]
            where = self.database(Path(self[f"first {count}"]))
            call("reward", "train", *settings, "--out", folder, *where)
        return folder


def call(*arguments: str | Path) -> None:
    """Run imgalign."""
    subprocess.run([sys.executable, "-m", "imgalign", *map(str, arguments)], check=True)


def against_guided(run_folder: Path, demo: Path, scale: float) -> Path:
    """Compare a run with its base at a guidance scale; returns the evaluation's folder."""
    settings_of_demo, sizes = asked(demo), DemoConfig()
    folder = run_folder / f"{FOLDER}-guided-{scale:g}"
    if not (folder / FILE).is_file():
        settings = [
            f"num_prompts={sizes.num_evaluation_prompts}",
            f"images_per_prompt={sizes.evaluation_images_per_prompt}",
            f"sampler.num_inference_steps={sizes.comparison_steps}",
            f"baseline_guidance_scale={scale}",
            f"seed={settings_of_demo['seed']}",
        ]
        judged = ["--reward", demo / "reward", "--group", settings_of_demo["group"]]
        call("evaluate", run_folder, *settings, *judged, "--out", folder)
    return folder


def guided_base(run_folder: Path, demo: Path) -> dict[str, Any]:
    """The guidance scale at which the base's images are best by the oracle, of some."""
    means: dict[float, float] = {}
    for scale in GUIDANCE_SCALES:
        found = load_evaluation(against_guided(run_folder, demo, scale))
        assert found.summary.oracle is not None
        means[scale] = found.summary.oracle.before.value
    plain = load_evaluation(run_folder).summary.oracle
    assert plain is not None
    return {"best": max(means, key=means.__getitem__), "oracle": {1.0: plain.before.value} | means}


def evaluations(folder: Path) -> dict[str, Any]:
    """Passes of one image in a run and until its chosen weights, and how the run ended.

    A forward pass counts one, a backward pass two. Passes of iterations that were taken back, since
    they left the KL budget, are not known any more.
    """
    records, status = read_metrics(folder / METRICS), read_status(folder)
    assert status is not None
    chosen = step_of(find_weights(folder))
    return {
        "passes": sum(map(passes_of, records)),
        "passes_until_chosen": sum(passes_of(each) for each in records if step(each) <= chosen),
        "chosen_step": chosen,
        "processor_minutes": sum(number(each, "cpu_seconds") for each in records) / 60,
        "ended": status.message,
    }


def outcomes(folder: Path) -> str:
    """Each pair of a comparison won (W), tied (T) or lost (L), a word for each prompt.

    Runs of one seed are compared with the same samples of the base on the same prompts, so that
    they can be compared with each other pair by pair.
    """
    found = load_evaluation(folder)
    words: dict[str, str] = {}
    for pair in found.pairs:
        assert pair.oracle is not None
        before, after = pair.oracle
        tied = abs(after - before) <= found.oracle_tie
        sign = "T" if tied else "W" if after > before else "L"
        words[pair.prompt] = words.get(pair.prompt, "") + sign
    return " ".join(words.values())


def number(record: Mapping[str, Value], key: str) -> float:
    """Of a line of metrics; 0 where it has none."""
    return float(record.get(key) or 0)


def step(record: Mapping[str, Value]) -> float:
    """Iterations finished."""
    return number(record, "step")


def passes_of(record: Mapping[str, Value]) -> float:
    """Of an iteration."""
    return number(record, "forward_passes") + 2 * number(record, "backward_passes")


def refuse_unequal(rows: Sequence[Mapping[str, Any]]) -> None:
    """An error where a run to its last iteration made more or fewer passes than others."""
    for row in rows:
        whole = "budget" not in row["ended"]
        if whole and abs(row["passes"] / PASSES - 1) > UNEQUAL:
            name = f"{row['recipe']}, seed {row['seed']}"
            raise SystemExit(f"{name}: expected about {PASSES} passes, got {row['passes']:.0f}")


def train(
    missing: Sequence[tuple[str, Path]], out: Path, *, jobs: int, until: float
) -> list[tuple[str, Path]]:
    """Run these, `jobs` at a time, and return them; raises at the end if one failed.

    None begins after `until`, of `time.monotonic`.
    """
    places = {demo: Places(demo) for _, demo in missing}

    def run_one(name: str, demo: Path) -> bool:
        if time.monotonic() > until:
            return False
        recipe, *settings = VARIANTS[name]
        filled = [setting.format_map(places[demo]) for setting in settings]
        run(recipe, demo, out / f"{name}-{demo.name}", settings=filled)
        return True

    with ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(run_one, *each) for each in missing]
    return [each for each, task in zip(missing, tasks, strict=True) if task.result()]


def fingerprint(demo: Path) -> str:
    """Of the reward model of a demo: it follows from all that the demo made before."""
    weights = sorted((demo / "reward").rglob("*.safetensors"))
    return sha256_of((file.name, memoryview(file.read_bytes())) for file in weights)[:16]


def kept(file: Path, prints: Mapping[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of an earlier part by variant and demo, whose settings and demo are the same."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    names = {value: name for name, value in prints.items()}
    same = {name for name in VARIANTS if found["variants"].get(name) == list(VARIANTS[name])}
    return {
        (row["recipe"], names[row["demo"]]): row
        for row in found["runs"]
        if row["recipe"] in same and row.get("demo") in names
    }


def main() -> None:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", type=Path, nargs="+")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/direct"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--hours", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true", help="keep no row of an earlier part")
    given = parser.parse_args()
    prints = {demo.name: fingerprint(demo) for demo in given.demos}
    file = given.results / "direct.json"
    rows = {} if given.again else kept(file, prints)
    wanted = [(name, demo) for name in given.variants for demo in given.demos]
    missing = [(name, demo) for name, demo in wanted if (name, demo.name) not in rows]
    until = time.monotonic() + 3600 * given.hours
    bases: dict[str, Any] = {}
    for name, demo in train(missing, given.out, jobs=given.jobs, until=until):
        folder, seed = given.out / f"{name}-{demo.name}", asked(demo)["seed"]
        row = measured(name, seed, folder) | evaluations(folder)
        row |= {"demo": prints[demo.name], "outcomes": outcomes(folder)}
        if name in GUIDED:
            # The base is the same for all runs of a seed.
            base = bases[seed] = bases.get(seed) or guided_base(folder, demo)
            guided = load_evaluation(against_guided(folder, demo, base["best"])).summary
            assert guided.win_rate is not None
            row |= {"win_rate_against_guided_base": estimate(guided.win_rate.rate)}
            row |= {"guided_base": base}
        rows[name, demo.name] = row
    refuse_unequal(list(rows.values()))
    facts = {"variants": VARIANTS, "passes": PASSES}
    done = [rows[name, demo.name] for name, demo in wanted if (name, demo.name) in rows]
    save(file, done, **facts)
    if left := len(wanted) - len(done):
        print(f"{left} of {len(wanted)} runs are missing; the same command goes on")


if __name__ == "__main__":
    main()
