"""How much a ranking is expected to tell a fitted reward."""

import math
from itertools import permutations

import pytest
import torch
from torch.testing import assert_close

from imgalign.errors import StoreError
from imgalign.losses import plackett_luce_loss
from imgalign.preferences.queue_order import OpenItem
from reward_models.clip import ClipReward
from reward_models.contract import HeadConfig
from reward_models.head import PreferenceHead
from reward_models.informative import (
    comparisons,
    information,
    is_held_out,
    nats_of,
    pair_weight,
)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_comparisons_of_equal_candidates_have_the_information_of_plackett_luce(count):
    hessians = []
    for order in permutations(range(count)):
        ranks = torch.tensor([order])

        def loss(scores, ranks=ranks):
            # Ties do not occur, at a log weight this low.
            return plackett_luce_loss(scores[None], ranks, log_tie=torch.full((count - 1,), -60.0))[
                0
            ]

        equal = torch.zeros(count, dtype=torch.double)
        hessians.append(torch.autograd.functional.hessian(loss, equal))
    expected = torch.stack(hessians).mean(0)
    rows = comparisons(torch.eye(count, dtype=torch.double), torch.zeros(count).double())
    assert_close(rows.T @ rows, expected)


def test_information_of_two_candidates_is_that_of_a_bradley_terry_comparison():
    assert pair_weight(2) == 1
    inputs, utilities = torch.tensor([[3.0], [1.0]]), torch.tensor([0.5, -0.5])
    rows = comparisons(inputs, utilities)
    p = 1 / (1 + math.exp(-1))
    told = p * (1 - p) * 2.0**2
    first, again = (
        information([], [rows], prior=torch.tensor([0.7])),
        information([rows, rows], [rows], prior=torch.tensor([0.7])),
    )
    assert first == pytest.approx([math.log(1 + told / 0.7) / 2])
    assert again == pytest.approx([math.log(1 + told / (0.7 + 2 * told)) / 2])


def test_what_was_learned_lowers_what_is_left_to_tell_of_the_like_alone():
    generator = torch.Generator().manual_seed(0)
    seen = [comparisons(torch.randn(4, 3, generator=generator), torch.zeros(4)) for _ in range(5)]
    seen = [torch.cat([rows, torch.zeros(len(rows), 2)], dim=1) for rows in seen]
    other = comparisons(torch.eye(5)[3:], torch.zeros(2))
    prior = torch.ones(5)
    before = information([], [*seen, other], prior=prior)
    after = information(seen, [*seen, other], prior=prior)
    assert all(late < early for early, late in zip(before[:5], after[:5], strict=True))
    assert after[5] == pytest.approx(before[5])


def test_equal_images_tell_nothing():
    rows = comparisons(torch.ones(3, 4), torch.zeros(3))
    assert information([], [rows], prior=torch.ones(4)) == pytest.approx([0.0])


def test_the_prior_of_a_head_is_that_of_its_penalty():
    head = PreferenceHead(6, HeadConfig(hidden=2), style_width=3, generator=torch.Generator())
    with torch.no_grad():
        head.linear.copy_(torch.randn(15, generator=torch.Generator().manual_seed(1)))
        head.out.zero_()
        head.hidden.zero_()
    expected = (head.prior_precision(std=0.7) * head.linear.square()).sum() / 2
    assert_close(head.penalty(std=0.7), expected.detach())


def test_the_linear_part_multiplies_the_linear_inputs():
    head = PreferenceHead(6, HeadConfig(hidden=0), style_width=3, generator=torch.Generator())
    generator = torch.Generator().manual_seed(2)
    image, text = torch.randn(5, 9, generator=generator), torch.randn(5, 6, generator=generator)
    head.standardise(image, text)
    without = head(image, text)
    with torch.no_grad():
        head.linear.copy_(torch.randn(15, generator=generator))
    assert_close(head(image, text) - without, head.linear_inputs(image, text) @ head.linear)


def test_items_of_held_out_prompts_and_without_their_images_tell_nothing(fitted, world):
    out, _ = fitted
    images, _, rankings = world
    reward = ClipReward.from_pretrained(out)
    asked = [
        OpenItem(f"item {i}", ranking.prompt, ranking.sample_ids)
        for i, ranking in enumerate(rankings)
    ]
    lost = next(each for each in asked if not is_held_out(each.prompt, reward.held_out))
    asked.append(OpenItem("single", lost.prompt, lost.sample_ids[:1]))

    def read(image_id):
        if image_id == lost.sample_ids[0]:
            raise StoreError("lost")
        return images[image_id]

    learned = [(each.prompt, each.sample_ids) for each in rankings[:30]]
    found = nats_of(reward, learned, asked, read, prior_std=1.0)
    expected = {
        each.item_id
        for each in asked
        if not is_held_out(each.prompt, reward.held_out) and len(each.sample_ids) > 1
    }
    assert set(found) == expected - {lost.item_id}
    assert 0 < len(found) < len(rankings)
    assert all(value > 0 for value in found.values())
