"""Claims: what tests check at run time of the types of arguments and results, and of shapes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor
from typechecker import check, checked, with_axes

typed = partial(checked, typechecker=check)


@typed
def half(number: float, kind: Literal["down", "up"] = "down") -> float:
    wrong: Any = f"{number}"
    return number if kind == "up" else wrong


@typed
def added(one: Float[Tensor, " b"], other: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    return one + other


@typed
def made_by(make: Callable[[Float[Tensor, " b"]], int], given: "Pair | None" = None) -> None: ...


@typed
@dataclass(frozen=True, slots=True)
class Pair:
    one: int
    other: float = 0.5


@typed
@dataclass
class Sums:
    one: Float[Tensor, " b"]
    other: Float[Tensor, " b"]


def untyped(): ...


@typed
def counted(end: int) -> Iterator[int]:
    yield from range(end)


def test_arguments_and_results_are_checked():
    assert half(1, "up") == 1
    assert Pair(1, 2) == Pair(1, 2.0)
    assert list(counted(3)) == [0, 1, 2]
    text: Any = "1"
    for wrong in (
        lambda: half(text),
        lambda: half(1),
        lambda: half(1, "left"),
        lambda: Pair(text),
        lambda: Pair(1, other=text),
        lambda: list(counted(text)),
    ):
        with pytest.raises(TypeCheckError):
            wrong()


def test_axes_of_one_name_have_one_size():
    assert added(torch.ones(2), torch.ones(2)).tolist() == [2, 2]
    Sums(torch.ones(2), torch.ones(2))
    for wrong in (added, Sums):
        with pytest.raises(TypeCheckError):
            wrong(torch.ones(2), torch.ones(3))


def test_only_what_names_arrays_keeps_the_sizes_of_axes():
    wrapper = with_axes(untyped, typechecker=check).__code__
    for plain in (Pair.__init__, half, counted):
        assert plain.__code__ is not wrapper
    for other in (Sums.__init__, added, made_by):
        assert other.__code__ is wrapper
