"""The wording of a judge's questions, and the reading of its replies.

A question shows two candidates for a prompt as A and B, and asks which follows one principle
better. Images stand between the parts of the text.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from imgalign.errors import in_one_line

Candidate: TypeAlias = str | bytes
"""A text, or the PNG file of an image."""
Choice: TypeAlias = Literal["first", "second"]
LETTERS: dict[str, Choice] = {"A": "first", "B": "second"}
SHOWN = 80
"""Characters of a reply in a message."""

TEXTS = """\
Two texts were written for the same request. Compare them by one principle, and by nothing else.

Request: {prompt}

Principle for the better text: {principle}

Text A:
<text>
{first}
</text>

Text B:
<text>
{second}
</text>

Which text follows the principle better? Reply with the letter A or B alone."""

IMAGES = (
    """\
Two images were made for the same request. Compare them by one principle, and by nothing else.

Request: {prompt}

Principle for the better image: {principle}

Image A:""",
    "Image B:",
    "Which image follows the principle better? Reply with the letter A or B alone.",
)

QUESTION_HASH = hashlib.sha256("\0".join([TEXTS, *IMAGES]).encode()).hexdigest()

FRAME = r"[\s*_`'\"(\[{]*+"  # taken as a whole: a line of a million asterisks is read at once, too
REPLY = re.compile(
    rf"{FRAME}(?:(?i:(?:my |the )?(?:final )?(?:answer|choice|verdict)(?: is)?)[\s:*-]*+)?{FRAME}"
    rf"(?:(?i:text|image)\s+)?{FRAME}([AB])[\s*_`'\")\]}}.,:;!]*"
)
"""A line that is a letter and nothing else, or with the usual words before it: "**B**", "Answer:
A", "Text B."."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which of two candidates for a prompt follows a principle better."""

    prompt: str
    principle: str
    first: Candidate
    second: Candidate

    def parts(self) -> list[Candidate]:
        """The question in order of reading: one text, or texts with the images between them."""
        facts = {"prompt": self.prompt, "principle": self.principle}
        if isinstance(self.first, str):
            return [TEXTS.format(**facts, first=self.first, second=self.second)]
        before, between, after = IMAGES
        return [before.format(**facts), self.first, between, self.second, after]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of a question.

    `choice` is None where the judge did not say A or B; then `said` is the begin of what it said.
    `problem` says why the question could not be asked at all, such as one that is too long.
    """

    choice: Choice | None = None
    said: str = ""
    problem: str = ""


def read_reply(text: str) -> Reply:
    """The choice in a judge's reply: a letter that stands alone in its first or its last line.

    Thoughts before </think> are not part of it. Both lines must agree where both have a letter.
    """
    lines = [line for line in text.rpartition("</think>")[2].splitlines() if line.strip()]
    found = {match[1] for line in lines[:1] + lines[-1:] if (match := REPLY.fullmatch(line))}
    if len(found) == 1:
        return Reply(choice=LETTERS[found.pop()])
    return Reply(said=in_one_line(" ".join(text.split()))[:SHOWN])
