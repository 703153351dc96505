"""A run that has ended, as pages show it."""

import json
from pathlib import Path

from imgalign.config import dump_config, find_config, load_config
from imgalign.train.config import TrainConfig


def write_finished(folder: Path) -> None:
    """A run that has ended with a LoRA."""
    (folder / "step-000006").mkdir(parents=True)
    (folder / "step-000006" / "pytorch_lora_weights.safetensors").touch()
    status = {"state": "finished", "pid": 1, "step": 6, "total": 6}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "metrics.jsonl").write_text("")
    settings = load_config(TrainConfig, find_config(Path("storybook_dpo")))
    dump_config(settings, folder / "config.yaml")
