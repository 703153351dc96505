"""The Results page: blind votes become ratings and wins, and nothing where there are none."""

from typing import Any

import pytest
from PIL import Image
from provenances import provenance
from submissions import judge, on_screen

from imgalign.images import png
from imgalign.preferences.exclusions import exclude
from imgalign.preferences.store import Store
from ui.app import Settings
from ui.pages import results
from ui.runs import Runs


@pytest.fixture
def battles(store: Store) -> Any:
    """Rankings of pairs of two makers; `won` says in how many the second was preferred."""

    def fight(prompts: int, won: int, *, project: str = "default", who: str = "ann") -> None:
        store.add_annotator(who, group="warm")
        for number in range(prompts):
            prompt = f"{project} {number}"
            ids = [
                store.add_image(
                    png(Image.new("RGB", (8, 8), (len(who), 2 * number + k, len(project)))),
                    provenance(prompt=prompt, adapter=adapter, adapter_hash=adapter),
                )
                for k, adapter in enumerate((None, "runs/<b>mine</b>"))
            ]
            store.add_item(prompt, ids, source="test", project=project)
            item = store.next_item(who, project=project)
            order = ((1,), (0,)) if number < won else ((0,), (1,))
            store.submit(judge(item, who, ranking=on_screen(store, item, order, who)))

    return fight


def test_without_rankings_of_two_makers_it_says_how_to_get_some(store: Store, battles: Any) -> None:
    said = results.table(store, "", "", "bradley-terry")
    assert "expected rankings of images by different models" in said
    assert 'href="generate"' in said


def test_the_preferred_checkpoint_is_above_its_base_with_an_interval(
    store: Store, battles: Any
) -> None:
    battles(8, 6)
    shown = results.table(store, "", "", "bradley-terry")
    # What an adapter is called is text, whatever is in it.
    assert "runs/&lt;b&gt;mine&lt;/b&gt;" in shown
    assert "<b>mine" not in shown
    assert shown.index("m + runs/") < shown.index(">m</th>")
    assert "95 % intervals over 8 prompts" in shown
    assert "75 % <small>8</small>" in shown
    assert "25 % <small>8</small>" in shown
    for method in ("plackett-luce", "elo"):
        assert "Against each other" in results.table(store, "", "", method)


def test_rankings_of_excluded_annotators_are_left_out_and_counted(
    store: Store, battles: Any
) -> None:
    battles(4, 4)
    alone = results.table(store, "", "", "bradley-terry")
    battles(4, 0, project="dogs", who="bob")
    assert results.table(store, "", "", "bradley-terry") != alone
    exclude(store.database, "bob", project="dogs")
    said = " 4 rankings are of excluded annotators: left out."
    assert results.table(store, "", "", "bradley-terry").replace(said, "") == alone
    assert said in results.table(store, "", "", "elo")


def test_projects_and_groups_are_told_apart(store: Store, battles: Any) -> None:
    battles(4, 4, project="cats")
    battles(4, 1, project="a dog", who="bob")
    projects, groups = results.choices(store)
    assert projects == [("all", ""), ("a dog: 4 rankings", "a dog"), ("cats: 4 rankings", "cats")]
    assert groups == [("everybody", ""), ("warm", "warm")]
    assert "100 % <small>4</small>" in results.table(store, "cats", "", "bradley-terry")
    assert "25 % <small>4</small>" in results.table(store, "a dog", "warm", "bradley-terry")


def test_who_won_is_said_first_and_what_it_is_called_is_text(
    store: Store, battles: Any, settings: Settings
) -> None:
    runs = Runs(settings.runs)
    assert 'class="duel' not in results.shown(store, runs, "", "", "bradley-terry")
    battles(8, 8)
    shown = results.shown(store, runs, "", "", "bradley-terry")
    assert shown.index("was preferred to m in 100 % of 8 blind votes") < shown.index("All together")
    assert "Decided: m + runs/&lt;b&gt;mine&lt;/b&gt; is preferred" in shown
    assert "<b>mine" not in shown
    assert "Take it home" not in shown  # no run of this folder
