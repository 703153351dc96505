"""Batches of candidates: the processes of the Candidates page, what they say, and going on."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from imgalign.errors import InputError
from ui.batch_asked import Asked
from ui.batches import Batches
from ui.runs import Runs

COMMAND = """
import sys, time
from pathlib import Path
given = dict(each.lstrip("-").partition("=")[::2] for each in sys.argv[1:])
if given.get("model") == "broken":
    print("error: model: broken: no such folder; name one that is there")
    sys.exit(2)
prompts = Path(given["prompts"]).read_text().splitlines() if "prompts" in given else ["a", "b"]
listed = open(given["item-list"], "w")
for number, prompt in enumerate(prompts):
    print(f"generating: {100 * number // len(prompts)} %, 0.5 min left", flush=True)
    print(f"{number:064x}", file=listed, flush=True)
    while given.get("model") == "slow" and "resume" not in given:
        time.sleep(0.02)
if given.get("model") == "dies":
    sys.exit(9)
print("generating: 100 %")
print(f"{len(prompts) * int(given['per-prompt'])} images made in 4.0 s")
print(f"{len(prompts)} items are queued")
print("1 image is equal to another of their prompt: left out")
print("rank them with `imgalign ui`")
"""


@pytest.fixture
def batches(tmp_path: Path) -> Iterator[Batches]:
    program = tmp_path / "candidates.py"
    program.write_text(COMMAND)
    found = Batches(Runs(tmp_path / "runs"), command=(sys.executable, str(program)))
    yield found
    for batch in found.all():
        if batch.state in ("waiting", "making"):
            with suppress(InputError):  # it has ended meanwhile
                found.stop(batch.name)


def wanted(*prompts: str, model: str = "fast", **changes: Any) -> Asked:
    facts: dict[str, Any] = {"source": "prompts", "project": "cats", "per_prompt": 2, "steps": 5}
    made = {"prompts": prompts or ("a fox",), "model": model, "maker": model}
    return Asked(**(facts | made | changes))


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def ended(batches: Batches, name: str) -> Any:
    return wait_for(lambda: (b := batches.batch(name)).state != "making" and b)


def test_a_batch_is_made_by_a_process_and_says_what_it_queued(batches: Batches):
    name = batches.launch(wanted("#1 fox", "a café"))
    batch = ended(batches, name)
    assert (batch.state, batch.item_ids) == ("made", (f"{0:064x}", f"{1:064x}"))
    assert batch.message == "1 image is equal to another of their prompt: left out"
    assert (batches.folder / f"{name}.prompts").read_text() == "\\#1 fox\na café\n"
    assert batch.asked.title == "2 prompts, 4 images by fast"
    assert batches.pace("fast") == pytest.approx(4.0 / (4 * 5))
    assert batches.pace("another") is None


def test_nothing_that_was_typed_becomes_an_option(batches: Batches):
    name = batches.launch(wanted(model="--help", project="--database=x"))
    launch = batches.processes.launched(ended(batches, name).name)
    assert launch is not None
    assert {"--model=--help", "--project=--database=x"} <= set(launch.command)
    assert not {"--help", "--database=x"} & set(launch.command)
    batches.launch(wanted(source="images", prompts=(), place="--texts=/etc"))
    newest = batches.processes.launched("batch-2")
    assert newest is not None
    assert "--from=--texts=/etc" in newest.command


def test_a_stopped_batch_goes_on_and_is_found_after_a_restart(batches: Batches, tmp_path: Path):
    name = batches.launch(wanted("a", "b", model="slow"))
    wait_for(lambda: batches.batch(name).item_ids)
    going = batches.batch(name)
    assert (going.state, going.message) == ("making", "Making images, about 30 s left")
    with pytest.raises(InputError, match="being made already"):
        batches.launch(wanted("a", "b", model="slow"))
    with pytest.raises(InputError, match="still runs"):
        batches.forget(name)
    restarted = Batches(Runs(tmp_path / "runs"), command=batches.processes.command)
    restarted.stop(name)
    stopped = ended(restarted, name)
    assert stopped.state == "stopped"
    assert len(stopped.item_ids) == 1
    restarted.resume(name)
    assert ended(restarted, name).state == "made"
    launch = restarted.processes.launched(name)
    assert launch is not None
    assert launch.command[-1] == "--resume"
    with pytest.raises(InputError, match="nothing to go on with, it is made"):
        restarted.resume(name)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("broken", "model: broken: no such folder; name one that is there"),
        ("dies", "it ended before it was done (generating: 0 %, 0.5 min left)"),
    ],
)
def test_a_failed_batch_says_why_and_can_be_removed(batches: Batches, model: str, said: str):
    name = batches.launch(wanted(model=model))
    batch = ended(batches, name)
    assert (batch.state, batch.message) == ("failed", said)
    batches.forget(name)
    assert batches.all() == []
    assert list(batches.folder.glob(f"{name}.*")) == []
    with pytest.raises(InputError, match="no such batch"):
        batches.batch(name)


def test_a_second_batch_waits_until_the_first_is_made(batches: Batches, tmp_path: Path):
    first = batches.launch(wanted("a", model="slow"))
    assert batches.advance() is None
    second, third = batches.launch(wanted("b")), batches.launch(wanted("c"))
    found = batches.batch(second)
    assert (found.state, found.share, found.item_ids) == ("waiting", None, ())
    assert found.message == "It begins by itself when the batch before it is made"
    assert batches.batch(third).message.endswith("when the 2 batches before it are made")
    with pytest.raises(InputError, match="or wait for their turn"):
        batches.launch(wanted("b"))
    with pytest.raises(InputError, match="expected one batch at a time"):
        batches.launch(wanted("d"), alone=True)
    # What was made elsewhere is read beside it; another store's app leaves them alone.
    assert batches.batch(batches.launch(wanted(source="images", place="x"))).state != "waiting"
    other = Batches(Runs(tmp_path / "runs", database=f"sqlite:///{tmp_path}/other.sqlite"))
    assert other.batch(second).message.startswith("It waits for the app of ")
    batches.stop(first)
    ended(batches, first)
    assert other.advance() is None
    with pytest.raises(InputError, match="make it there"):
        other.make_now(second)
    # An app that was started again goes on with the line, in its order.
    again = Batches(Runs(tmp_path / "runs"), command=batches.processes.command)
    assert again.advance() == second
    assert ended(again, second).state == "made"
    assert again.advance() == third
    assert ended(again, third).state == "made"
    assert again.advance() is None
    assert list(batches.folder.glob("*.waits")) == []


def test_what_waits_can_leave_or_be_made_at_once_and_what_was_stopped_waits_again(
    batches: Batches,
):
    first = batches.launch(wanted("a", "b", model="slow"))
    wait_for(lambda: batches.batch(first).item_ids)
    batches.stop(first)
    ended(batches, first)
    second = batches.launch(wanted("c", model="slow"))
    batches.resume(first)
    gone, now = batches.launch(wanted("d")), batches.launch(wanted("e"))
    assert batches.batch(first).state == "waiting"
    with pytest.raises(InputError, match="nothing to go on with, it is waiting"):
        batches.resume(first)  # the second press
    with pytest.raises(InputError, match="stop it first"):
        batches.forget(gone)
    batches.stop(gone)
    assert batches.batch(gone).state == "stopped"
    batches.forget(gone)
    assert list(batches.folder.glob(f"{gone}.*")) == []
    batches.make_now(now)
    with pytest.raises(InputError, match="does not wait any more"):
        batches.make_now(now)
    assert batches.batch(second).state == "making"
    assert ended(batches, now).state == "made"
    batches.stop(second)
    ended(batches, second)
    assert batches.advance() == first
    assert ended(batches, first).state == "made"
    launch = batches.processes.launched(first)
    assert launch is not None
    assert launch.command[-1] == "--resume"


def test_what_waits_is_moved_in_the_line(batches: Batches, monkeypatch: pytest.MonkeyPatch):
    first = batches.launch(wanted("a", model="slow"))
    names = [batches.launch(wanted(each)) for each in "bcd"]
    line = batches.line
    assert line.mine() == names
    b, c, d = names
    batches.move(d, -1)
    assert line.mine() == [b, d, c]
    batches.move(b, 1)
    assert line.mine() == [d, b, c]
    batches.move(d, -1)
    batches.move(c, 1)  # they are at an end already
    assert line.mine() == [d, b, c]
    same = line.waits(b)
    assert same is not None
    for each in (d, b, c):  # came at once
        line.put(each, same)
    batches.move(d, -1)
    assert line.mine() == [b, d, c]
    batches.move(b, 1)
    assert line.mine() == [d, b, c]
    for name in (first, "batch-99"):
        with pytest.raises(InputError, match="does not wait here any more"):
            batches.move(name, -1)
    line.put("batch-98", same)  # damaged: nothing says what it is of
    batches.move(b, -1)
    batches.move(b, 1)
    assert batches.waiting() == [d, b, c]

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(line, "put", full)
        with pytest.raises(InputError, match=r"cannot be moved \(No space left on device\)"):
            batches.move(b, -1)
    batches.stop(first)
    ended(batches, first)
    assert batches.advance() == d
    assert ended(batches, d).state == "made"


def test_when_what_waits_begins_is_reckoned_from_what_was_made(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
):
    assert ended(batches, batches.launch(wanted("z", "y"))).state == "made"
    assert batches.pace("fast") == 4.0 / (4 * 5)
    first = batches.launch(wanted("a", model="slow"))
    wait_for(lambda: batches.batch(first).share is not None)
    b, c = batches.launch(wanted("b")), batches.launch(wanted("c", "d"))
    e, f = batches.launch(wanted("e", model="other")), batches.launch(wanted("f"))
    assert batches.begins_in(first) is None
    assert batches.begins_in(b) == 30
    assert batches.begins_in(c) == pytest.approx(30 + 0.2 * 2 * 5)
    assert batches.begins_in(e) == pytest.approx(30 + 0.2 * 6 * 5)
    assert batches.begins_in(f) is None  # nothing was made by "other" yet
    batches.stop(e)
    assert batches.begins_in(f) == pytest.approx(30 + 0.2 * 6 * 5)
    slow = batches.launch(wanted("s", model="slow"))
    batches.make_now(slow)  # beside the first: they end at about the same time
    wait_for(lambda: batches.batch(slow).share is not None)
    assert batches.begins_in(c) == pytest.approx(30 + 0.2 * 2 * 5)
    batches.resume(e)
    g = batches.launch(wanted("g"))
    batches.make_now(b)
    ended(batches, b)
    monkeypatch.setitem(batches._why, c, "no memory")
    assert batches.begins_in(c) is None
    assert batches.begins_in(f) is None  # nobody knows when the one before it is started
    monkeypatch.delitem(batches._why, c)
    assert batches.begins_in(f) == pytest.approx(30 + 0.4 * 4 * 5)  # b is the newest now
    assert batches.begins_in(g) is None  # e goes on, with as many images as were not made
    for each in (first, slow):
        batches.stop(each)
        ended(batches, each)
    assert batches.begins_in(c) == 0


def test_two_apps_that_look_at_once_begin_one_batch(batches: Batches, tmp_path: Path):
    first, *others = (batches.launch(wanted(each, model="slow")) for each in "abcd")
    apps = [Batches(Runs(tmp_path / "runs"), command=batches.processes.command) for _ in range(4)]
    for before, expected in zip([first, *others], others, strict=False):
        batches.stop(before)
        ended(batches, before)
        with ThreadPoolExecutor(len(apps)) as threads:
            begun = list(threads.map(Batches.advance, apps))
        assert [each for each in begun if each] == [expected]
        assert batches.processes.log(expected).count("$ imgalign candidates") == 1


def test_a_batch_that_is_being_begun_keeps_the_others_waiting(
    batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second, _ = (batches.launch(wanted(each, model="slow")) for each in "abc")
    batches.stop(first)
    ended(batches, first)
    other = Batches(Runs(tmp_path / "runs"), command=batches.processes.command)
    start, found = batches.processes.start, []

    def between(name: str, arguments: Any) -> None:
        thread = threading.Thread(target=lambda: found.append(other.advance()))
        thread.start()
        thread.join(0.3)  # it waits for the lock
        start(name, arguments)
        threads.append(thread)

    threads: list[threading.Thread] = []
    monkeypatch.setattr(batches.processes, "start", between)
    assert batches.advance() == second
    threads[0].join()
    assert found == [None]


def test_what_cannot_be_started_says_why_and_is_tried_again(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
):
    first, second, _ = (batches.launch(wanted(each, model="slow")) for each in "abc")
    batches.stop(first)
    ended(batches, first)

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device", "/secret/place")

    for owner, name in ((batches.processes, "start"), (batches.line, "put")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, full)
            for begin in (batches.advance, lambda: batches.make_now(second)):
                with pytest.raises(InputError, match="cannot be started") as told:
                    begin()
                assert "secret" not in str(told.value)
        waiting = batches.batch(second)
        assert waiting.state == "waiting"
        why = "It could not be started (No space left on device); it is tried again"
        assert waiting.message == why
    assert batches.advance() == second  # it kept its place


def test_a_batch_that_leaves_the_line_while_it_is_read_is_read(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
):
    batches.launch(wanted("a", model="slow"))
    second = batches.launch(wanted("b"))
    monkeypatch.setattr(batches.line, "mine", list)
    assert batches.batch(second).state == "waiting"


def test_a_start_that_fails_leaves_nothing_behind(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
):
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batches.processes, "start", full)
    with pytest.raises(InputError, match="cannot be started"):
        batches.launch(wanted("a"))
    assert batches.all() == []
    assert list(batches.folder.glob("batch-*")) == []


def test_what_waits_for_another_app_stands_in_nobodys_way(batches: Batches, tmp_path: Path):
    first, second = (batches.launch(wanted(each, model="slow")) for each in "ab")
    batches.stop(first)
    ended(batches, first)
    other = Batches(
        Runs(tmp_path / "runs", database=f"sqlite:///{tmp_path}/other.sqlite"),
        command=batches.processes.command,
    )
    assert not other.busy("cats")
    assert batches.busy("cats")
    assert ended(other, other.launch(wanted("b"), alone=True)).state == "made"
    other.stop(second)
    other.resume(second, alone=True)
    assert other.batch(second).state == "making"


@pytest.mark.parametrize("started", [True, False])
def test_an_app_that_ended_while_it_began_a_batch_does_not_begin_it_twice(
    batches: Batches, monkeypatch: pytest.MonkeyPatch, started: bool
):
    first, second = (batches.launch(wanted(each, model="slow")) for each in "ab")
    batches.stop(first)
    ended(batches, first)
    start = batches.processes.start

    def killed(name: str, arguments: Any) -> None:
        if started:
            start(name, arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(batches.processes, "start", killed)
        with pytest.raises(KeyboardInterrupt):
            batches.advance()
    if started:
        assert batches.advance() is None
        batches.stop(second)
        ended(batches, second)
    assert batches.advance() == second
    assert list(batches.folder.glob("*.waits")) == []
    assert batches.processes.log(second).count("$ imgalign candidates") == 1


def test_what_is_under_way_is_listed_however_many_are_newer(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ui.batches.MOST_LISTED", 2)
    first, *others = (batches.launch(wanted(each, model="slow")) for each in "abcd")
    assert [each.name for each in batches.all()] == [*reversed(others), first]
    for name in others:
        batches.stop(name)
    assert [each.name for each in batches.all()] == [*reversed(others[1:]), first]


def test_names_from_outside_reach_no_other_file(batches: Batches, tmp_path: Path):
    batches.launch(wanted())
    (tmp_path / "runs" / "x.asked").write_text((batches.folder / "batch-1.asked").read_text())
    for name in ("../x", "batch-01", "batch-1/../batch-1", "", "batch-2"):
        with pytest.raises(InputError, match="no such batch"):
            batches.batch(name)


def test_a_batch_that_cannot_be_read_is_left_out_and_its_number_not_used_again(batches: Batches):
    ended(batches, batches.launch(wanted()))
    (batches.folder / "batch-1.asked").write_text("{}")
    assert batches.all() == []
    assert batches.launch(wanted()) == "batch-2"


def test_what_was_sent_is_kept_until_it_is_queued(batches: Batches):
    upload = batches.uploads.begin()
    place = batches.uploads.path(upload)
    asked = wanted(source="images", prompts=(), place=str(place), uploaded=True)
    assert asked.title == "Images from a browser"
    name = batches.launch(asked)
    ended(batches, name)
    assert batches.uploads_in_use() == set()
    batches.forget(name)
    assert not place.exists()


def test_who_stops_a_batch_that_has_ended_is_told_so_and_not_to_use_a_terminal(batches: Batches):
    name = batches.launch(wanted("a fox"))
    ended(batches, name)
    with pytest.raises(InputError, match=r"^batch-1: what this app started has ended already"):
        batches.stop(name)
    batches.processes.file(name).unlink()
    with pytest.raises(InputError, match="not started by this app; whoever started it can stop it"):
        batches.stop(name)
