"""People are waited for, told where to rank, and never asked twice; others do not count."""

from pathlib import Path

import pytest
from image_folders import image
from provenances import provenance
from submissions import judge

from imgalign.images import png
from imgalign.loop.asking import People, Simulated, asker_of
from imgalign.loop.config import PeopleConfig, SimulatedConfig
from imgalign.preferences.coverage import coverage
from imgalign.preferences.store import Store

PLACE = {"project": "loop", "source": "round-01"}


@pytest.fixture
def store(tmp_path: Path):
    """Four items of a round, and one of another."""
    with Store.open(tmp_path / "imgalign.db") as opened:
        for number in range(5):
            pair = [
                opened.add_image(png(image(2 * number + each)), provenance()) for each in (0, 1)
            ]
            source = "round-01" if number < 4 else "round-02"
            opened.add_item(f"prompt {number}", pair, source=source, project="loop")
        opened.add_annotator("ann")
        yield opened


def answer(store: Store, name: str = "ann", **fields: object) -> None:
    store.submit(judge(store.next_item(name, project="loop"), name, **fields))


def waiting(store: Store, told: list[str], **settings: object) -> People:
    """People of whom one answers each time that the loop has looked in vain."""
    ticks = iter(range(0, 10_000, 60))
    return People(
        PeopleConfig.model_validate(settings),
        database="imgalign.db",
        say=told.append,
        sleep=lambda seconds: answer(store),
        clock=lambda: float(next(ticks)),
    )


def test_people_are_told_where_to_rank_and_how_far_they_are(store):
    told: list[str] = []
    waiting(store, told).ask(store, **PLACE)
    assert told[0].startswith("rank them with `imgalign ui --project loop --database imgalign.db`")
    assert told[1:] == [f"{number} of 4 answers" for number in range(5)]


def test_a_loop_that_is_continued_asks_only_for_what_is_missing(store):
    answer(store)
    answer(store)
    told: list[str] = []
    waiting(store, told).ask(store, **PLACE)
    assert told[1:] == ["2 of 4 answers", "3 of 4 answers", "4 of 4 answers"]
    told.clear()
    waiting(store, told).ask(store, **PLACE)
    assert told == ["4 of 4 answers"]


def test_the_loop_goes_on_after_the_share_of_answers_that_is_wanted(store):
    told: list[str] = []
    waiting(store, told, wait_for=0.5).ask(store, **PLACE)
    assert told[-1] == "2 of 4 answers"


def test_a_skipped_item_is_answered_so_that_nobody_is_waited_for_in_vain(store):
    answer(store, ranking=None, verdict="skipped", reason="cannot tell")
    assert coverage(store, **PLACE, simulated=False).given == 1


def test_an_answer_that_was_taken_back_does_not_count(store):
    item = store.next_item("ann", project="loop")
    store.submit(judge(item))
    store.undo("ann", judge(item).key)
    assert coverage(store, **PLACE, simulated=False).given == 0


def test_simulated_annotators_do_not_stand_in_for_people(store):
    store.add_annotator("cosy-1", group="cosy", simulated=True)
    answer(store, "cosy-1")
    assert coverage(store, **PLACE, simulated=False).given == 0
    assert coverage(store, **PLACE, simulated=True).given == 1


def test_no_more_answers_count_than_an_item_wants(store):
    store.add_annotator("bob")
    item = store.next_item("ann", project="loop")
    assert store.next_item("bob", project="loop") is not None
    store.submit(judge(item))
    found = coverage(store, **PLACE, simulated=False)
    assert (found.given, found.wanted, len(found.prompts)) == (1, 4, 4)


def test_the_settings_name_the_asker(tmp_path):
    made = asker_of(SimulatedConfig(annotators=3), database="x", seed=0, say=print)
    assert isinstance(made, Simulated)
    assert made.overlap == 3
    made = asker_of(PeopleConfig(annotators=2), database="x", seed=0, say=print)
    assert isinstance(made, People)
    assert made.overlap == 2
