"""What the process of a batch prints, read."""

import pytest

from ui.batch_progress import doing, lines_of, pace, queued, seconds_left

LOG = """
$ imgalign candidates --out x
generating: 0 %
8 images made in 6.0 s

$ imgalign candidates --out x --resume
loading

generating: 50 %, 1.5 min left
2 images made in 4.0 s
"""


def test_only_the_last_start_is_read_but_for_the_pace():
    assert lines_of(LOG) == ["loading", "generating: 50 %, 1.5 min left", "2 images made in 4.0 s"]
    assert pace(LOG, 5) == pytest.approx(10.0 / 50)
    assert pace("generating: 0 %", 5) is None
    assert lines_of("") == []


@pytest.mark.parametrize(
    ("line", "share", "said", "left"),
    [
        ("generating: 50 %, 1.5 min left", 0.5, "Making images, about 2 min left", 90),
        ("generating: 0 %", 0.0, "Making images", None),
        ("generating: 100 %", 1.0, "Making images", 0),
        ("storing images: 20 %, 0.1 min left", 0.2, "Storing images, about 6 s left", 6),
        ("something: 1 %", 0.01, "something", None),
        ("loading", None, "Starting: loading the libraries and the model", None),
    ],
)
def test_what_is_done_and_how_long_it_takes(
    line: str, share: float | None, said: str, left: float | None
):
    assert doing(["before: 3 %", line] if share is not None else [line]) == (share, said)
    assert seconds_left([line]) == left


def test_what_is_said_once_items_are_queued():
    assert queued(["generating: 100 %"]) is None
    assert queued(["2 items are queued", "one was left out", "rank them with `x`"]) == [
        "one was left out"
    ]
    assert queued(["1 item is queued"]) == []
