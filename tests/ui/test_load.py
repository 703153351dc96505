"""Several annotators at once on a real server: none of their judgements is lost or doubled.

On SQLite, and where IMGALIGN_TEST_POSTGRES names a server on PostgreSQL.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import new_database

from imgalign.preferences.checking import check_store
from imgalign.preferences.issued import item_named
from imgalign.preferences.store import Store

pytestmark = pytest.mark.database

ROOT = Path(__file__).parents[2]
NAMES = tuple(f"annotator {number}" for number in range(20))
BEFORE, DURING = NAMES[:8], NAMES[8:16]
"""Those who judge before the server is killed, and while it is; the others do so after it was."""
PATIENCE = 150.0


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """In place of the file of other tests of the app."""
    with new_database(tmp_path, tables="store" in request.fixturenames) as url:
        yield url


def test_annotators_at_once_lose_and_double_nothing(tmp_path: Path, url: str):
    """The small version of `benchmarks/load.py`."""
    out = tmp_path / "load.json"
    options = {
        "--annotators": "10",
        "--seconds": "8",
        "--seconds-per-set": "0.3",
        "--open": "200",
        "--rankings": "50",
        "--viewers": "1",
        "--folder": str(tmp_path / "store"),
        "--database": url,
        "--out": str(out),
    }
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py")]
    done = subprocess.run(
        [*command, *(word for option in options.items() for word in option)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(out.read_text("utf-8")).values()
    assert found["database"] == url.split(":")[0].split("+")[0]
    assert found["faults"] == []
    assert found["votes"] > 0  # how many depends on what else the machine does
    assert found["milliseconds"]["results page"]["median"] > 0
    wrong = ("lost", "doubled", "never acknowledged", "wrongly taken back")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert found["counts that are wrong"] == []


def until_saved(client: httpx.Client, body: dict[str, Any]) -> str:
    """Send a judgement until it is acknowledged, as the page does; the receipt."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            answer = client.post("/api/rank/submit", json=body)
            assert answer.status_code == 200, answer.text
            return str(answer.json()["receipt"])
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_twenty_on_one_set_lose_and_double_nothing_when_the_server_is_killed(
    store: Store, add_items: Any, process: Any
):
    (item,) = add_items(1, overlap=len(NAMES))
    for name in NAMES:
        store.add_annotator(name)
    process.start()
    process.wait_until_ready()
    bodies: dict[str, dict[str, Any]] = {}
    receipts: dict[str, list[str]] = {name: [] for name in NAMES}
    failed: list[str] = []

    with httpx.Client(base_url=process.address, timeout=60) as client:

        def at_once(names: tuple[str, ...]) -> list[threading.Thread]:
            def send(name: str) -> None:
                try:
                    receipts[name].append(until_saved(client, bodies[name]))
                except Exception as error:  # of any kind: a thread's would not be seen
                    failed.append(f"{name}: {error!r}")

            threads = [threading.Thread(target=send, args=(name,)) for name in names]
            for each in threads:
                each.start()
            return threads

        for place, name in enumerate(NAMES):
            screen = client.post("/api/rank/next", json={"annotator": name}).json()
            assert item_named(store, screen["item"], name) == item
            ranking = [[place % 4], [each for each in range(4) if each != place % 4]]
            sent = {"annotator": name, "key": f"key of {name}", "item": screen["item"]}
            bodies[name] = {**sent, "ranking": ranking, "verdict": "ranked"}
        for each in at_once(BEFORE):
            each.join()
        waiting = at_once(DURING)
        process.end()
        waiting += at_once(NAMES[16:])
        waiting += at_once(BEFORE)  # a page that was cut off sends the same once more
        process.start()
        process.wait_until_ready()
        for each in waiting:
            each.join()
        left = [client.post("/api/rank/next", json={"annotator": name}).json() for name in NAMES]
    assert failed == []
    assert [(each["item"], each["done"], each["total"]) for each in left] == [(None, 1, 1)] * 20
    kept = {each.annotator: each for each in store.rankings(include_undone=True)}
    assert len(list(store.rankings(include_undone=True))) == len(kept) == len(NAMES)
    for place, name in enumerate(NAMES):
        assert set(receipts[name]) == {kept[name].ranking_id}
        assert kept[name].ranking is not None
        assert kept[name].order[place % 4] == kept[name].ranking[0][0]
    assert [len(receipts[name]) for name in BEFORE] == [2] * len(BEFORE)
    assert check_store(store).passed
