"""Several processes on one store, and those that are killed."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgalign.errors import StoreError
from imgalign.preferences.checking import check_store
from imgalign.preferences.records import Submission
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


CHILD = """
import sys
from imgalign.errors import StoreError
from imgalign.preferences.records import Submission
from imgalign.preferences.store import Store

url, images, mode = sys.argv[1:]
from pathlib import Path
print("ready", flush=True)
sys.stdin.readline()
store = Store.open(url, images=Path(images))
store.add_annotator("ann", group="warm")
held = []
while item := store.next_item("ann", holding=held):
    held.append(item.item_id)
    ranking = tuple((i,) for i in range(len(item.tokens)))
    if mode == "worst first":
        ranking = ranking[::-1]
    try:
        receipt = store.submit(Submission(
            key=f"key {item.item_id}", item_id=item.item_id, annotator="ann",
            ranking=ranking))
    except StoreError as error:
        print("refused", str(error).split(":")[0][4:], flush=True)
        continue
    print("created" if receipt.created else "repeated", receipt.ranking_id, flush=True)
sys.stdin.read()
"""


def start(url: str, images: Path, mode: str = "") -> subprocess.Popen[str]:
    """A second process: ranks everything in the store once it gets a line, then waits."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(images), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_loses_nothing_acknowledged(
    store: Store, add_items: Add, url: str, tmp_path: Path, seed: int
):
    add_items(60, num_images=2)
    store.close()
    child = start(url, tmp_path / "images")
    go(child)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline() for _ in range(random.Random(seed).randint(1, 30))]
    child.send_signal(signal.SIGKILL)
    acknowledged += child.communicate()[0].splitlines()
    assert child.returncode == -signal.SIGKILL
    receipts = [line.split()[1] for line in acknowledged if len(line.split()) == 2]
    with Store.open(url, images=tmp_path / "images") as again:
        kept = [ranking.ranking_id for ranking in again.rankings()]
        # One more may be on disk than the child had time to tell.
        assert kept[: len(receipts)] == receipts
        assert len(kept) - len(receipts) in (0, 1)
        assert check_store(again).passed
        assert again.counts("ann").left == 60 - len(kept)


def test_two_processes_with_the_same_keys_make_one_row_each(
    store: Store, add_items: Add, url: str, tmp_path: Path
):
    item_ids = add_items(10, num_images=2)
    children = [start(url, tmp_path / "images") for _ in range(2)]
    for child in children:
        go(child)
    lines = [line for child in children for line in child.communicate()[0].splitlines()]
    assert [child.returncode for child in children] == [0, 0]
    created = {line.split()[1] for line in lines if line.startswith("created")}
    assert sum(line.startswith("created") for line in lines) == 10
    assert {line.split()[1] for line in lines} == created
    assert [ranking.item_id for ranking in store.rankings()] == item_ids


def test_two_processes_with_other_content_under_one_key_keep_the_first(
    store: Store, add_items: Add, url: str, tmp_path: Path
):
    add_items(1, overlap=1, num_images=2)
    item = store.next_item("ann")
    assert item is not None
    late = start(url, tmp_path / "images", "worst first")
    sent = Submission(
        key=f"key {item.item_id}",
        item_id=item.item_id,
        annotator="ann",
        ranking=((0,), (1,)),
    )
    store.submit(sent)
    go(late)
    assert late.communicate()[0] == ""  # the item is not offered again, across processes
    with pytest.raises(StoreError, match="already used for another judgement"):
        store.submit(
            Submission(
                key=sent.key,
                item_id=item.item_id,
                annotator="ann",
                ranking=((1,), (0,)),
            )
        )
    (kept,) = store.rankings()
    assert kept.ranking == tuple((candidate,) for candidate in kept.order)


def test_two_processes_may_create_the_same_store_at_once(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'new.db'}"
    children = [start(url, tmp_path / "images") for _ in range(2)]
    for child in children:
        go(child)
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0, 0]
    with Store.open(url, images=tmp_path / "images") as store:
        assert [annotator.annotator_id for annotator in store.annotators()] == ["ann"]
