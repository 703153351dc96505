"""A training run to be killed: train_child.py OUT. Says "step 5" on stdout and waits there."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from random_walk import Brightness, RandomWalk, walk_settings

from imgalign import train
from imgalign.metrics import Value


def on_step(step: int, values: Mapping[str, Value]) -> None:
    if step == 5:
        sys.stdout.write("step 5\n")
        sys.stdout.flush()
        time.sleep(600)


torch.set_num_threads(1)
train.run(
    walk_settings(),
    reward=Brightness(),
    out=Path(sys.argv[1]),
    policy=RandomWalk(num_steps=3),
    on_step=on_step,
)
