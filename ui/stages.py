"""What the process of a run is doing, in words: from its state and the end of its log."""

import re

from ui.runs import Run

STARTED = re.compile(r"^\$ imgalign train ", re.MULTILINE)
PART = re.compile(r"in iteration (\d+)/(\d+): (.+), (\d+) of (\d+) (\w*)")
DONE = re.compile(r"iteration (\d+)/(\d+)\s")
SHARE = re.compile(r"(.+): (\d+) %(?:, .+ left)?")
CHECKED = re.compile(r"\d+ checks passed")


def doing(run: Run, log: str) -> str:
    """One line of what a run that goes on is doing; empty for others.

    Example: "Iteration 1 of 40: sampling, 12 of 64 images". A log has a line at least every ten
    seconds while something with a known length is done.
    """
    if run.state == "starting":
        return "Starting: loading the libraries, checking settings and data"
    if run.state != "running":
        return ""
    lines = [line.strip() for line in STARTED.split(log)[-1].splitlines() if line.strip()]
    for line in reversed(lines):
        if part := PART.fullmatch(line):
            iteration, total, what, done, of, unit = part.groups()
            return f"Iteration {iteration} of {total}: {what}, {done} of {of} {unit}".strip()
        if DONE.match(line):
            break
        if (share := SHARE.fullmatch(line)) and share[2] != "100":
            return f"{share[1][:1].upper()}{share[1][1:]}: {share[2]} %"
        if CHECKED.match(line):
            return "Checks passed; now it samples and measures the model as it is"
    if run.step == 0 and not any(map(DONE.match, lines)):
        return "Loading the model and checking that it can be trained"
    return ""
