"""Loading of a reward by name or folder; torch is imported on the first call."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgalign.policy import RewardModel


def load(reward: str | Path, *, device: str = "cpu") -> "RewardModel":
    """Load a fitted reward from its folder, or zero-shot CLIP from the name or folder of a CLIP.

    A fitted reward is what `imgalign reward train` writes, a folder with contract.json, which says
    whether it scores images or texts. A CLIP is a folder in open_clip's layout, "storybook",
    "hf-hub:owner/model" or "architecture:tag". InputError or CheckpointError where it cannot be
    loaded.
    """
    from imgalign.environment import choose_device
    from imgalign.files import recover_missing
    from reward_models.contract import CONTRACT_FILE, read_contract

    folder, target = Path(reward), choose_device(device)
    recover_missing(folder)
    if (folder / CONTRACT_FILE).is_file() and read_contract(folder).kind == "texts":
        from reward_models.text import TextReward

        return TextReward.from_pretrained(folder).to(target)
    # These import open_clip, which a reward of texts does without.
    from reward_models.clip import ClipReward, load_towers
    from reward_models.clip_models import names_towers

    if (folder / CONTRACT_FILE).is_file() or not names_towers(str(reward)):
        return ClipReward.from_pretrained(folder).to(target)
    return ClipReward.zero_shot(load_towers(reward)).to(target)
