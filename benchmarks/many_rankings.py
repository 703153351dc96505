"""A store with very many rankings, for measurements, and what the parts of the app take on it.

    python benchmarks/many_rankings.py --rankings 1000000 --folder many

Items of four images by six makers, judged by a hundred simulated annotators, five times each, and
some items that are open. Rows are inserted in bulk and counted by `recount.fill`, as the migration
does it. Prints and stores the milliseconds of what a page waits for.
"""

import argparse
import hashlib
import json
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import insert, make_url, text

from imgalign.evaluate.origin import hardware
from imgalign.images import png
from imgalign.preferences import choosing, recount, schema
from imgalign.preferences.comparisons import compare_makers
from imgalign.preferences.coverage import judged_projects
from imgalign.preferences.makers import rate_makers
from imgalign.preferences.own_votes import latest_key
from imgalign.preferences.queue_order import open_items_of, set_priorities, set_queue_order
from imgalign.preferences.records import Provenance, Submission, utc_now
from imgalign.preferences.store import Store
from ui.leaderboard import POINTS, RIDGE, Asked, Leaderboard
from ui.pages.results import shown
from ui.runs import Runs

MAKERS, IMAGES_EACH, ANNOTATORS, OVERLAP, OPEN = 6, 60, 100, 5, 20_000
PROMPTS = 20_000
PORTION = 20_000
RESULTS = Path(__file__).parent / "results" / "many_rankings.json"


def fill(store: Store, num_rankings: int, *, size: int = 256, num_open: int = OPEN) -> None:
    """Put rankings and open items into a new store."""
    images = _images(store, size)
    for index in range(ANNOTATORS):
        store.add_annotator(f"annotator {index}", group=f"group {index % 4}")
    rng = np.random.default_rng(0)
    now = utc_now()
    num_closed = num_rankings // OVERLAP
    with store.database.write() as connection:
        for first in range(0, num_closed + num_open, PORTION):
            chosen = range(first, min(first + PORTION, num_closed + num_open))
            ids = [hashlib.sha256(f"item {n}".encode()).hexdigest() for n in chosen]
            rows = [
                {
                    "item_id": item_id,
                    "project": "default",
                    "prompt": f"a red house, number {n % PROMPTS}",
                    "source": "benchmark",
                    "samples": "images",
                    "overlap": OVERLAP,
                    "created_at": now,
                }
                for n, item_id in zip(chosen, ids, strict=True)
            ]
            connection.execute(insert(schema.items), rows)
            lineups = [_lineup(rng, images) for _ in chosen]
            rows = [
                {"item_id": item_id, "candidate": k, "image_id": image_id}
                for item_id, lineup in zip(ids, lineups, strict=True)
                for k, image_id in enumerate(lineup)
            ]
            connection.execute(insert(schema.candidates), rows)
            closed = [(n, i) for n, i in zip(chosen, ids, strict=True) if n < num_closed]
            rows = [
                _judgement(rng, item_id, (OVERLAP * n + turn) % ANNOTATORS, now)
                for n, item_id in closed
                for turn in range(OVERLAP)
            ]
            if rows:
                connection.execute(insert(schema.rankings), rows)
        for table in ("tallies", "projects", "judged_prompts", "outcomes", "numbers"):
            connection.execute(text(f"DELETE FROM {table}"))
        recount.fill(connection)


def _images(store: Store, size: int) -> list[list[str]]:
    """Images of each maker."""
    made = []
    for maker in range(MAKERS):
        own = []
        for n in range(IMAGES_EACH):
            noise = np.random.default_rng(100 * maker + n).integers(0, 256, (16, 16, 3))
            picture = Image.fromarray(noise.astype(np.uint8)).resize((size, size))
            provenance = Provenance(
                model="storybook",
                adapter=f"runs/{maker}" if maker else None,
                adapter_hash=f"{maker:064d}" if maker else None,
                prompt="a red house",
                seed=n,
                steps=10,
                guidance_scale=1.0,
                scheduler="ddim",
                eta=0.0,
                width=size,
                height=size,
            )
            own.append(store.add_image(png(picture), provenance))
        made.append(own)
    return made


def _lineup(rng: np.random.Generator, images: list[list[str]]) -> list[str]:
    return [
        images[maker][int(rng.integers(IMAGES_EACH))]
        for maker in rng.choice(MAKERS, 4, replace=False).tolist()
    ]


def _judgement(
    rng: np.random.Generator, item_id: str, annotator: int, now: object
) -> dict[str, object]:
    order = rng.permutation(4).tolist()
    ranked = [[each] for each in np.argsort(rng.gumbel(size=4)).tolist()]
    name = hashlib.sha256(f"{item_id} {annotator}".encode()).hexdigest()
    return {
        "ranking_id": name,
        "item_id": item_id,
        "annotator_id": f"annotator {annotator}",
        "key": name[:32],
        "attempt": 0,
        "verdict": "ranked",
        "display_order": order,
        "tie_groups": ranked,
        "created_at": now,
    }


def timed(
    do: Callable[[], object], *, times: int = 5, before: Callable[[], object] | None = None
) -> dict[str, float]:
    """Milliseconds of `do` alone: the median, the largest, and the median of a core."""
    took, of_core = [], []
    for _ in range(times):
        if before is not None:
            before()
        start, core = time.perf_counter(), time.process_time()
        do()
        took.append(1000 * (time.perf_counter() - start))
        of_core.append(1000 * (time.process_time() - core))
    return {
        "median": round(statistics.median(took), 1),
        "largest": round(max(took), 1),
        "of a core": round(statistics.median(of_core), 1),
        "times": times,
    }


def vote(store: Store, who: str) -> None:
    """Judge the next item."""
    item = store.next_item(who)
    assert item is not None, "all is judged: make a new store"
    order = tuple((place,) for place in range(len(item.tokens)))
    sent = Submission(key=uuid.uuid4().hex, item_id=item.item_id, annotator=who, ranking=order)
    store.submit(sent)


def rank_what_tells_most_first(store: Store) -> None:
    """Give the open items priorities, as a fit does, and let them decide."""
    rng = np.random.default_rng(0)
    asked = open_items_of(store.database, "default", "images")
    set_priorities(store.database, "default", {each.item_id: rng.random() for each in asked})
    set_queue_order(store.database, "default", "informative")


def measured(store: Store, folder: Path) -> dict[str, dict[str, float]]:
    """What each part takes; prints them as they come."""
    who = "annotator 7"
    runs = Runs(folder / "runs")
    open_page = Leaderboard(store, runs)
    found: dict[str, dict[str, float]] = {}

    def take(name: str, do: Callable[[], object], **how: Any) -> None:
        found[name] = timed(do, **how)
        print(f"{name:26} {json.dumps(found[name])}", flush=True)

    def next_item() -> object:
        return store.next_item(who)

    def judge() -> None:
        vote(store, who)

    take("next item", next_item)
    take("counts", lambda: store.counts(who))
    take("latest own judgement", lambda: latest_key(store, who, project="default"))
    take("projects", lambda: judged_projects(store))
    take("results page", lambda: shown(Leaderboard(store, runs), Asked()))
    take("results page, first opened", lambda: shown(open_page, Asked()), times=1)
    take("results page, unchanged", lambda: shown(open_page, Asked()))
    take("results page, after a vote", lambda: shown(open_page, Asked()), before=judge)
    take("comparisons", lambda: compare_makers(store))
    take("bradley-terry", lambda: rate_makers(store, ridge=RIDGE))
    take("bradley-terry over time", lambda: rate_makers(store, ridge=RIDGE, points=POINTS))
    take("bradley-terry of a group", lambda: rate_makers(store, ridge=RIDGE, group="group 1"))
    take("plackett-luce", lambda: rate_makers(store, method="plackett-luce", ridge=RIDGE))
    take("elo of the latest 4,000", lambda: rate_makers(store, method="elo", latest=4_000))
    rank_what_tells_most_first(store)
    for name, share in (("next item, what tells most", 0.0), ("next item, drawn", 1.0)):
        choosing.EXPLORED = share
        take(name, next_item, times=25, before=judge)
    set_queue_order(store.database, "default", "oldest")
    return found


def main() -> None:
    """Make the store if it is not there, and write what each part takes."""
    options = argparse.ArgumentParser()
    options.add_argument("--rankings", type=int, default=1_000_000)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--database", help="an URL instead of a file in the folder")
    options.add_argument("--beside", default="", help="what else the machine was doing")
    options.add_argument("--out", type=Path, default=RESULTS)
    given = options.parse_args()
    given.folder.mkdir(exist_ok=True)
    url = given.database or f"sqlite:///{given.folder / 'imgalign.db'}"
    with Store.open(url, images=given.folder / "images") as store:
        if store.is_new:
            start = time.perf_counter()
            fill(store, given.rankings)
            print(json.dumps({"seconds to fill": round(time.perf_counter() - start)}))
        told = {
            "command": f"python benchmarks/many_rankings.py --rankings {given.rankings} "
            "--folder many",
            "hardware": hardware(),
            "beside": given.beside or "nothing that is known",
            "milliseconds": measured(store, given.folder),
        }
    results = json.loads(given.out.read_text("utf-8")) if given.out.exists() else {}
    backend = make_url(url).get_backend_name()
    machine = hardware()["instructions"]
    results[f"{given.rankings} rankings, {backend}, {machine}"] = told
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
