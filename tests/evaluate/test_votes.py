"""People's blind votes: whose count, what comes out, and what is said where there are none."""

import json
import math
from hashlib import sha256

import pytest
from judges import judge_next
from provenances import provenance
from scipy import stats
from texts import add_texts
from voting import BASE, counted

from imgalign.errors import InputError
from imgalign.evaluate.votes import load_votes
from imgalign.preferences.makers import rate_makers
from imgalign.statistics import wilson_interval


def test_a_tie_is_half_a_win_and_the_interval_is_that_of_the_votes(
    store, queue, vote, adapter, aligned
):
    said = ">>>>>>==<<"
    for number, each in enumerate(said):
        queue(f"prompt {number}", aligned, BASE)
        vote("ann", each)
    found = counted(adapter, store).people
    assert (found.num_wins, found.num_ties, found.num_losses) == (6, 2, 2)
    assert (found.num_votes, found.num_annotators, found.num_prompts) == (10, 1, 10)
    assert found.rate.value == pytest.approx(0.7)
    # Ten independent votes of 1, 1/2 and 0 about 0.7 have this variance of their mean:
    variance = (6 * 0.3**2 + 2 * 0.2**2 + 2 * 0.7**2) / (10 * 9)
    effective = min(0.7 * 0.3 / variance, 10)
    expected = wilson_interval(0.7 * effective, effective, z=stats.t.ppf(0.975, 9))
    assert (found.rate.low, found.rate.high) == pytest.approx(expected, rel=2e-3)


def test_rankings_of_texts_in_the_same_project_are_neither_votes_nor_ratings(
    store, queue, vote, adapter, aligned
):
    add_texts(store, ("a red cat", "a cat"))
    vote("bob", "<")
    for said in "><>":
        queue("a cat", aligned, BASE)
        vote("ann", said)
    assert [ranking.samples for ranking in store.rankings()] == ["texts", *["images"] * 3]
    found = counted(adapter, store).people
    assert (found.num_wins, found.num_losses, found.num_annotators) == (2, 1, 1)
    assert rate_makers(store).ratings.num_annotators == 1


def test_the_place_of_an_image_in_its_item_does_not_matter(store, queue, vote, adapter, aligned):
    for number in range(4):
        pair = (aligned, BASE) if number % 2 else (BASE, aligned)
        queue(f"prompt {number}", *pair)
        vote("ann", ">" if number % 2 else "<")
    found = counted(adapter, store).people
    assert (found.num_wins, found.num_losses) == (4, 0)


def test_the_win_rate_has_the_log_odds_of_the_models_ratings(store, queue, vote, adapter, aligned):
    for number, each in enumerate(">><=>><>"):
        queue(f"prompt {number}", aligned, BASE)
        vote("ann", each)
        vote("bob", ">")
    rate = counted(adapter, store).people.rate.value
    base, own = rate_makers(store).ratings.score
    assert own - base == pytest.approx(math.log(rate / (1 - rate)))


def test_votes_of_few_annotators_say_little_about_others_and_more_about_themselves(
    store, queue, vote, adapter, aligned
):
    for number in range(12):
        queue(f"prompt {number}", aligned, BASE)
        vote("ann", "<" if number % 4 == 0 else ">")
        vote("bob", "<" if number % 3 == 0 else ">")
    result = counted(adapter, store)
    everybody, these = result.people.rate, result.people.rate_of_these_annotators
    assert everybody.value == these.value == pytest.approx((9 + 8) / 24)
    assert everybody.low < these.low < these.high < everybody.high
    assert "for these annotators alone" in "\n".join(result.lines())
    undecided = "No prompt is judged completely yet; 12 prompts still have items to judge"
    assert f"  {undecided}" in result.lines()  # nine annotators were asked for


def test_the_votes_of_one_annotator_are_said_to_be_of_one(store, queue, vote, adapter, aligned):
    for number in range(3):
        queue(f"prompt {number}", aligned, BASE)
        vote("ann", ">")
        vote("bob", "skipped")
    result = counted(adapter, store)
    assert (result.people.num_annotators, result.people.num_skipped) == (1, 3)
    assert "one annotator: the interval says nothing about" in "\n".join(result.lines())


def test_a_vote_that_was_taken_back_counts_no_more_and_the_one_after_it_once(
    store, queue, vote, adapter, aligned
):
    queue("a cat", aligned, BASE)
    first = vote("ann", "<")
    store.undo("ann", first.key)
    vote("ann", ">", key="again")
    found = counted(adapter, store).people
    assert (found.num_wins, found.num_losses, found.num_votes) == (1, 0, 1)


def test_all_bad_and_skipped_are_told_and_are_no_votes_for_either(
    store, queue, vote, adapter, aligned
):
    for number, said in enumerate([">", "all_bad", "skipped", "skipped"]):
        queue(f"prompt {number}", aligned, BASE)
        vote("ann", said)
    found = counted(adapter, store).people
    assert (found.num_votes, found.num_all_bad, found.num_skipped) == (1, 1, 2)
    assert found.rate.value == 1


def test_votes_without_an_order_have_no_rate(store, queue, vote, adapter, aligned):
    queue("a cat", aligned, BASE)
    vote("ann", "all_bad")
    result = counted(adapter, store)
    assert result.people.rate is None
    assert "all items were skipped or judged all bad" in result.verdict()


def test_only_votes_on_these_very_weights_and_their_own_base_count(
    store, queue, vote, adapter, aligned
):
    retrained = aligned | {"adapter_hash": "c" * 64}
    other_model = {"model": "other"}
    for pair in ((retrained, BASE), (aligned, other_model), (aligned, retrained), (BASE, BASE)):
        queue("a cat", *pair)
        vote("ann", ">")
    queue("a dog", aligned | {"adapter": "moved/elsewhere"}, BASE)
    vote("ann", "<")
    found = counted(adapter, store).people
    assert (found.num_wins, found.num_losses) == (0, 1)


def test_votes_are_on_one_strength_of_the_weights(store, queue, vote, adapter, aligned):
    weak = aligned | {"strength": 0.6}
    for makers, said in (((aligned, BASE), ">"), ((weak, BASE), "<"), ((weak, aligned), ">")):
        queue("a cat", *makers)
        vote("ann", said)
    full, part = counted(adapter, store), counted(adapter, store, strength=0.6)
    assert (full.people.num_wins, full.people.num_losses) == (1, 0)
    assert (part.people.num_wins, part.people.num_losses) == (0, 1)
    assert part.aligned.strength == 0.6
    assert load_votes(adapter / "evaluation") == full
    assert load_votes(adapter / "evaluation-0.6") == part
    with pytest.raises(InputError, match=r"at 0\.7: no item .* at 0\.6"):
        counted(adapter, store, strength=0.7)


def test_images_of_rewritten_prompts_are_no_votes_on_weights(store, queue, vote, adapter, aligned):
    rewriter = {"original_prompt": "a cat", "rewriter": "storybook"}
    queue("a cat", aligned | rewriter, BASE, aligned)
    vote("ann", ((0,), (1,), (2,)))
    queue("a dog", aligned | rewriter, BASE | rewriter)
    vote("ann", ">")
    found = counted(adapter, store).people
    assert (found.num_wins, found.num_losses) == (0, 1)


def test_an_item_of_several_images_counts_as_the_share_of_its_pairs_that_are_won(
    store, queue, vote, adapter, aligned
):
    other = aligned | {"adapter_hash": "c" * 64}
    queue("a cat", aligned, BASE, aligned, BASE, other)
    # Of the pairs (0, 1), (0, 3), (2, 1), (2, 3) the aligned image wins two and ties one.
    vote("ann", ((4,), (0,), (1, 2), (3,)))
    found = counted(adapter, store).people
    assert found.rate.value == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert (found.num_wins, found.num_votes) == (1, 1)


def test_an_image_that_both_made_alike_is_nobodys(store, queue, vote, adapter, aligned):
    item = queue("a cat", aligned, BASE, aligned)
    vote("ann", ((1,), (2,), (0,)))
    ranked = next(iter(store.rankings()))
    image = store.image_path(ranked.sample_ids[2]).read_bytes()
    assert ranked.item_id == item
    assert counted(adapter, store).people.num_losses == 1
    store.add_image(image, provenance(prompt="a cat", **BASE))
    assert counted(adapter, store).people.rate.value == 0
    first = store.image_path(ranked.sample_ids[0]).read_bytes()
    store.add_image(first, provenance(prompt="a cat", **BASE))
    with pytest.raises(InputError, match="holds its images beside"):
        counted(adapter, store)


def test_simulated_annotators_are_counted_apart(store, queue, vote, adapter, aligned):
    store.add_annotator("cosy-1", group="cosy", simulated=True)
    for number in range(3):
        queue(f"prompt {number}", aligned, BASE)
        vote("ann", "<")
        vote("cosy-1", ">")
    result = counted(adapter, store)
    assert (result.people.num_wins, result.people.num_losses) == (0, 3)
    assert (result.simulated.num_wins, result.simulated.num_losses) == (3, 0)
    text = "\n".join(result.lines())
    assert text.startswith("Annotators prefer the aligned image in 0 % of 3 blind votes")
    assert "simulated annotators, counted apart: 100 % of 3" in text


def test_ai_judges_have_no_vote_and_that_is_said(store, queue, vote, adapter, aligned, caplog):
    queue("a cat", aligned, BASE)
    judge_next(store)
    with pytest.raises(InputError, match=r"1 comparisons .* none has a vote"):
        counted(adapter, store)
    vote("ann", "<")
    caplog.clear()
    result = counted(adapter, store)
    assert (result.people.num_losses, result.people.num_votes, result.simulated) == (1, 1, None)
    assert "votes: 1 by AI judges are left out" in caplog.messages


def test_where_only_simulated_annotators_voted_no_person_did(store, queue, vote, adapter, aligned):
    store.add_annotator("cosy-1", group="cosy", simulated=True)
    queue("a cat", aligned, BASE)
    vote("cosy-1", ">")
    result = counted(adapter, store)
    assert result.people is None
    assert result.lines()[0] == "No human annotator has voted"


def test_votes_on_prompts_that_the_run_was_trained_on_are_counted(store, queue, vote, run):
    known = sorted(json.loads((run / "prompts.json").read_text())["training"])[0]
    digest = sha256(b"").hexdigest()
    own = BASE | {"adapter": "x", "adapter_hash": digest}
    for prompt in (known.upper(), "something new"):
        queue(prompt, own, BASE)
        vote("ann", ">")
    result = counted(run, store)
    assert result.num_on_known_prompts == 1
    assert "1 of the votes are on prompts that the run was trained" in "\n".join(result.lines())


# --- where there are none


def test_without_items_the_message_says_how_to_make_some_and_what_is_there(
    store, queue, adapter, aligned
):
    with pytest.raises(InputError, match=r"holds its images beside those of storybook") as caught:
        counted(adapter, store)
    assert "Generate page of `imgalign ui`" in str(caught.value)
    queue("a cat", aligned | {"adapter": "runs/b/step-000020", "adapter_hash": "b" * 64}, BASE)
    with pytest.raises(InputError, match=r"there, storybook is compared with .*step-000020"):
        counted(adapter, store)


def test_items_without_a_vote_are_named_with_the_cure(store, queue, adapter, aligned):
    for number in range(2):
        queue(f"prompt {number}", aligned, BASE)
    with pytest.raises(
        InputError, match=r"2 comparisons .* queued .* rank them with `imgalign ui`"
    ):
        counted(adapter, store)


def test_votes_of_another_project_do_not_count(store, queue, vote, adapter, aligned):
    queue("a cat", aligned, BASE, project="cats")
    vote("ann", ">", project="cats")
    assert counted(adapter, store, project="cats").people.num_wins == 1
    assert counted(adapter, store).people.num_wins == 1
    with pytest.raises(InputError, match="in project 'dogs'"):
        counted(adapter, store, project="dogs")
