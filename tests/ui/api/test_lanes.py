"""Requests that wait for each other: in order, few at work at once, and votes for none of them."""

import asyncio
import threading

import pytest

from imgalign.errors import InputError
from ui.api.lanes import Lane

PATIENCE = 20.0


class Door:
    """Work that begins at once and ends when it is let out; counts who is inside."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.came = threading.Semaphore(0)
        self.out = threading.Semaphore(0)

    def pass_through(self, number: int) -> int:
        self.inside.append(number)
        self.came.release()
        assert self.out.acquire(timeout=PATIENCE)
        return number

    async def let_in(self) -> None:
        """Wait until one more has come."""
        came = await asyncio.to_thread(self.came.acquire, timeout=PATIENCE)
        assert came


def test_so_many_are_at_work_at_once_and_the_others_come_in_the_order_of_asking():
    door = Door()
    work = Lane(2)(door.pass_through)

    async def all_of_them() -> list[int]:
        asked = []
        for number in range(6):
            asked.append(asyncio.create_task(work(number)))
            await asyncio.sleep(0)  # so that it has asked
        await door.let_in()
        await door.let_in()
        await asyncio.sleep(0.05)
        assert sorted(door.inside) == [0, 1]
        for number in range(2, 6):
            door.out.release()
            await door.let_in()
            assert door.inside[-1] == number
        for _ in range(2):
            door.out.release()
        return list(await asyncio.gather(*asked))

    assert asyncio.run(all_of_them()) == list(range(6))


def test_one_lane_does_not_wait_for_another_that_is_full():
    sets, votes = Door(), Door()
    votes.out.release()

    async def a_vote_while_sets_wait() -> int:
        waiting = [asyncio.create_task(Lane(1)(sets.pass_through)(number)) for number in (1, 2)]
        await sets.let_in()
        found = await asyncio.wait_for(Lane(1)(votes.pass_through)(7), PATIENCE)
        for _ in waiting:
            sets.out.release()
        await asyncio.gather(*waiting)
        return found

    assert asyncio.run(a_vote_while_sets_wait()) == 7


def test_an_error_reaches_whoever_asked_and_leaves_its_place_to_the_next():
    lane = Lane(1)

    @lane
    def refused() -> None:
        raise InputError("ranking: too short")

    async def twice() -> None:
        for _ in range(2):
            with pytest.raises(InputError, match="too short"):
                await refused()

    asyncio.run(twice())


def test_who_hangs_up_while_waiting_gives_the_place_up():
    door = Door()
    work = Lane(1)(door.pass_through)

    async def one_leaves() -> None:
        first, leaving, last = (asyncio.create_task(work(number)) for number in range(3))
        await door.let_in()
        leaving.cancel()
        door.out.release()
        await door.let_in()
        door.out.release()
        await asyncio.gather(first, last)
        assert leaving.cancelled()
        assert door.inside == [0, 2]

    asyncio.run(one_leaves())
