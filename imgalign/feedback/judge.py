"""What an AI judge is to those that ask it: it replies to questions, in order."""

from collections.abc import Generator, Iterable
from typing import Protocol, runtime_checkable

from imgalign.feedback.constitution import Constitution
from imgalign.feedback.question import QUESTION_HASH, Question, Reply
from imgalign.preferences.records import JudgeProvenance, Samples


@runtime_checkable
class Judge(Protocol):
    """A model that says which of two candidates follows a principle better."""

    model: str
    """Its name: a folder, a hub id, or what a server calls it."""
    revision: str | None
    """What tells versions of the model apart, where known."""
    host: str | None
    """Host and port of its server; None for a local model."""
    image_size: int | None
    """Pixels of the longer side to which it has images reduced; None where it reads texts only."""

    def replies(self, questions: Iterable[Question]) -> Generator[Reply, None, None]:
        """A reply to each question, in their order.

        Questions are taken as they are needed, some ahead of their replies. JudgeError where the
        judge cannot go on; closing the iterator stops what is under way.
        """
        ...


def provenance_of(judge: Judge, constitution: Constitution) -> JudgeProvenance:
    """What is kept of a judge beside its rankings."""
    return JudgeProvenance(
        model=judge.model,
        revision=judge.revision,
        host=judge.host,
        image_size=judge.image_size,
        constitution_name=constitution.name,
        constitution=constitution.canonical,
        question_hash=QUESTION_HASH,
    )


def unreadable(judge: Judge, constitution: Constitution, samples: Samples) -> str:
    """Why a judge cannot be asked about images or texts; empty where it can."""
    if samples == "images" and judge.image_size is None:
        return "a local judge reads texts only; ask a vision model by --url"
    if not constitution.principles_for(samples):
        return f"constitution {constitution.name!r} has no principle for {samples}"
    return ""
