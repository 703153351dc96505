"""What a run needs, checked before its process starts: settings, rewards, data, the model's folder.

These are the checks that `imgalign train` makes before it loads weights, as far as they take no
model. A run that passes them may still fail, but not because of a typing error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgalign.config import load_config
from imgalign.errors import ConfigError, InputError
from imgalign.files import read_json
from imgalign.runs.folder import SHIPPED
from imgalign.runs.model_names import hub_name
from ui import recipes
from ui.libraries import load_libraries
from ui.runs import Runs

if TYPE_CHECKING:
    from imgalign.train.config import TrainConfig

CONTRACT = "contract.json"
"""In the folder of a fitted reward model."""
CLIP = "open_clip_config.json"
"""In the folder of a CLIP."""


def check(runs: Runs, recipe: Path, changes: Sequence[str]) -> "TrainConfig":
    """The settings of a run that can be started; ConfigError or InputError for any other."""
    recipes.refuse_options(changes)
    load_libraries()
    from imgalign.train.config import TrainConfig

    settings = load_config(TrainConfig, recipe, changes, say=lambda line: None)
    refuse_rewards(settings)
    policy = settings.policy.model_dump()
    refuse_missing_model("policy.model", settings.policy.model, runs=runs)
    if policy.get("adapter") is not None and not Path(str(policy["adapter"])).exists():
        raise InputError(
            f"policy.adapter: {policy['adapter']}: no such folder or file; name a run, a "
            "checkpoint or a LoRA file that is there, or leave it out"
        )
    refuse_data(settings, runs)
    return settings


def refuse_rewards(settings: "TrainConfig") -> None:
    """ConfigError or InputError where a reward is missing, is not there, or scores other things."""
    reward = settings.reward
    if reward.path is None and settings.data.gives == "rollouts":
        raise ConfigError(
            "reward.path: expected a reward model, which judges what this recipe samples, got "
            "none; choose one above, fit one on Learn, or take a recipe that learns from rankings"
        )
    scored = "images" if reward.drawn is not None else settings.policy.samples
    for setting, name in (("reward.path", reward.path), ("reward.held_out", reward.held_out)):
        if name is None or name == SHIPPED or ":" in name:
            continue
        found = scores_of(Path(name))
        if found is None:
            raise InputError(
                f"{setting}: {name}: expected the folder of a reward model, with {CONTRACT} or "
                f"{CLIP} in it, found none; choose one that is there, or fit one on Learn"
            )
        if found != scored:
            raise InputError(
                f"{setting}: {name}: expected a reward of {scored}, which this recipe makes, got "
                f"one of {found}; choose another"
            )


def scores_of(folder: Path) -> str | None:
    """What the reward model in a folder scores, "images" or "texts"; None where there is none."""
    if not (folder / CONTRACT).is_file():
        return "images" if (folder / CLIP).is_file() else None
    try:
        contract = read_json(folder / CONTRACT)
    except (OSError, ValueError):
        return "images"  # the process says what is wrong with it
    kind = contract.get("kind", "images") if isinstance(contract, dict) else "images"
    return "texts" if kind == "texts" else "images"


def refuse_missing_model(setting: str, name: str, *, runs: Runs) -> None:
    """InputError for the name of a model that is a folder here and is not there.

    A name such as "owner/model" may be one of the hub, unless there is a folder `owner` here.
    """
    here = Path(name).expanduser()
    owner = here.parts[0] if here.parts else ""
    on_hub = hub_name(name) is not None and owner != runs.folder.name and not Path(owner).is_dir()
    if name == SHIPPED or on_hub or here.exists():
        return
    made = here.name if here.name in recipes.names() else None
    cure = f"run the recipe {made} first, which makes it" if made else "name one that is there"
    raise InputError(f"{setting}: {name}: no such folder; {cure}")


def refuse_data(settings: "TrainConfig", runs: Runs) -> None:
    """ConfigError or InputError where a new run could not learn from its data."""
    data = settings.data
    if runs.database is not None and data.source == "rankings" and data.database is None:
        # As its process gets it by the environment.
        data = data.model_copy(update={"database": runs.database})
    prompts = data.load_prompts()
    data.refuse_amounts(prompts, num_processes=1)
    data.refuse_rankings(settings.algorithm, prompts, num_processes=1)
    data.refuse_model(settings.policy.model)
