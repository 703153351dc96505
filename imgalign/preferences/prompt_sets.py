"""Sets of prompts that results are restricted to: those of a list, of a project, or all others."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from sqlalchemy import Connection, select

from imgalign.preferences.outcomes import prompt_numbers
from imgalign.preferences.schema import items
from imgalign.preferences.splits import prompt_key
from imgalign.preferences.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """Prompts by their `prompt_key`, so that case and spacing do not matter."""

    keys: frozenset[str]
    others: bool = False
    """All prompts but these."""

    @classmethod
    def of(cls, prompts: Iterable[str], *, others: bool = False) -> "PromptSet":
        """These prompts, or all but these."""
        return cls(keys=frozenset(map(prompt_key, prompts)), others=others)

    def __contains__(self, prompt: str) -> bool:
        return (prompt_key(prompt) in self.keys) != self.others


def prompts_of_project(store: Store, project: str) -> PromptSet:
    """What a project asks for, judged or not."""
    statement = select(items.c.prompt).distinct().where(items.c.project == project)
    with store.database.read() as connection:
        return PromptSet.of(connection.execute(statement).scalars())


def numbers_in(connection: Connection, chosen: PromptSet) -> Int[np.ndarray, " p"]:
    """The numbers in `outcomes` of the prompts of a set."""
    known = connection.execute(select(items.c.prompt).distinct()).scalars()
    prompts = [each for each in known if each in chosen]
    return np.array(list(prompt_numbers(connection, prompts).values()), dtype=np.int64)
