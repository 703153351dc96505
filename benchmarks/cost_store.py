"""Operations on a store, for benchmarks/cost_curves.py: prints what each takes as JSON.

    python benchmarks/cost_store.py fill FOLDER --number 1000
    python benchmarks/cost_store.py measure FOLDER

The store stays in the folder; `annotators` fills one of its own there and starts the app on it.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cost_points import server_cost
from load import Annotator, Ledger, server
from many_rankings import fill, vote
from PIL import Image

from imgalign.images import png
from imgalign.preferences.exchange import export_rankings
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.records import Provenance, Submission
from imgalign.preferences.store import Store
from imgalign.storybook.scenes import COLOURS
from ui.leaderboard import Asked, Leaderboard
from ui.pages.results import shown
from ui.runs import Runs

WHO = "annotator 7"
OPEN = 1_000
"""Items that wait to be judged."""
TURNS = {"quick": 15, "slow": 3}
SECONDS, SETS_A_SECOND = 30, 20
"""How long annotators judge, and how many sets all of them together begin in a second."""


def fill_sets(store: Store, num_images: int) -> None:
    """Sixteen items of so many images of the storybook model's size, each ranked once."""
    store.add_annotator(WHO)
    luck = np.random.default_rng(0)
    prompts = [f"a {colour} {what}" for colour in COLOURS for what in ("house", "cat")]
    for number, prompt in enumerate(prompts):
        made = []
        for seed in range(num_images):
            noise = luck.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            provenance = Provenance(
                model="storybook",
                adapter=None,
                adapter_hash=None,
                prompt=prompt,
                seed=100 * number + seed,
                steps=10,
                guidance_scale=1.0,
                scheduler="ddim",
                eta=0.0,
                width=64,
                height=64,
            )
            picture = Image.fromarray(noise).resize((64, 64))
            made.append(store.add_image(png(picture), provenance))
        store.add_item(prompt, made, source="benchmark")
        vote(store, WHO)


def operations(store: Store, folder: Path) -> dict[str, dict[str, float]]:
    """CPU seconds of each operation, the median of its turns, and the most memory meanwhile."""
    runs = Runs(folder / "runs")
    opened = Leaderboard(store, runs)
    shown(opened, Asked())  # what a process loads once is loaded here
    sent: list[Submission] = []

    def take() -> None:
        item = store.next_item(WHO)
        assert item is not None, "all is judged: fill another store"
        order = tuple((place,) for place in range(len(item.tokens)))
        key = uuid.uuid4().hex
        sent.append(Submission(key=key, item_id=item.item_id, annotator=WHO, ranking=order))

    def judge() -> None:
        vote(store, WHO)

    def export() -> None:
        with tempfile.TemporaryDirectory() as place:
            export_rankings(store, Path(place) / "rankings.jsonl")

    parts: dict[str, tuple[str, Callable[[], object] | None, Callable[[], object]]] = {
        "next set": ("quick", judge, lambda: store.next_item(WHO)),
        "vote": ("quick", take, lambda: store.submit(sent[-1])),
        "counts": ("quick", None, lambda: store.counts(WHO)),
        "results page": ("slow", None, lambda: shown(Leaderboard(store, runs), Asked())),
        "results page, after a vote": ("slow", judge, lambda: shown(opened, Asked())),
        "reading for a reward": ("slow", None, lambda: chosen_rankings(store, "images")),
        "export": ("slow", None, export),
    }
    found = {}
    for name, (kind, before, do) in parts.items():
        gc.collect()
        # Linux then counts the peak anew: not that of an earlier operation.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        taken = []
        for _ in range(TURNS[kind]):
            if before is not None:
                before()
            began = time.process_time()
            do()
            taken.append(time.process_time() - began)
        peak = server_cost(os.getpid())["peak_memory_gb"]
        found[name] = {"cpu_seconds": statistics.median(taken), "peak_memory_gb": peak}
    return found


def annotators(folder: Path, count: int) -> dict[str, float]:
    """What the server takes for a set that is shown and judged, by so many people at once."""
    url, ledger = f"sqlite:///{folder / 'imgalign.db'}", Ledger()
    with Store.open(url, images=folder / "images") as store:
        fill(store, 0, num_open=4_000)
        for number in range(count):
            store.add_annotator(f"person {number}")
    with server(folder, url) as port:
        (process,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
        idle(int(process))
        before, until = server_cost(int(process)), time.monotonic() + SECONDS
        pause = count / SETS_A_SECOND
        people = [
            Annotator(f"person {number}", port, ledger, seconds_per_set=pause, until=until)
            for number in range(count)
        ]
        for person in people:
            person.start()
        for person in people:
            person.join()
        after = server_cost(int(process))
    assert not ledger.faults, ledger.faults
    votes = len(ledger.receipts)
    spent = (after["cpu_seconds"] - before["cpu_seconds"]) / votes
    return {"cpu_seconds": spent, "peak_memory_gb": after["peak_memory_gb"], "votes": votes}


def idle(process: int) -> None:
    """Wait until a server has loaded ahead what it loads ahead: two seconds of little work."""
    while True:
        before = server_cost(process)["cpu_seconds"]
        time.sleep(2)
        if server_cost(process)["cpu_seconds"] - before < 0.1:
            return


def main() -> None:
    """Do what is asked for, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operation")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=0)
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if given.operation == "annotators":
        print(json.dumps(annotators(folder, given.number)))
        return
    with Store.open(f"sqlite:///{folder / 'imgalign.db'}", images=folder / "images") as store:
        if given.operation.startswith("fill"):
            if not store.is_new:
                raise SystemExit(f"{folder}: a store that was not filled to its end; delete it")
            if given.operation == "fill":
                fill(store, given.number, num_open=OPEN)
            else:
                fill_sets(store, given.number)
            (folder / "filled").touch()
            return
        with contextlib.redirect_stdout(io.StringIO()):
            found = operations(store, folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
