"""What the shipped recipes cost where they were measured: the only place of these figures.

Seconds are of one core of an AMD EPYC, of images with AVX-512 and of texts with AVX2, for an
iteration of the recipe as it is, with its start and its measurements: processor minutes of whole
runs by their iterations (benchmarks/results, and the tables of docs/language.md and
docs/rewriter.md). Memory is `peak_memory_gb` of the process. The
size of a checkpoint is computed from the number of trained weights. Models of the hub were not
measured: of these nothing is known before a first run.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from imgalign.config import recipes

if TYPE_CHECKING:
    from imgalign.train.config import TrainConfig
    from ui.recipes import Recipe


class Measured(NamedTuple):
    """An iteration of a recipe."""

    seconds: float | None
    """None where the header of the recipe alone has the time."""
    memory_gb: float
    by_avx512: bool = True
    """Whether that core had AVX-512, where images take half as long as with AVX2."""


TEXTS = Measured(None, 1.2, by_avx512=False)
"""Of recipes of texts the memory is that of the first stage: the same network, the same batches."""
MEASURED: Mapping[str, Measured] = {
    "storybook_dpo": Measured(1.8, 1.5),
    "storybook_likes": Measured(2.4, 1.6),
    "storybook_grpo": Measured(11.7, 1.5),
    "storybook_online_dpo": Measured(9.9, 1.4),
    "storybook_sft": Measured(1.3, 1.6),
    # It samples as GRPO does, whose memory this is.
    "storybook_supervised": Measured(6.1, 1.5),
    "rewriter_sft": TEXTS._replace(seconds=0.5),
    "rewriter_dpo": TEXTS._replace(seconds=0.6),
    "rewriter_likes": TEXTS._replace(seconds=0.6),
    "rewriter_grpo": TEXTS._replace(seconds=1.6),
    # It draws images as GRPO on them does.
    "rewriter_drawn": Measured(5.0, 1.5),
}
STORYBOOK_LAYERS = ("conv2", "to_q", "to_k", "to_v", "to_out.0")
"""The layers of the image network that the recipes train by a LoRA ..."""
PER_RANK = 27_104
"""... and how many weights that are for each rank."""
STORYBOOK_NETWORK, LANGUAGE_NETWORK = 7_141_048, 1_446_144
"""All weights of the shipped networks of images and of texts."""
REWRITER = "runs/rewriter_sft"
"""The model that recipes of texts go on from, the shipped one after its first stage."""
BYTES = 4
"""Of a weight, which checkpoints keep in float32."""
WITH_MOMENTS = 3
"""A weight and the two moments of AdamW."""


def measured(recipe: "Recipe") -> Measured | None:
    """An iteration of a shipped recipe; None for one's own, also one of the same name."""
    found = MEASURED.get(recipe.name, TEXTS if recipe.makes_texts else None)
    shipped = {path.resolve() for path in recipes()}
    return found if recipe.path.resolve() in shipped else None


def num_trained(settings: "TrainConfig") -> int | None:
    """Weights that are trained; None where that is not known of the model or of the layers."""
    policy = settings.policy.model_dump()
    texts = policy["kind"] == "language"
    if policy["model"] not in (("storybook", REWRITER) if texts else ("storybook",)):
        return None
    if policy["train"] == "full":
        return LANGUAGE_NETWORK if texts else STORYBOOK_NETWORK
    if texts or set(policy["target_modules"] or ()) != set(STORYBOOK_LAYERS):
        return None
    return PER_RANK * int(policy["lora_rank"])


def checkpoint_bytes(settings: "TrainConfig") -> int | None:
    """About how large a checkpoint will be; None where it is not known what is trained.

    Beside the weights and moments of now it has those that were last inside the KL budget, where
    there is one, and those of a critic, which is as large as the network.
    """
    number = num_trained(settings)
    if number is None:
        return None
    baseline = settings.algorithm.model_dump().get("baseline") or {}
    critic = LANGUAGE_NETWORK if baseline.get("kind") == "critic" else 0
    times = 1 if settings.run.kl_budget_nats is None else 2
    return times * (number + critic) * WITH_MOMENTS * BYTES
