"""What the process of a batch prints, read: how far it is, how long it takes, how fast it was.

Pure functions of the text of its log. The log of a batch that went on has the lines of each start.
"""

import re

from ui.outlook import duration

STARTED = re.compile(r"^\$ imgalign candidates ", re.MULTILINE)
SHARE = re.compile(r"(.+): (\d+) %(?:, (\d+\.\d+) min left)?")
QUEUED = re.compile(r"[\d,]+ items? (?:is|are) queued.*")
MADE = re.compile(r"(\d+) images made in (\d+\.\d+) s")
DOING = {
    "generating": "Making images",
    "reading images": "Reading images",
    "storing images": "Storing images",
    "storing texts": "Storing texts",
}


def lines_of(printed: str) -> list[str]:
    """What was printed since the last start, without empty lines."""
    last = STARTED.split(printed)[-1].partition("\n")[2]
    return [line.strip() for line in last.splitlines() if line.strip()]


def doing(lines: list[str]) -> tuple[float | None, str]:
    """Share and words of what a process is doing. Example: "Making images, about 24 s left"."""
    for line in reversed(lines):
        if match := SHARE.fullmatch(line):
            what, per_cent, left = match.groups()
            said = DOING.get(what, what)
            rest = f", about {duration(60 * float(left))} left" if left else ""
            return int(per_cent) / 100, f"{said}{rest}"
    return None, "Starting: loading the libraries and the model"


def queued(lines: list[str]) -> list[str] | None:
    """What was said after the items were queued, without what tells how to rank on a terminal; None
    where none were.
    """
    told = [place for place, line in enumerate(lines) if QUEUED.fullmatch(line)]
    if not told:
        return None
    return [line for line in lines[told[-1] + 1 :] if not line.startswith("rank them")]


def seconds_left(lines: list[str]) -> float | None:
    """Until its images are made; None where it has not said so yet."""
    for line in reversed(lines):
        if match := SHARE.fullmatch(line):
            _, per_cent, left = match.groups()
            if left:
                return 60 * float(left)
            return 0.0 if per_cent == "100" else None
    return None


def pace(printed: str, steps: int) -> float | None:
    """Seconds of an image and sampling step, over all starts; None where no image was made."""
    found = MADE.findall(printed)
    images = sum(int(count) for count, _ in found)
    if not images:
        return None
    return sum(float(each) for _, each in found) / (images * steps)
