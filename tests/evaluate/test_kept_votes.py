"""The verdict of blind votes is kept beside the weights, by what counts and by the command."""

import pytest
from voting import BASE, counted

from imgalign.cli.main import main
from imgalign.errors import InputError
from imgalign.evaluate.votes import keep_votes, kept_votes, load_votes
from imgalign.preferences.comparisons import compare_makers
from imgalign.preferences.store import Store
from imgalign.runs.trained import ADAPTER

# --- the verdict, kept with the numbers


def test_the_verdict_is_kept_at_every_strength_and_is_that_of_the_results_page(
    store, queue, vote, adapter, aligned
):
    weak, place = aligned | {"strength": 0.6}, "default-compare"
    for number in range(12):
        queue(f"prompt {number}", aligned, BASE, project=place, overlap=1)
        vote("ann", ">", project=place)
    for said in "><":
        queue(f"weak {said}", weak, BASE, project="cats", overlap=1)
        vote("ann", said, project="cats")
    part, full = keep_votes(adapter, store, command="imgalign export x")
    assert kept_votes(adapter) == [part, full]
    assert load_votes(adapter / "evaluation") == full
    assert load_votes(adapter / "evaluation-0.6") == part
    shown = {each.one.strength: each for each in compare_makers(store)}
    for strength, found in ((1.0, full), (0.6, part)):
        assert found.whenever == shown[strength].sequence
    assert (full.people.num_votes, full.preferred, full.projects) == (12, "aligned", (place,))
    assert full.whenever.low > 0.5
    assert full.decision.startswith("Decided: the aligned checkpoint is preferred, by 12 prompts")
    assert (part.people.num_votes, part.preferred, part.projects) == (2, None, ("cats",))
    assert part.decision.startswith("Not decided by 2 prompts")


def test_what_was_counted_earlier_is_counted_as_then_and_kept_where_the_store_has_nothing(
    store, queue, vote, adapter, aligned, tmp_path
):
    for project, said in (("cats", ">"), ("dogs", "<")):
        queue(f"a prompt of {project}", aligned, BASE, project=project)
        vote("ann", said, project=project)
    counted(adapter, store, project="cats")
    queue("another of cats", aligned, BASE, project="cats")
    vote("ann", ">", project="cats")
    (found,) = keep_votes(adapter, store, command="imgalign export x")
    assert (found.project, found.people.num_wins, found.people.num_losses) == ("cats", 2, 0)
    with Store.open(tmp_path / "empty.db") as empty:
        assert keep_votes(adapter, empty, command="imgalign export x") == [found]
    (adapter / ADAPTER).write_bytes(b"other weights")
    assert kept_votes(adapter) == []


def test_a_verdict_that_cannot_be_kept_is_told_all_the_same(
    store, queue, vote, adapter, aligned, caplog
):
    queue("a cat", aligned, BASE)
    vote("ann", ">")
    (adapter / "evaluation").write_text("in its place")
    (found,) = keep_votes(adapter, store, command="imgalign export x")
    assert found.people.num_wins == 1
    assert "the verdict of the votes is not kept beside the weights" in caplog.text


def test_a_decision_of_simulated_annotators_stands_below_their_votes(
    store, queue, vote, adapter, aligned
):
    store.add_annotator("cosy-1", group="cosy", simulated=True)
    queue("a cat", aligned, BASE, overlap=1)
    vote("cosy-1", ">")
    first, second, *_, last = counted(adapter, store).lines()
    assert first == "No human annotator has voted"
    assert second.startswith("simulated annotators, counted apart: 100 % of 1 blind votes")
    assert last.startswith("  Not decided by 1 prompt judged completely")


# --- through the command line


def test_evaluate_votes_prints_the_result_and_keeps_it_beside_the_evaluation(
    store, queue, vote, adapter, aligned, capsys
):
    store.add_annotator("cosy-1", group="cosy", simulated=True)
    for number in range(6):
        queue(f"prompt {number}", aligned, BASE)
        for who in ("ann", "bob"):
            vote(who, "<" if number == 0 else ">")
        vote("cosy-1", "<")
    kept = adapter / "evaluation" / "evaluation.json"
    kept.parent.mkdir()
    kept.write_text('{"pairs": [], "summary": {}, "origin": {}}')
    assert main(["evaluate", str(adapter), "--votes"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Annotators prefer the aligned image in 83 % of 12 blind votes (95 %")
    assert "10 wins, 0 ties, 2 losses; 0 times all bad, 0 skipped; annotators: 2, prompts: 6" in out
    assert "simulated annotators, counted apart: 0 % of 6 blind votes" in out
    found = load_votes(adapter / "evaluation")
    assert found.lines() == out.splitlines()
    assert found.aligned.adapter_hash == aligned["adapter_hash"]
    assert found.people.num_wins == 10
    assert kept.read_text() == '{"pairs": [], "summary": {}, "origin": {}}'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--votes"], "no item of"),
        (["--votes", "--database", "sqlite:///none.db"], "no such database"),
        (["--votes", "--reward", "x"], "--reward: without effect with --votes"),
        (["num_prompts=3", "seed=1", "--votes"], "num_prompts, seed: without effect with --votes"),
        (["--project", "cats"], "--project: without effect without --votes"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_line(store, adapter, arguments, said, capsys):
    assert main(["evaluate", str(adapter), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_votes_json_of_another_program_is_not_replaced(
    store, queue, vote, adapter, aligned, tmp_path
):
    queue("a cat", aligned, BASE)
    vote("ann", ">")
    (tmp_path / "votes.json").write_text('{"votes": 3}')
    with pytest.raises(InputError, match="was not made by imgalign"):
        counted(adapter, store, out=tmp_path)
    with pytest.raises(InputError, match="not of this version"):
        load_votes(tmp_path)
    assert load_votes(tmp_path / "elsewhere") is None
