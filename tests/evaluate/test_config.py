"""Claims: settings of a comparison that would change nothing are refused by name."""

import pytest

from imgalign.config import load_config
from imgalign.errors import ConfigError
from imgalign.evaluate.config import EvaluateConfig

FROM_A_FILE = "prompts=mine.txt"


@pytest.mark.parametrize(
    ("setting", "with_", "said"),
    [
        ("num_prompts=8", FROM_A_FILE, "num_prompts: has no effect with prompts from a file"),
        ("prompt_seed=5", FROM_A_FILE, "prompt_seed: has no effect with prompts from a file"),
        ("unseen_combinations=false", FROM_A_FILE, "unseen_combinations: has no effect with "),
        (
            "sampler.negative_prompt=fog",
            "sampler.guidance_scale=1",
            "sampler.negative_prompt: has no effect at a guidance_scale of 1; use one above 1",
        ),
    ],
)
def test_a_setting_without_an_effect_is_refused_by_name(setting, with_, said):
    effective = "sampler.guidance_scale=3" if "sampler" in with_ else "prompts=null"
    load_config(EvaluateConfig, None, ["aligned=run", setting, effective])
    with pytest.raises(ConfigError, match=f"^{said}"):
        load_config(EvaluateConfig, None, ["aligned=run", setting, with_])
