"""A training run to be killed: train_child.py OUT [slowly].

Says "step 5" on stdout and waits there. Or, slowly: names each step as it is made, for many steps,
and takes a second for each save.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from random_walk import Brightness, RandomWalk, walk_settings

from imgalign.runs.metrics import Value
from imgalign.train import run as train


class SlowToSave(RandomWalk):
    def save(self, folder: Path) -> None:
        say("saving")
        time.sleep(1.0)
        super().save(folder)


def on_step(step: int, values: Mapping[str, Value]) -> None:
    if slowly or step == 5:
        say(f"step {step}")
        time.sleep(0.05 if slowly else 600)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


slowly = sys.argv[2:] == ["slowly"]
often = {"iterations": 2000, "checkpoint_every": 2000, "measure_every": 2000}
torch.set_num_threads(1)
result = train.run(
    walk_settings(**(often if slowly else {})),
    reward=Brightness(),
    out=Path(sys.argv[1]),
    policy=(SlowToSave if slowly else RandomWalk)(num_steps=3),
    on_step=on_step,
)
sys.exit(result.exit_code)
