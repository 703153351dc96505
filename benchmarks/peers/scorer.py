"""A reward of imgalign for a peer in another environment: images in, scores out.

    python benchmarks/peers/scorer.py runs/reward

Reads from standard input, until it ends, a line of JSON with `prompts` and `shape` and then the
images as float32 in [0, 1], row by row; answers each with a line of JSON: `scores`, and the CPU
seconds that it has spent on scoring so far. `Scorer` is the other end, which needs torch alone.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Scorer:
    """The process that scores, started by another interpreter."""

    def __init__(self, python: str, reward: Path) -> None:
        self.cpu_seconds = 0.0
        self._process = subprocess.Popen(
            [python, __file__, str(reward)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Scores of images of shape (images, 3, height, width) in [0, 1]."""
        ends = self._process
        assert ends.stdin is not None
        assert ends.stdout is not None
        head = json.dumps({"prompts": list(prompts), "shape": list(images.shape)})
        ends.stdin.write(head.encode() + b"\n" + images.float().contiguous().numpy().tobytes())
        ends.stdin.flush()
        answer = json.loads(ends.stdout.readline())
        self.cpu_seconds = answer["cpu_seconds"]
        return torch.tensor(answer["scores"])


def main() -> None:
    """Answer until the other end closes."""
    from reward_models import load

    reward, spent = load(Path(sys.argv[1])), 0.0
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    for line in source:
        asked: dict[str, Any] = json.loads(line)
        pixels = np.frombuffer(source.read(4 * int(np.prod(asked["shape"]))), np.float32)
        images = torch.from_numpy(pixels.reshape(asked["shape"]).copy())
        began = time.process_time()
        with torch.inference_mode():
            scores = reward.score(prompts=asked["prompts"], samples=images)
        spent += time.process_time() - began
        sink.write(json.dumps({"scores": scores.tolist(), "cpu_seconds": spent}).encode() + b"\n")
        sink.flush()


if __name__ == "__main__":
    main()
