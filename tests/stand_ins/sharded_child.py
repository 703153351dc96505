"""One of two processes that share frozen weights: sharded_child.py MODELS IMAGES OUT.

Each of `CASES` is learned from with the whole model in each process, and then with shares of it.
What they come to is written where `place_of` says, below WHOLE and SHARED; and what `held_by` finds
of each network, into HELD.
"""

import gc
import json
import sys
import time
from pathlib import Path

import torch
from policies import KINDS as POLICIES
from policies import Models
from together_child import SHARES, learned, place_of

from imgalign.policy import Policy
from imgalign.runs.together import join
from imgalign.runs.world import World, share_weights

IMAGES, TEXTS = "diffusion", "language"
CASES = [
    *((IMAGES, name, 1) for name in ("grpo", "ppo")),
    *((kind, name, 2) for kind, name in ((IMAGES, "dpo"), (TEXTS, "dpo"), (TEXTS, "ppo"))),
]
"""Networks, algorithms, and iterations: policy gradients of images take many passes in each."""
WHOLE, SHARED, HELD = "whole", "shared", "held.json"


def held_bytes() -> int:
    """Of all tensors that this process has."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    storages = {}
    for each in tensors:
        storage = (each.to_local() if hasattr(each, "to_local") else each).untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def kept_bytes() -> int:
    """Of the tensors that stay: a buffer of the last exchange may live on for a moment."""
    found = []
    for _ in range(10):
        found.append(held_bytes())
        time.sleep(0.1)
    return min(found)


def held_by(policy: Policy, world: World) -> list[int]:
    """Bytes that this process has before sharing and after it, and after its passes."""
    before = kept_bytes()
    share_weights(policy, world)
    after = kept_bytes()
    policy.sample(["a red house"] * (1 + world.index), seeds=[*range(1 + world.index)])
    world.wait()
    return [before, after, kept_bytes()]


def main() -> None:
    torch.set_num_threads(1)
    models: Models = {name: Path(path) for name, path in json.loads(sys.argv[1]).items()}
    images, out = Path(sys.argv[2]), Path(sys.argv[3])
    world = join(cure="start it again", shares_weights=True)
    policies = {kind: POLICIES[kind](models) for kind in (IMAGES, TEXTS)}
    held = {kind: held_by(policy, world) for kind, policy in policies.items()}
    (out / f"{world.index}-{HELD}").write_text(json.dumps(held))
    for shares, folder in ((False, WHOLE), (True, SHARED)):
        world.shares_weights = shares
        for kind, name, iterations in CASES:
            learned(
                kind,
                name,
                models,
                images,
                place_of(out / folder, kind, name, world.index, singly=False),
                world=world,
                share=SHARES[world.index],
                singly=False,
                iterations=iterations,
            )


if __name__ == "__main__":
    main()
