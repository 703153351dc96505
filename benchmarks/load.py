"""Many annotators at once through the real HTTP interface of a real `imgalign ui`.

    python benchmarks/load.py --annotators 100 --seconds 300
    python benchmarks/load.py --annotators 100 --seconds 300 --rankings 1000000
    python benchmarks/load.py --annotators 1 --viewers 1 --seconds 120 --rankings 1000000
    python benchmarks/load.py --database postgresql+psycopg://imgalign@/load?host=/run/postgresql

Each simulated annotator fetches a set and its images, looks at it for a while, and judges it; the
next set is fetched ahead, as the page does. Some take a judgement back and judge again, reload,
send one twice at the same time, or drop the connection and send it again. In the end the store must
have each judgement that was acknowledged exactly once, and none that was not sent. With --rankings
the store has so many before anybody begins, and with --viewers so many people open the Results page
again and again, by the event that the page itself sends, until its ratings are there: "results
page" where votes have come in, "results page, unchanged" where it says what it said before. Times
are those of the annotators, so they include
their own process, which takes part of the same cores.
"""

import argparse
import http.client
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from many_rankings import OPEN, fill
from sqlalchemy import make_url

from imgalign.evaluate.origin import hardware
from imgalign.preferences.recount import differences
from imgalign.preferences.store import Store

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "load.json"
TWICE, DROPPED, UNDONE, RELOADED = 0.05, 0.05, 0.05, 0.1
"""Shares of judgements that are sent twice, cut off, taken back, and of sets that are reloaded."""
ARRIVAL = 4
"""Everybody comes within the time of so many sets."""
PATIENCE = 60.0
"""Seconds until a request counts as failed."""


@dataclass
class Ledger:
    """What the annotators did and how long the server took, in milliseconds."""

    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    receipts: dict[tuple[str, str], str] = field(default_factory=dict)
    """The receipt by annotator and key."""
    undone: set[tuple[str, str]] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Annotator(threading.Thread):
    """One person with one page."""

    def __init__(
        self, name: str, port: int, ledger: Ledger, *, seconds_per_set: float, until: float
    ) -> None:
        super().__init__(name=name)
        self.port, self.ledger, self.until = port, ledger, until
        self.seconds_per_set = seconds_per_set
        self.random = random.Random(name)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def run(self) -> None:
        """Judge until the time is over; what goes wrong is a fault in the ledger."""
        try:
            self._work()
        except Exception as error:  # of any kind: it is a fault that the results show
            with self.ledger.lock:
                self.ledger.faults.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self.connection.close()

    def _work(self) -> None:
        time.sleep(self.random.uniform(0, ARRIVAL * self.seconds_per_set))
        screen = self._next()
        while time.monotonic() < self.until:
            if screen["item"] is None:
                self.ledger.events["waits"] += 1
                time.sleep(self.seconds_per_set)
                screen = self._next()
                continue
            if self.random.random() < RELOADED:
                self.ledger.events["reloads"] += 1
                again = self._next()
                if again["item"] != screen["item"]:
                    # An older one that came free meanwhile and was fetched ahead; both are held.
                    self.ledger.events["reloads that showed another set"] += 1
                screen = again
            time.sleep(self.random.uniform(0.5, 1.5) * self.seconds_per_set)
            key = self._judge(screen)
            if self.random.random() < UNDONE:
                self._take_back(key, screen)
            screen = self._next()

    def _take_back(self, key: str, screen: dict[str, Any]) -> None:
        self.ledger.events["taken back"] += 1
        self._post("undo", {"annotator": self.name, "key": key})
        self.ledger.undone.add((self.name, key))
        back = self._next()
        if back["item"] != screen["item"]:
            self.ledger.faults.append(f"{self.name}: what was taken back is not on the screen")
        self._judge(back)

    def _next(self) -> dict[str, Any]:
        start = time.perf_counter()
        screen: dict[str, Any] = self._post("next", {"annotator": self.name})
        self.ledger.took["next"].append(1000 * (time.perf_counter() - start))
        begun = time.perf_counter()
        # Those of the last set that is fetched ahead: a browser has the others already.
        ahead = (screen["after"] or [screen])[-1]["candidates"]
        for shown in ahead:
            self._get(shown["url"])
        self.ledger.took["images of a set"].append(1000 * (time.perf_counter() - begun))
        return screen

    def _judge(self, screen: dict[str, Any]) -> str:
        order = list(range(len(screen["candidates"])))
        self.random.shuffle(order)
        body = {
            "annotator": self.name,
            "key": uuid.uuid4().hex,
            "item": screen["item"],
            "ranking": [[place] for place in order],
            "verdict": "ranked",
            "client_ms": 1000,
        }
        kind = self.random.random()
        if kind < TWICE:
            self.ledger.events["sent twice"] += 1
            other = threading.Thread(target=self._send_apart, args=(body,))
            other.start()
            saved = self._timed_submit(body)
            other.join()
        elif kind < TWICE + DROPPED:
            self.ledger.events["cut off"] += 1
            self._cut_off(body)
            saved = self._timed_submit(body)
        else:
            saved = self._timed_submit(body)
        self.ledger.receipts[self.name, body["key"]] = saved["receipt"]
        return str(body["key"])

    def _timed_submit(self, body: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        saved: dict[str, Any] = self._post("submit", body)
        self.ledger.took["vote"].append(1000 * (time.perf_counter() - start))
        return saved

    def _send_apart(self, body: dict[str, Any]) -> None:
        apart = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        apart.request("POST", "/api/rank/submit", json.dumps(body), HEADERS)
        if apart.getresponse().status != 200:
            self.ledger.faults.append(f"{self.name}: the second of two was refused")
        apart.close()

    def _cut_off(self, body: dict[str, Any]) -> None:
        """Send a judgement, all of it or half, and hang up without an answer."""
        content = json.dumps(body).encode()
        head = (
            f"POST /api/rank/submit HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode()
        whole = self.random.random() < 0.5
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as line:
            line.sendall(head + (content if whole else content[: len(content) // 2]))

    def _post(self, route: str, body: dict[str, Any]) -> Any:
        return json.loads(self.ask("POST", f"/api/rank/{route}", json.dumps(body)))

    def _get(self, url: str) -> bytes:
        return self.ask("GET", f"/{url}")

    def ask(self, method: str, path: str, body: str | None = None) -> bytes:
        """The answer; RuntimeError for one that is an error."""
        for turn in range(3):
            try:
                self.connection.request(method, path, body, HEADERS)
                answer = self.connection.getresponse()
                content = answer.read()
                break
            except (ConnectionError, http.client.RemoteDisconnected):
                # The server closes idle connections; as a browser, send it again on a new one.
                self.connection.close()
                self.ledger.events["sent again"] += 1
                if turn == 2:
                    raise
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content


HEADERS = {"Content-Type": "application/json"}


class Viewer(threading.Thread):
    """One person who opens the Results page, waits, and opens it again."""

    def __init__(self, port: int, ledger: Ledger, *, every: float, until: float) -> None:
        super().__init__(name=f"viewer {uuid.uuid4().hex[:8]}")
        self.port, self.ledger, self.every, self.until = port, ledger, every, until
        self.events, self.before = self._events(), ""

    def run(self) -> None:
        """Look until the time is over; what goes wrong is a fault in the ledger."""
        try:
            while time.monotonic() < self.until:
                self.look()
                self.look()
                time.sleep(self.every)
        except Exception as error:  # of any kind: it is a fault that the results show
            with self.ledger.lock:
                self.ledger.faults.append(f"{self.name}: {type(error).__name__}: {error}")

    def look(self) -> None:
        """Open the page, and note how long that took."""
        start = time.perf_counter()
        form, page = self.events
        self._done(form, [""])
        shown = str(self._done(page, [None] * 5)[-1])
        took = 1000 * (time.perf_counter() - start)
        if "All together" not in shown:
            raise RuntimeError(f"the Results page shows {shown[:200]}")
        name = "results page" + (", unchanged" if shown == self.before else "")
        self.ledger.took[name].append(took)
        self.before = shown

    def _events(self) -> tuple[int, int]:
        """The events that fill the page's form when it is opened, and then draw the page."""
        config = json.loads(self._ask("GET", "/config"))
        named = {each["props"].get("elem_id"): each["id"] for each in config["components"]}
        asked = [each for each in config["dependencies"] if each["backend_fn"]]
        (drawn,) = (each for each in asked if named["results"] in each["outputs"])
        (opened,) = (
            each
            for each in asked
            if each["targets"][0][1] == "load" and set(drawn["inputs"]) <= set(each["outputs"])
        )
        return opened["id"], drawn["id"]

    def _done(self, event: int, data: list[Any]) -> list[Any]:
        """What the event gives the page."""
        session = uuid.uuid4().hex
        body = {"data": data, "fn_index": event, "session_hash": session}
        self._ask("POST", "/gradio_api/queue/join", json.dumps(body))
        said = self._ask("GET", f"/gradio_api/queue/data?session_hash={session}")
        (last,) = (
            found
            for line in said.splitlines()
            if line.startswith("data:")
            and (found := json.loads(line.removeprefix("data:")))["msg"] == "process_completed"
        )
        if not last["success"]:
            raise RuntimeError(f"the Results page: {last}")
        return list(last["output"]["data"])

    def _ask(self, method: str, path: str, body: str | None = None) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, HEADERS)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status}")
            return answer.read().decode()
        finally:
            connection.close()


@contextmanager
def server(folder: Path, url: str) -> Iterator[int]:
    """The port of the app on a store, in a process of its own."""
    command = [sys.executable, "-m", "imgalign", "ui", "--port", "0", "--database", url]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://[\d.]+:(\d+)", line):
                    port = int(found[1])
                    break
            else:
                raise RuntimeError(f"the app did not start: {folder / 'server.log'} says why")
            Annotator("ready", port, Ledger(), seconds_per_set=0, until=0)._get(
                "api/rank/guidelines"
            )
            yield port
        finally:
            process.terminate()
            process.wait(timeout=30)


def run(
    folder: Path,
    url: str,
    *,
    annotators: int,
    seconds: float,
    seconds_per_set: float,
    viewers: int,
) -> dict[str, Any]:
    """Let annotators work, and compare the store with what they were told."""
    images = folder / "images"
    names = [f"person {number} of {uuid.uuid4().hex[:8]}" for number in range(annotators)]
    with Store.open(url, images=images) as store:
        for name in names:
            store.add_annotator(name)
        before = {r for name in names for r in _kept(store, name)}
    ledger = Ledger()
    with server(folder, url) as port:
        if viewers:  # the first event of a process loads what Gradio needs for it
            Viewer(port, Ledger(), every=0, until=0).look()
        until = time.monotonic() + seconds
        people = [
            Annotator(name, port, ledger, seconds_per_set=seconds_per_set, until=until)
            for name in names
        ]
        looking = [Viewer(port, ledger, every=seconds_per_set, until=until) for _ in range(viewers)]
        for person in (*people, *looking):
            person.start()
        for person in (*people, *looking):
            person.join()
    with Store.open(url, images=images) as store:
        return summary(store, ledger, names, before)


def _kept(store: Store, name: str) -> list[tuple[str, str, str, bool]]:
    """(annotator, key, receipt, whether it was taken back) of all that is stored of somebody."""
    return [
        (name, each.key, each.ranking_id, each.undone_at is not None)
        for each in store.history(name, 10**6, include_undone=True)
    ]


def summary(
    store: Store, ledger: Ledger, names: list[str], before: set[tuple[str, str, str, bool]]
) -> dict[str, Any]:
    """What was lost or doubled, and how long things took."""
    with store.database.read() as connection:
        wrong = differences(connection)
    kept = [r for name in names for r in _kept(store, name) if r not in before]
    by_key = Counter((name, key) for name, key, _, _ in kept)
    stored = {(name, key): receipt for name, key, receipt, _ in kept}
    standing = Counter(
        (name, each.item_id) for name in names for each in store.history(name, 10**6)
    )
    return {
        "votes": len(ledger.receipts),
        "lost": sum(stored.get(key) != receipt for key, receipt in ledger.receipts.items()),
        "doubled": sum(count - 1 for count in by_key.values())
        + sum(count - 1 for count in standing.values()),
        "never acknowledged": len(set(stored) - set(ledger.receipts)),
        "wrongly taken back": len(
            {(name, key) for name, key, _, undone in kept if undone} ^ ledger.undone
        ),
        "counts that are wrong": wrong,
        "faults": ledger.faults,
        **dict(ledger.events),
        "milliseconds": {
            name: {
                "median": round(statistics.median(took), 1),
                "p95": round(sorted(took)[int(0.95 * len(took))], 1),
                "largest": round(max(took), 1),
            }
            for name, took in sorted(ledger.took.items())
        },
    }


def main() -> None:
    """Run once and add the result to the file."""
    options = argparse.ArgumentParser()
    options.add_argument("--annotators", type=int, default=100)
    options.add_argument("--seconds", type=float, default=300)
    options.add_argument("--seconds-per-set", type=float, default=8.0)
    options.add_argument("--viewers", type=int, default=0, help="people on the Results page")
    options.add_argument("--rankings", type=int, default=0, help="stored before anybody begins")
    options.add_argument("--open", type=int, default=OPEN, help="items to judge, five times each")
    options.add_argument("--folder", type=Path, help="of a store that is there, or will be kept")
    options.add_argument("--database", help="URL of the store; without it a file in the folder")
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument("--beside", default="", help="what else the machine was doing")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        url = given.database or f"sqlite:///{folder.resolve() / 'imgalign.db'}"
        with Store.open(url, images=folder / "images") as store:
            if store.is_new:
                fill(store, given.rankings, num_open=given.open)
        found = run(
            folder,
            url,
            annotators=given.annotators,
            seconds=given.seconds,
            seconds_per_set=given.seconds_per_set,
            viewers=given.viewers,
        )
    told = {
        "command": "python benchmarks/load.py "
        + " ".join(
            f"--{name.replace('_', '-')} {getattr(given, name):.9g}"
            for name in ("annotators", "seconds", "seconds_per_set", "rankings")
        )
        + (f" --viewers {given.viewers}" if given.viewers else ""),
        "hardware": hardware(),
        "beside": given.beside or "nothing that is known",
        **found,
    }
    if given.database:
        told["database"] = make_url(given.database).get_backend_name()
    results = json.loads(given.out.read_text("utf-8")) if given.out.exists() else {}
    who = f"{given.annotators} annotators, {given.rankings} rankings stored before"
    if given.viewers:
        who += f", {given.viewers} on the Results page"
    if given.database:
        who += f", {told['database']}"
    results[f"{who}, {hardware()['instructions']}"] = told
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
