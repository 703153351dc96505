"""A process that runs a loop, and kills itself as `kill -9` does as soon as a file exists.

Arguments: settings of the loop in YAML, its folder, and a pattern of files in it; empty for none.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from partisans import Partisan

from imgalign.config import load_config
from imgalign.loop.config import LoopConfig
from imgalign.loop.run import run_loop


def kill_when_there_is(folder: Path, pattern: str) -> None:
    """Looks a thousand times a second, so that what the file belongs to is still being made."""
    while not any(folder.glob(pattern)):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def main(settings: str, out: str, pattern: str) -> None:
    folder = Path(out)
    if pattern:
        threading.Thread(target=kill_when_there_is, args=(folder, pattern), daemon=True).start()
    config = load_config(LoopConfig, Path(settings))
    run_loop(config, folder, say=lambda line: None, asker=Partisan((True,)))


if __name__ == "__main__":
    main(*sys.argv[1:])
