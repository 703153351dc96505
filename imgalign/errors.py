"""Errors that a user can cause or fix; each message is one line: where, what, and the cure.

    ImgalignError               exit code 2; the only family that the command line catches
    +- ConfigError              a setting: unknown key, wrong type, out of range   (a ValueError)
    +- InputError               a file, prompt or image that was handed in         (a ValueError)
    +- CheckpointError          a run or model folder: damaged, empty, incompatible
    +- StoreError               the store: newer schema, conflicting submission
    |  +- NotIssuedError        an item that this annotator was never shown, or not by this name
    |  +- DatabaseError         it cannot be read or written now: locked, damaged, read only
    |  +- LostSampleError       an image or text is missing, damaged or exchanged
    +- JudgeError               an AI judge: unreachable, refuses, or says what nobody can read
    +- StorageFullError         no space left while saving                         (an OSError)
    +- NumericsError            a correctness rule failed while running
    +- ProcessError             another process of the run has ended

Impossible states are `assert`, not errors; everything else is a bug and keeps its traceback.
"""

import errno
import os

LONGEST_REASON = 300
"""Characters of what another library says, in a message of ours."""


class ImgalignError(Exception):
    """An error that the user can understand and fix; `str(error)` is one line."""

    exit_code = 2

    def __str__(self) -> str:
        return in_one_line(super().__str__())


class ConfigError(ImgalignError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class InputError(ImgalignError, ValueError):
    """A file, folder, prompt or image that was handed in cannot be used."""


class CheckpointError(ImgalignError):
    """A run, checkpoint or model folder is incomplete, damaged or incompatible."""


class StoreError(ImgalignError):
    """The preference database cannot be used as asked."""


class NotIssuedError(StoreError):
    """An item was not shown to this annotator, or is not known to them by this name."""


class DatabaseError(StoreError):
    """The database cannot be read or written now; what was asked for may be right."""


class LostSampleError(StoreError):
    """An image or text of the store is missing or not what its id says; the message names it."""


class JudgeError(ImgalignError):
    """An AI judge cannot be reached, refuses, or says nothing that can be read."""


class StorageFullError(ImgalignError, OSError):
    """The disk filled up while saving; the message names the newest good checkpoint.

    An OSError with `errno` ENOSPC, so that code that handles a full disk handles this one too.
    """

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.message = message

    def __str__(self) -> str:
        return in_one_line(self.message)


class NumericsError(ImgalignError):
    """A correctness rule failed at run time, e.g. a ratio that is not 1 before the first update."""


class ProcessError(ImgalignError):
    """A process that trains together with this one has ended, or cannot be reached."""


def in_one_line(text: str) -> str:
    r"""Text as one line that a terminal, a page and a file can show.

    A message may quote names of settings, files and servers that hold anything: of text that cannot
    be printed, white space becomes one space and the rest an escape such as `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in " ".join(text.split())
    )


def first_line(error: BaseException) -> str:
    """What went wrong, for a message of one line: the first that is not a mere heading.

    Cut after LONGEST_REASON characters: a library may quote all of a damaged file.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.endswith(":")]
    return lines[0][:LONGEST_REASON] if lines else type(error).__name__
