"""A round of the loop, as far as it is known: what it made, and what was said of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from imgalign.errors import CheckpointError
from imgalign.evaluate.votes import VoteCounts
from imgalign.loop.deciding import improves
from imgalign.loop.journal import Journal
from imgalign.runs.trained import find_weights, weights_hash

BASE = "base"
"""Stands for the hash of the weights of a loop's start: there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Trained weights, and who trained them. Round 0 is the model that the loop starts with."""

    round: int
    path: Path | None = None
    hash: str = BASE

    def checked(self) -> Path | None:
        """Where they are; CheckpointError where they have changed since they were written down."""
        if self.path is None:
            return None
        found = find_weights(self.path)
        if weights_hash(found) != self.hash:
            raise CheckpointError(
                f"{found}: its weights have changed since round {self.round} trained them; put "
                "them back, or start another loop"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round that is finished."""

    number: int
    start: Weights
    """What generated the candidates, and what the round is compared with."""
    trained: Weights
    num_rankings: int
    """All there were when it was trained, of this round and those before."""
    message: str
    """How training ended."""
    kl_from_base: float
    """KL from the model that the loop started with, in nats per image."""
    num_identical: int
    """Compared pairs of two equal images, which nobody was asked about."""
    votes: VoteCounts | None
    """None where all pairs were identical."""
    improved: bool
    seconds: Mapping[str, float]
    """By stage, of the last attempt at each."""


def folder_of(out: Path, number: int) -> Path:
    """The folder of a round. Example: OUT/round-02."""
    return out / source_of(number)


def source_of(number: int) -> str:
    """What the items of a round have as their source in the store. Example: "round-02"."""
    return f"round-{number:02d}"


def weights_of(journal: Journal, number: int) -> Weights:
    """What a round trained, as the journal has it; round 0 trained nothing."""
    if number == 0:
        return Weights(round=0)
    entry = journal.find(number, "align")
    assert entry is not None
    path = journal.folder / entry.outputs["weights"]
    return Weights(round=number, path=path, hash=entry.outputs["weights_hash"])


def rounds_of(journal: Journal) -> list[Round]:
    """The finished rounds, in order."""
    found: list[Round] = []
    while (vote := journal.find(len(found) + 1, "vote")) is not None:
        number = len(found) + 1
        outputs: dict[str, Any] = {}
        for entry in journal.entries:
            if entry.round == number:
                outputs |= entry.outputs
        votes = TypeAdapter(VoteCounts | None).validate_python(vote.outputs["votes"])
        found.append(
            Round(
                number=number,
                start=weights_of(journal, outputs["start_round"]),
                trained=weights_of(journal, number),
                num_rankings=outputs["num_rankings"],
                message=outputs["message"],
                kl_from_base=outputs["kl_from_base"],
                num_identical=outputs["num_identical"],
                votes=votes,
                improved=improves(votes.rate_of_these_annotators if votes else None),
                seconds={
                    each.stage: each.seconds for each in journal.entries if each.round == number
                },
            )
        )
    return found
