"""Several processes that learn together, as accelerate's launcher or torchrun starts them.

One store, where the processes find each other, serves one attempt only: a launcher that starts them
again leaves the addresses of the dead in it. Left out: who starts them, and on which device each
computes (accelerate's `PartialState`).
"""

import atexit
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn import Parameter

from imgalign.errors import ImgalignError, ProcessError
from imgalign.runs.sharding import SharedWeights

Given = TypeVar("Given")

ATTEMPT = "TORCHELASTIC_RESTART_COUNT"
"""How often the launcher has started these processes again."""
BUCKET = 2**24
"""Gradients that are summed at once, in elements: 64 MiB of float32."""


def join(*, cure: str, shares_weights: bool = False) -> "Together":
    """Meet the other processes, whose number and place the launcher has put in the environment.

    `cure` is what to do after one of them has died.
    """
    address = os.environ.get("MASTER_ADDR", "localhost")
    if address in ("localhost", "127.0.0.1", "::1"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    attempt = os.environ.get(ATTEMPT, "0")
    store, index, size = next(rendezvous("env://"))
    store = PrefixStore(f"imgalign/{attempt}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    world = Together(store, index=index, size=size, cure=cure, shares_weights=shares_weights)
    world.connect(backend)
    atexit.register(dist.destroy_process_group)
    return world


class Together:
    """One of several processes that learn together; sums have the same bits in all of them."""

    def __init__(
        self, store: Store, *, index: int, size: int, cure: str, shares_weights: bool
    ) -> None:
        self.index = index
        self.size = size
        self.shares_weights = shares_weights
        self._store = store
        self._cure = cure
        self._shared: SharedWeights | None = None
        self._of_shares: dist.ProcessGroup | None = None

    def connect(self, backend: str) -> None:
        """Meet the others; ends without a word where one of them has failed before and said why."""
        begin = partial(
            dist.init_process_group, store=self._store, rank=self.index, world_size=self.size
        )
        with self.one_voice():
            self._call(begin, backend)
            if self.shares_weights:
                # Here, where all have just met: who makes a group waits for half an hour for one
                # that has died.
                made = self._call(dist.new_group)
                assert isinstance(made, dist.ProcessGroup)  # of all processes, this one among them
                self._of_shares = made

    def deal(self, count: int) -> range:
        """A share in order; shares differ by one at most."""
        return range(count * self.index // self.size, count * (self.index + 1) // self.size)

    def total(self, value: float) -> float:
        """The sum in the order of the processes."""
        return math.fsum(self._each(value))

    def largest(self, value: float) -> float:
        """The largest; NaN where one is."""
        return torch.tensor(self._each(value), dtype=torch.float64).max().item()

    def _each(self, value: float) -> list[float]:
        mine = torch.tensor([value], dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        self._meet(dist.all_gather, found, mine)
        return [one.item() for one in found]

    def gather(self, value: Given) -> list[Given]:
        """What each gave, in their order; tensors are on the CPU."""
        found: list[Given] = [value] * self.size
        self._meet(dist.all_gather_object, found, value)
        return found

    def agree(self, flag: bool) -> bool:
        """Whether any process has it set."""
        return self.largest(float(flag)) > 0

    def wait(self) -> None:
        """Return when every process has come here."""
        self.largest(0.0)

    def reduce(self, parameters: Sequence[Parameter]) -> None:
        """Sum gradients; a parameter to which none of the processes has one stays without."""
        learned = torch.tensor([each.grad is not None for each in parameters], dtype=torch.int32)
        self._meet(dist.all_reduce, learned, dist.ReduceOp.MAX)
        chosen = [each for each, some in zip(parameters, learned.tolist(), strict=True) if some]
        for bucket in buckets_of(chosen):
            own = [
                torch.zeros_like(each) if each.grad is None else each.grad.contiguous()
                for each in bucket
            ]
            flat = torch.cat([gradient.flatten() for gradient in own])
            self._meet(dist.all_reduce, flat)
            parts = torch.split(flat, [gradient.numel() for gradient in own])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter)

    def share(self, network: nn.Module) -> None:
        """Keep a part of the frozen weights in each process, if these were launched so."""
        if self.shares_weights:
            assert self._of_shares is not None
            self._shared = SharedWeights(network, group=self._of_shares, call=self._call)

    def _meet(self, ask: Callable[..., object], *given: Any) -> None:
        """Call a collective, when no process needs weights of another any more."""
        if self._shared is not None:
            self._shared.help_others()
        self._call(ask, *given)

    def _call(self, ask: Callable[..., Given], *given: Any) -> Given:
        """Call a collective; ProcessError where a process has ended or cannot be reached."""
        try:
            return ask(*given)
        except RuntimeError as error:
            raise ProcessError(
                f"process {self.index} of {self.size}: another process of this run has ended or "
                f"cannot be reached; {self._cure}"
            ) from error

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let only the first process that fails say why: what follows in the others is no news."""
        try:
            yield
        except ImgalignError as error:
            if not self._first_to_fail():
                raise SystemExit(error.exit_code) from None
            raise
        except Exception:  # a fault of ours, which keeps its traceback: no other speaks after it
            self._first_to_fail()
            raise

    def _first_to_fail(self) -> bool:
        try:
            return bool(self._store.add("failed", 1) == 1)
        except RuntimeError:  # the store has gone with the process that held it
            return True


def buckets_of(parameters: Sequence[Parameter]) -> Iterator[list[Parameter]]:
    """In their order, of one type and device each, and no more than `BUCKET` elements if many."""
    for _, alike in groupby(parameters, key=lambda each: (each.dtype, each.device)):
        bucket: list[Parameter] = []
        for parameter in alike:
            if bucket and sum(map(Tensor.numel, bucket)) + parameter.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(parameter)
        yield bucket
