"""Forks commands of `python -m`: what they import is loaded once, so that a start costs little.

Reads a `Command` in JSON from each line of stdin, one at a time, and answers with its pid and, once
it has ended, with its exit code. Everything else is that of a process: its folder, environment,
output, signals, and how it ends.
"""

import gc
import json
import os
import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

PRELOADED = (
    *("imgalign.cli.main", "imgalign.runs.together", "imgalign.train.run", "imgalign.loop.run"),
    *("imgalign.diffusion.generate", "imgalign.language.loading", "torch._dynamo"),
    *("reward_models.training", "reward_models.text_training", "reward_models.loading"),
    *("reward_models.fit", "reward_models.text_fit", "reward_models.report"),
    *("diffusers.loaders.peft", "matplotlib.figure", "torch.distributed.rendezvous"),
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start, and where."""

    arguments: tuple[str, ...]
    """The name of a module and what it is told."""
    folder: str
    environment: Mapping[str, str]
    """All of it; the order of sets and the number of threads are those of the server."""
    said: str
    """A file for stdout."""
    told: str
    """And one for stderr."""


def become(command: Command) -> None:
    """Run it in this process, which ends as the command does."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, file in ((1, command.said), (2, command.told)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), stream)
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.environment)
    name, *sys.argv[1:] = command.arguments
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    sys.exit()


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in PRELOADED:
        import_module(name)
    gc.freeze()  # else the collector of each fork would touch, and so copy, all that is imported
    for line in sys.stdin:
        command = Command(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            answers.close()
            become(command)
        answers.write(f"{pid}\n")
        answers.flush()
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        answers.flush()


if __name__ == "__main__":
    main()
