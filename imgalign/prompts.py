"""Prompts and seeds of each iteration, as functions of the run's seed and the iteration.

Nothing here has state, so a resumed run uses exactly the prompts and seeds that an uninterrupted
one would have used.

Training seeds are 2**31 and above, evaluation seeds below. That split is in the low 32 bits because
torch's CPU generator ignores the others: seeds 5 and 2**32 + 5 give the same noise.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import category

from imgalign.errors import InputError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

LARGEST_FILE = 2**28
"""Bytes of a file of prompts; millions of prompts take less."""
HALF = 2**31
EVALUATION_SEEDS = range(HALF)
"""Seeds for images that are compared or measured; training never uses one of them."""


class Prompts(NamedTuple):
    """Prompts of a run; none is in both."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def read_prompts(path: Path) -> tuple[str, ...]:
    r"""The distinct lines of a text file, without empty ones and comments.

    A comment begins with #, and how many there were is logged; a prompt that begins with # is
    written as \#. InputError names a line that holds a control character.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        written = content.decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such prompt file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a text file with prompts, got a folder") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected a text file in utf-8") from None
    if len(content) > LARGEST_FILE:
        raise InputError(f"{path}: expected prompts, got more than {LARGEST_FILE} bytes")
    return prompts_in(written, str(path))


def prompts_in(written: str, where: str) -> tuple[str, ...]:
    """The prompts of a text, as of a file with this text; `where` names it in messages."""
    # Not `splitlines`, which would split a prompt at control characters as well.
    rows = written.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    for number, line in enumerate(rows, start=1):
        control = next(filter(is_control, line), None)
        if control is not None:
            raise InputError(
                f"{where}, line {number}: expected text, got the control character {control!r}"
            )
    lines = [line.strip() for line in rows]
    comments = sum(line.startswith("#") for line in lines)
    asked = (line.removeprefix("\\") if line.startswith("\\#") else line for line in lines)
    kept = zip(lines, asked, strict=True)
    prompts = tuple(dict.fromkeys(each for line, each in kept if line and line[0] != "#"))
    if not prompts:
        raise InputError(f"{where}: expected at least one prompt, one per line, got none")
    if comments:
        log.info("%s: %s left out; a prompt may begin with \\#", where, counted(comments))
    return prompts


def as_file(prompts: Sequence[str]) -> str:
    """The text of a file that `read_prompts` reads these prompts from."""
    return "".join(f"\\{each}\n" if each.startswith("#") else f"{each}\n" for each in prompts)


def is_control(character: str) -> bool:
    """Whether a character is a control character other than tab, or a line separator."""
    return character != "\t" and category(character) in ("Cc", "Zl", "Zp")


def counted(comments: int) -> str:
    """Example: "2 lines that begin with #"."""
    return "1 line that begins with #" if comments == 1 else f"{comments} lines that begin with #"


def iteration_prompts(
    prompts: Sequence[str], iteration: int, *, count: int, seed: int
) -> tuple[str, ...]:
    """The `count` prompts of an iteration, from a list that is shuffled anew in each epoch.

    A prompt may occur twice in an iteration only across the boundary of two epochs.
    """
    places = epoch_positions(len(prompts), iteration, count=count, seed=seed)
    return tuple(prompts[place] for place in places)


def epoch_positions(num: int, iteration: int, *, count: int, seed: int) -> list[int]:
    """Indices of the `count` examples of an iteration, of `num`, shuffled anew in each epoch."""
    chosen = []
    for position in range(iteration * count, (iteration + 1) * count):
        epoch, place = divmod(position, num)
        chosen.append(epoch_order(num, epoch, seed=seed)[place])
    return chosen


def epoch_order(num_prompts: int, epoch: int, *, seed: int) -> list[int]:
    """The permutation of the prompts in one epoch."""
    import torch

    generator = seeded_generator(f"prompt order/{seed}/{epoch}")
    order: list[int] = torch.randperm(num_prompts, generator=generator).tolist()
    return order


def training_seed(run_seed: int, number: int) -> int:
    """Seed of the `number`-th training image of a run: at or above 2**31, below 2**32.

    One-to-one in `number`, so no two images of a run share their noise until 2**31 of them.
    """
    key = stable_hash(f"training image/{run_seed}")
    value = (number + key) % HALF
    # Odd factors and right shifts are one-to-one on 31 bits, and so is what they compose to.
    for round_number in range(3):
        value = value * (2 * (key >> (40 * round_number)) + 1) % HALF
        value ^= value >> 15
    return HALF + value


def seeded_generator(name: str) -> "torch.Generator":
    """A CPU generator seeded by a hash of `name`, the same in every process."""
    import torch

    return torch.Generator("cpu").manual_seed(stable_hash(name) % 2**32)


def stable_hash(text: str) -> int:
    """A large integer that is the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest())


def chosen_prompts(texts: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Prompts as given, then those of the file; InputError with neither."""
    chosen = (*texts, *(() if file is None else read_prompts(file)))
    if not chosen:
        raise InputError("prompt: expected --prompt TEXT or --prompts FILE, got neither")
    return chosen


def seed_generators(seeds: Sequence[int]) -> "list[torch.Generator]":
    """A generator on the CPU for each seed, so that it means the same in any batch and device."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def normal_noise(generators: "Sequence[torch.Generator]", shape: Sequence[int]) -> "torch.Tensor":
    """Standard normal noise of one shape [b *shape], float32, the next of each generator."""
    import torch

    return torch.stack([torch.randn(tuple(shape), generator=each) for each in generators])
