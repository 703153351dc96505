"""Whole loops on the tiny model: rounds, going back, being killed anywhere, and where things are
from."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from partisans import Partisan
from walk_runs import Killed

from imgalign.config import load_config
from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.evaluate.evaluation import load_evaluation
from imgalign.evaluate.sides import LoadGenerator
from imgalign.loop.asking import Asker, Say
from imgalign.loop.config import LoopConfig
from imgalign.loop.journal import FILE
from imgalign.loop.run import LoopResult, run_loop
from imgalign.preferences.store import Store
from imgalign.runs.trained import find_weights, weights_hash
from imgalign.train.config import TrainConfig

pytestmark = pytest.mark.slow

PREFERS = (True, False, True)
"""In which rounds the trained model is voted better: so the third begins where the first ended."""
ROUNDS = "stop={max_rounds: 3, patience: 2}"


class Counting:
    """Loads the tiny model, and counts the images that it generates."""

    def __init__(self) -> None:
        self.num_images = 0

    def __call__(self, model: str, *, device: str, dtype: Any) -> ImageGenerator:
        counting = self

        class Counted(ImageGenerator):
            def generate(self, prompts: Sequence[str], **options: Any) -> Iterator[Any]:
                for each in super().generate(prompts, **options):
                    counting.num_images += 1
                    yield each

        return Counted(model, device=device, dtype=dtype)


def looped(
    settings: LoopConfig,
    out: Path,
    *,
    say: Say = lambda line: None,
    asker: Asker | None = None,
    load: LoadGenerator = ImageGenerator,
) -> LoopResult:
    return run_loop(settings, out, say=say, asker=asker or Partisan(PREFERS), load=load)


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> tuple[LoopResult, Path, int]:
    """A loop of three rounds that nothing interrupted, and how many images it generated."""
    out, load = tmp_path_factory.mktemp("whole") / "loop", Counting()
    return looped(settings(ROUNDS), out, load=load), out, load.num_images


def entries(out: Path) -> list[dict[str, Any]]:
    """What stages made, without the time they took."""
    kept = json.loads((out / FILE).read_text())["entries"]
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in kept]


def test_a_round_that_does_not_improve_is_not_what_the_next_one_starts_from(whole):
    result, out, _ = whole
    assert [each.improved for each in result.rounds] == [True, False, True]
    assert [each.start.round for each in result.rounds] == [0, 1, 1]
    assert result.kept.round == 3
    started = [
        load_config(TrainConfig, out / f"round-0{number}" / "run" / "config.yaml").policy
        for number in (1, 2, 3)
    ]
    first = str(out / "round-01" / "run" / "step-000001")
    assert [getattr(policy, "adapter", "") for policy in started] == [None, first, first]


def test_each_round_learns_from_the_rankings_of_all_rounds_and_never_from_votes(whole):
    result, out, _ = whole
    assert [each.num_rankings for each in result.rounds] == [5, 10, 15]
    lines = (out / "round-03" / "run" / "rankings.jsonl").read_text().splitlines()
    assert len(lines) == 15
    compared = (out / "comparison_prompts.txt").read_text().split("\n")
    assert not {json.loads(line)["prompt"] for line in lines} & set(compared)


def test_every_image_leads_to_the_checkpoint_that_made_it(whole):
    """Of each round: candidates to its start, pairs to its start and to what it trained."""
    result, out, _ = whole
    weights: dict[int, str | None] = {0: None}
    for each in result.rounds:
        found = find_weights(out / f"round-0{each.number}" / "run")
        assert str(found) == str(each.trained.path)
        weights[each.number] = weights_hash(found)
        assert weights[each.number] == each.trained.hash
    with Store.open(out / "imgalign.db", create=False) as store:
        for each in result.rounds:
            start, trained = weights[each.start.round], weights[each.number]
            for project, makers in (("loop", [start]), ("loop-compare", [start, trained])):
                ranked = [r for r in store.rankings(project=project)]
                own = [r for r in ranked if r.source == f"round-0{each.number}"]
                assert own
                for ranking in own:
                    made = [store.provenance(image) for image in ranking.sample_ids]
                    assert {one.adapter_hash for one in made} == set(makers)
                    assert {one.prompt for one in made} == {ranking.prompt}


def test_no_noise_is_compared_twice(whole):
    _, out, _ = whole
    with Store.open(out / "imgalign.db", create=False) as store:
        seeds: dict[str, set[int]] = {}
        for ranking in store.rankings(project="loop-compare"):
            own = {store.provenance(image).seed for image in ranking.sample_ids}
            seeds.setdefault(ranking.source, set()).update(own)
    assert len(seeds) == 3
    assert len(set.union(*seeds.values())) == sum(map(len, seeds.values()))


def test_the_report_shows_every_round_and_links_to_its_run(whole):
    result, out, _ = whole
    page = result.report.read_text()
    for number in (1, 2, 3):
        link = f"round-0{number}/run/report.html"
        assert f'href="{link}"' in page
        assert (out / link).is_file()
    assert "round 2, not kept" in page
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert str(out.parent) not in page


@pytest.fixture(scope="module")
def killed(settings, tmp_path_factory) -> tuple[LoopResult, Path, int, Counter[str]]:
    """The same loop, killed whenever a stage was finished, and begun again each time."""
    out, load = tmp_path_factory.mktemp("killed") / "loop", Counting()
    deaths: Counter[str] = Counter()

    def say(line: str) -> None:
        done = len(entries(out))
        if line.startswith("round ") and done > sum(deaths.values()):
            deaths[line] += 1
            raise Killed

    while True:
        try:
            return looped(settings(ROUNDS), out, load=load, say=say), out, load.num_images, deaths
        except Killed:
            continue


def test_a_loop_that_is_killed_after_every_stage_ends_as_one_that_is_not(whole, killed):
    result, out, num_images = whole
    again, other, num_again, deaths = killed
    assert sum(deaths.values()) >= 12
    assert again.kept.hash == result.kept.hash
    # The order in which people happened to answer names rankings, so what was made of these
    # names differs; what was learned does not.
    mine, theirs = entries(out), entries(other)
    assert [(e["round"], e["stage"]) for e in mine] == [(e["round"], e["stage"]) for e in theirs]
    for ours, others in zip(mine, theirs, strict=True):
        for side in (ours, others):
            side["inputs"].pop("rankings", None)
            side["outputs"].pop("rankings", None)
        assert ours == others
    assert num_again == num_images


def answers(out: Path) -> Counter[tuple[str, str]]:
    with Store.open(out / "imgalign.db", create=False) as store:
        return Counter((ranking.item_id, ranking.annotator) for ranking in store.rankings())


def test_nothing_is_asked_twice_however_often_a_loop_is_killed(whole, killed):
    assert answers(killed[1]) == answers(whole[1])
    assert set(answers(whole[1]).values()) == {1}


def test_a_loop_that_is_killed_inside_a_stage_loses_nothing(whole, settings, tmp_path, monkeypatch):
    """While it generates, and between training's last checkpoint and the journal."""

    class Dying(Counting):
        def __call__(self, model: str, **options: Any) -> ImageGenerator:
            generator = super().__call__(model, **options)
            inner = generator.generate

            def dies(*args: Any, **kwargs: Any) -> Iterator[Any]:
                for number, each in enumerate(inner(*args, **kwargs)):
                    if number == 3:
                        raise Killed
                    yield each

            monkeypatch.setattr(generator, "generate", dies)
            return generator

    one = "stop={max_rounds: 1}"
    with pytest.raises(Killed):
        looped(settings(one), tmp_path / "loop", load=Dying())

    def says_finished(line: str) -> None:
        if line.startswith("finished"):
            raise Killed

    with pytest.raises(Killed):
        looped(settings(one), tmp_path / "loop", say=says_finished)
    result = looped(settings(one), tmp_path / "loop")
    assert result.kept.hash == whole[0].rounds[0].trained.hash


def test_a_finished_loop_says_its_result_again_and_goes_on_when_it_may(whole, settings):
    result, out, _ = whole
    asker, load = Partisan(PREFERS), Counting()
    again = looped(settings(ROUNDS), out, asker=asker, load=load)
    assert (asker.asked, load.num_images) == ([], 0)
    assert again.lines() == result.lines()


def test_weights_that_were_changed_are_not_gone_on_from(settings, tmp_path):
    out = tmp_path / "loop"

    def after_align(line: str) -> None:
        if line.endswith(": compare"):
            raise Killed

    with pytest.raises(Killed):
        looped(settings("stop={max_rounds: 1}"), out, say=after_align)
    journal = json.loads((out / FILE).read_text())
    for entry in journal["entries"]:
        if entry["stage"] == "align":
            entry["outputs"]["weights_hash"] = "0" * 64
    (out / FILE).write_text(json.dumps(journal))
    with pytest.raises(CheckpointError, match="its weights have changed since round 1 trained"):
        looped(settings("stop={max_rounds: 1}"), out)


def test_a_loop_with_other_settings_is_not_continued(whole, settings):
    _, out, _ = whole
    with pytest.raises(ConfigError, match=r"^seed: the loop in .* began with 0, got 1; "):
        looped(settings(ROUNDS, "seed=1"), out)
    with pytest.raises(ConfigError, match=r"^train.optimizer.learning_rate: the loop in "):
        looped(settings(ROUNDS, training=("optimizer.learning_rate=0.01",)), out)


def test_training_may_be_set_otherwise_until_it_begins_so_that_rankings_are_not_lost(
    settings, tmp_path
):
    out, one = tmp_path / "loop", "stop={max_rounds: 1}"
    asker = Partisan(PREFERS)

    def ranked(line: str) -> None:
        if line.endswith(": align"):
            raise Killed

    with pytest.raises(Killed):
        looped(settings(one), out, asker=asker, say=ranked)
    num_answers = asker.num_answers
    slower = ("optimizer.learning_rate=0.001",)
    with pytest.raises(CheckpointError, match=r"generate of round 1 was made from other model"):
        looped(settings(one, training=("policy.model=storybook",)), out, asker=asker)
    looped(settings(one, training=slower), out, asker=asker)
    assert load_config(TrainConfig, out / "round-01/run/config.yaml").optimizer.learning_rate == (
        0.001
    )
    assert asker.num_answers == num_answers + 5  # the votes


def test_from_the_base_in_each_round_all_weights_can_be_trained(settings, tmp_path):
    full = ("policy={train: full}", "optimizer.learning_rate=1.0e-5")
    both = settings("reference=base", "stop={max_rounds: 2}", training=full)
    result = looped(both, tmp_path / "loop", asker=Partisan((True, True)))
    assert [each.start.round for each in result.rounds] == [0, 1]
    folder = tmp_path / "loop" / "round-02"
    before = load_evaluation(folder / "run").base
    assert before.adapter_hash == result.rounds[0].trained.hash
    against = load_evaluation(folder / "against-base")
    assert against.base.adapter_hash is None
    assert against.aligned.adapter_hash == result.rounds[1].trained.hash
    assert not (folder / "adapter").exists()


def test_a_project_with_other_rankings_is_not_mixed_with_those_of_a_loop(whole, settings, tmp_path):
    _, out, _ = whole
    shared = settings(f"database={out / 'imgalign.db'}")
    with pytest.raises(InputError, match=r"^project: 'loop' of .* has rankings already"):
        looped(shared, tmp_path / "other")
