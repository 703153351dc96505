"""diffusers' own Diffusion-DPO script at given settings: seconds of each step, passes, memory.

    python benchmarks/peers/diffusion_dpo.py PIPELINE --script SCRIPT --pairs PAIRS --out dpo.json

It runs in an environment of its own. SCRIPT is a file of diffusers' repository, as it is
(`compare_peers.py` names the commit); PIPELINE a folder that `sd15.save` wrote; PAIRS JSON
lines {"prompt", "chosen", "rejected"} with paths of images. Nothing of the script is replaced: its
network is watched, and a step is what lies between two of its optimizer's.
"""

import argparse
import hashlib
import importlib
import io
import json
import logging
import runpy
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from measuring import Meter, peak_memory_gb, write


def as_parquet(pairs: Path, folder: Path) -> Path:
    """The pairs as a data set of the columns that the script reads; the first image is better."""
    folder.mkdir(parents=True)
    lines = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    columns = {
        "jpg_0": [Path(line["chosen"]).read_bytes() for line in lines],
        "jpg_1": [Path(line["rejected"]).read_bytes() for line in lines],
        "label_0": [1] * len(lines),
        "caption": [line["prompt"] for line in lines],
    }
    made = importlib.import_module("datasets").Dataset.from_dict(columns)
    made.to_parquet(io.FileIO(folder / "train.parquet", "wb"))
    return folder


def watched(meter: Meter) -> None:
    """Count the rows of the networks that are loaded from now on, and end a lap at each step."""
    from diffusers import UNet2DConditionModel
    from torch.optim.optimizer import register_optimizer_step_post_hook

    load = UNet2DConditionModel.from_pretrained.__func__

    def loaded(cls: Any, *arguments: Any, **named: Any) -> Any:
        network = load(cls, *arguments, **named)
        meter.watch(network)
        return network

    UNet2DConditionModel.from_pretrained = classmethod(loaded)
    register_optimizer_step_post_hook(lambda *_: meter.lap("total"))


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16, help="Pairs of a step.")
    parser.add_argument("--epochs", type=int, default=9, help="Steps.")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--resolution", type=int, default=64)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in ("datasets", "diffusers", "torchvision", "transformers"):
        importlib.import_module(name)  # by name: not all are dependencies of the project
    imported = peak_memory_gb()
    folder = given.out.parent / "diffusion-dpo"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier turn
    sys.argv = [
        str(given.script),
        f"--pretrained_model_name_or_path={given.pipeline}",
        f"--dataset_name={as_parquet(given.pairs, folder)}",
        "--dataset_split_name=train",
        f"--cache_dir={folder / 'cache'}",
        f"--output_dir={folder / 'out'}",
        f"--resolution={given.resolution}",
        "--no_hflip",
        f"--vae_encode_batch_size={2 * given.batch}",
        f"--train_batch_size={given.batch}",
        f"--max_train_steps={given.epochs}",
        f"--rank={given.rank}",
        "--lr_warmup_steps=0",
        "--seed=0",
    ]
    meter = Meter()
    watched(meter)
    meter.begin()
    runpy.run_path(str(given.script), run_name="__main__")
    script = hashlib.sha256(given.script.read_bytes()).hexdigest()
    rows = [meter.found() | {"imported_gb": imported}]
    write(given.out, script_sha256=script, rows=rows)


if __name__ == "__main__":
    main()
