"""A loop that is ended by kill -9 in the middle of its stages, each time in another one."""

import signal
from collections import Counter

import pytest
from source_tree import ROOT

from imgalign.config import dump_config
from imgalign.loop.journal import FILE
from imgalign.preferences.checking import check_store
from imgalign.preferences.store import Store
from imgalign.runs.trained import weights_hash

MOMENTS = (
    FILE,  # nothing is made yet
    "images/*/*.png",  # the first candidate of the first prompt
    "round-01/run/config.yaml",  # before the first checkpoint
    "round-01/run/evaluation/.tmp-*",  # half of the comparison is written
)


@pytest.mark.slow
def test_a_loop_that_is_killed_in_the_middle_of_any_stage_ends_as_one_that_is_not(
    settings, servers, tmp_path
):
    dump_config(settings("stop={max_rounds: 1}"), tmp_path / "loop.yaml")

    def run(out: str, killed_at: str = "") -> int:
        command = ["loop_child", tmp_path / "loop.yaml", tmp_path / out, killed_at]
        code, _, told = servers.alone(command, folder=ROOT)
        assert code in (0, -signal.SIGKILL), told
        return code

    assert [run("killed", moment) for moment in MOMENTS] == [-signal.SIGKILL] * len(MOMENTS)
    assert run("killed") == 0
    assert run("whole") == 0
    hashes, answers = [], []
    for name in ("killed", "whole"):
        out = tmp_path / name
        hashes.append(weights_hash(out / "round-01" / "run" / "step-000001"))
        with Store.open(out / "imgalign.db", create=False) as store:
            assert check_store(store).passed
            answers.append(Counter(each.item_id for each in store.rankings()))
            prompts = [each.prompt for each in store.rankings(project="loop")]
        assert len(prompts) == len(set(prompts)) == 5
        assert not [path for path in out.rglob(".tmp-*") if path.parent != out]
    assert hashes[0] == hashes[1]
    assert answers[0] == answers[1]
    assert set(answers[0].values()) == {1}
