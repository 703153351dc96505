"""One line of progress with the time left, for whatever takes longer than a breath."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


@contextmanager
def progress(doing: str) -> Iterator[Callable[[float], None]]:
    """A bar on standard error; call what it gives with the share that is done, in [0, 1].

    Where nobody watches (standard error is no terminal), every tenth is a line instead.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(doing)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(doing, total=1.0)
        yield lambda share: bar.update(task, completed=share)


class Lines:
    """Progress as lines of text, one for each tenth."""

    def __init__(self, doing: str) -> None:
        self.doing = doing
        self.tenths = 0

    def __call__(self, share: float) -> None:
        """Print a line if another tenth is done."""
        tenths = int(share * 10 + 1e-9)
        if tenths > self.tenths:
            self.tenths = tenths
            sys.stderr.write(f"{self.doing}: {10 * tenths} %\n")
            sys.stderr.flush()
