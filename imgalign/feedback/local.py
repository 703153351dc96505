"""A judge on this machine: any causal language model, which says A or B by its probabilities.

Nothing is generated: the reply is the letter that is likelier as the begin of the response. So
every model has a reply, and it is the same each time. Texts only.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.environment import TrainingDType, choose_device, choose_dtype, say_dtype
from imgalign.errors import InputError, NumericsError
from imgalign.feedback.question import Question, Reply
from imgalign.language.chat import prompt_tokens, response_tokens
from imgalign.language.loading import find_language_model, load_language_model, quiet
from imgalign.language.scoring import network_of
from imgalign.runs.trained import weights_hash

AS_LIKELY = "both letters are as likely"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """The tokens of A and B as the begin of a response."""

    shared: tuple[int, ...]
    """What both begin with, such as the token of a space."""
    a: int
    b: int


class LocalJudge:
    """A causal language model as `judge.Judge`.

    `name` is "storybook", a folder or a hub id. InputError as from `load_language_model`, and for a
    tokenizer that cannot tell the letters apart.
    """

    host: str | None = None
    image_size: int | None = None

    def __init__(
        self,
        name: str,
        *,
        device: str = "auto",
        dtype: TrainingDType = "auto",
        batch_size: int = 8,
    ) -> None:
        where = choose_device(device)
        computing = choose_dtype(dtype, where)
        loaded = load_language_model(name, device=where, dtype=computing)
        say_dtype(computing, where)
        self.model = name
        self.revision = _revision(name, loaded.model.config)
        self.batch_size = batch_size
        self.tokenizer = loaded.tokenizer
        self.context_length = loaded.context_length
        self.letters = letters_of(loaded.tokenizer, name)
        self.network = network_of(loaded, dtype=computing)

    def replies(self, questions: Iterable[Question]) -> Generator[Reply, None, None]:
        """A reply to each question, in order; a batch of questions is taken at a time."""
        waiting = iter(questions)
        while batch := list(islice(waiting, self.batch_size)):
            yield from self._batch(batch)

    def _batch(self, questions: Sequence[Question]) -> list[Reply]:
        with quiet():  # transformers would say of long questions what the replies say
            found = [self._tokens(question) for question in questions]
        rows = [each for each in found if not isinstance(each, Reply)]
        replies = iter(self._choices(rows) if rows else ())
        return [each if isinstance(each, Reply) else next(replies) for each in found]

    def _tokens(self, question: Question) -> list[int] | Reply:
        """The question as tokens, up to where the letters differ; a Reply where it cannot be."""
        (text,) = question.parts()
        assert isinstance(text, str), "a local judge is not asked about images"
        try:
            (row,) = prompt_tokens(self.tokenizer, [as_prompt(self.tokenizer, text)])
        except InputError as error:
            return Reply(problem=str(error).partition(": ")[2])
        row += self.letters.shared
        if len(row) + 1 > self.context_length:
            return Reply(
                problem=f"the question has {len(row)} tokens, and the judge reads "
                f"{self.context_length} with its reply"
            )
        return row

    @torch.no_grad()
    def _choices(self, rows: Sequence[Sequence[int]]) -> list[Reply]:
        nothing = torch.zeros(len(rows), 0, dtype=torch.long)
        logits = self.network.logits(rows, nothing, nothing.bool(), torch.tensor([0]))[:, 0]
        difference = (logits[:, self.letters.a] - logits[:, self.letters.b]).tolist()
        if not all(map(isfinite, difference)):
            raise NumericsError(f"judge {self.model}: the network gave numbers that are not finite")
        return [
            Reply(choice="first" if each > 0 else "second") if each else Reply(said=AS_LIKELY)
            for each in difference
        ]


def as_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The question as a message, or as a text to be continued where there is no chat template."""
    return text if tokenizer.chat_template else f"{text}\n\nAnswer:"


def letters_of(tokenizer: PreTrainedTokenizerBase, name: str) -> Letters:
    """The tokens of A and B as the begin of a response; InputError where they do not differ."""
    texts = ["A", "B"] if tokenizer.chat_template else [" A", " B"]
    one, other = (row[:-1] for row in response_tokens(tokenizer, texts))
    tokens = enumerate(zip(one, other, strict=False))
    place = next((number for number, pair in tokens if pair[0] != pair[1]), None)
    if place is None:
        raise InputError(
            f"judge {name!r}: its tokenizer cannot tell the letters A and B apart; choose a "
            "language model that reads English"
        )
    return Letters(shared=tuple(one[:place]), a=one[place], b=other[place])


def _revision(name: str, config: object) -> str | None:
    """The hub's commit, or the hash of the weights in a folder."""
    folder = Path(find_language_model(name))
    if not folder.is_dir():
        commit: str | None = getattr(config, "_commit_hash", None)
        return commit
    return weights_hash(folder)
