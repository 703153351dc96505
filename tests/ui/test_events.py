"""No choice and no press is lost: Gradio drops an event while the one before it is not answered,
unless it is told otherwise.
"""

import inspect
from collections.abc import Iterator

import gradio as gr
import pytest
from gradio.block_function import BlockFunction
from served_app import built

from imgalign.preferences.store import Store
from ui.app import Settings

pytestmark = [
    # gradio counts its own calls with options of pandas that pandas is about to drop
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting' is deprecated"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]
CHOOSING = {"input", "change", "select", "release", "blur"}
DROPPED = {"click", "load"}
"""A second press of a form's button is a slip; a page is loaded once. Buttons for which each press
counts say so themselves."""


@pytest.fixture
def events(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, BlockFunction]]:
    """What each event of the pages is, and its function as the page gave it."""
    found: list[gr.Blocks] = []
    monkeypatch.setattr("ui.authority.guard", lambda blocks, people: found.append(blocks))
    built(settings, store)
    (blocks,) = found
    return [(_named(blocks, each), each) for each in blocks.fns.values() if each.fn is not None]


def _named(blocks: gr.Blocks, event: BlockFunction) -> str:
    what = [
        f"{blocks.blocks[block].elem_id or type(blocks.blocks[block]).__name__}.{name}"
        for block, name in event.targets
        if block in blocks.blocks
    ]
    return " ".join(what) or f"after another: {event.name}"


def _takes_data(event: BlockFunction) -> bool:
    assert event.fn is not None
    given = inspect.signature(event.fn).parameters.values()
    return any(each.annotation is gr.EventData for each in given)


def test_what_can_come_twice_is_never_dropped(events: list[tuple[str, BlockFunction]]) -> None:
    def dropped() -> Iterator[str]:
        for name, each in events:
            kinds = {kind for _, kind in each.targets}
            if each.trigger_mode == "once" and not (kinds and kinds <= DROPPED):
                yield name

    assert len(events) > 60
    assert list(dropped()) == []


def test_the_last_choice_is_what_counts(events: list[tuple[str, BlockFunction]]) -> None:
    others = [
        name
        for name, each in events
        if CHOOSING & {kind for _, kind in each.targets} and each.trigger_mode != "always_last"
    ]
    # Whether a project is open, and what is ranked next in it: each choice is written, in order.
    assert others == ["project-open.input", "queue-order.input"]


def test_what_is_done_to_a_row_is_done_to_each(events: list[tuple[str, BlockFunction]]) -> None:
    of_rows = [(name, each) for name, each in events if _takes_data(each)]
    assert len(of_rows) > 25
    # Repeated as the last one it would have the data of the first.
    assert [name for name, each in of_rows if each.trigger_mode != "multiple"] == []
    # Side by side the later could be done before the earlier.
    assert [name for name, each in of_rows if each.concurrency_limit != 1] == []


@pytest.mark.parametrize("page", ["people", "results", "train", "learn", "batches"])
def test_what_a_page_shows_is_drawn_by_one_event(
    events: list[tuple[str, BlockFunction]], page: str
) -> None:
    place = {"train": "monitor"}.get(page, page)
    drawing = [
        name
        for name, each in events
        if any(getattr(out, "elem_id", None) == place for out in each.outputs)
    ]
    assert len(drawing) == 1
