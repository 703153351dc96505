"""Passes of a network are counted for each sample, and for each token of a text."""

import torch
from torch import nn

from imgalign.runs.passes import PassCounter, Passes


def test_each_row_of_numbers_is_a_pass_and_has_a_gradient_where_a_graph_is_kept():
    network = nn.Linear(3, 2)
    counter = PassCounter(network)
    network(torch.zeros(5, 3))
    with torch.no_grad():
        network(torch.zeros(4, 3))
    network(input=torch.zeros(2, 3))
    assert counter.passes == Passes(forward=11, backward=7)


def test_each_token_is_a_pass():
    network = nn.Embedding(10, 2)
    counter = PassCounter(network)
    network(torch.zeros(5, 7, dtype=torch.long))
    assert counter.passes == Passes(forward=35, backward=35)


def test_what_was_spent_since_then_is_a_difference():
    assert Passes(11, 7) - Passes(5, 3) == Passes(6, 4)
