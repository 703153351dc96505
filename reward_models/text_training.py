"""Maximum-likelihood training of one seed of a reward of texts.

The whole language model is trained, or a LoRA that is merged into it at the end, with a new linear
head. All texts of a ranking are in one batch: pairs of it in different batches would let the model
learn each text many times in a pass (arXiv:2203.02155, section 3.5).

Shapes: n = rankings, k = candidates of the longest one. Losses are in nats per ranking.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import peft
import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Generator, Tensor, nn

from imgalign.config import PathText, refuse_ineffective
from imgalign.language.chat import Answered, AnsweredTokens
from imgalign.losses import plackett_luce_loss
from imgalign.runs.world import World, shared_rows
from reward_models.data import RankingData
from reward_models.descent import SCALAR_LR_FACTOR, Descent, new_log_tie, one_pass, weighted_mean
from reward_models.outcome import SplitConfig
from reward_models.text import utilities
from reward_models.text_models import ScalarModel

LEARNING_RATES: Mapping[str, float] = {"full": 1e-4, "lora": 5e-4}
"""By what is trained. A LoRA starts at zero and takes larger steps."""

LARGEST_NORM = 1.0
"""Of the gradient of one step: a single surprising ranking must not take the model away."""

RANKINGS_AT_ONCE = 32
"""In one forward pass without gradients."""

Pad: TypeAlias = Callable[[Sequence[Answered]], AnsweredTokens]
"""Makes a batch of rows of tokens."""


class TextFitConfig(SplitConfig):
    """Settings of one fit of a reward of texts."""

    model: PathText = "storybook"
    """The language model to start from: "storybook", a folder in transformers' layout, or a hub id
    such as "owner/name"."""

    train: Literal["full", "lora"] = "full"
    """What is trained beside the head: all weights, or a LoRA, which needs less memory for large
    models. It is merged into the weights when the reward is saved."""

    lora_rank: PositiveInt = 16
    """Rank of the LoRA's matrices; its scale is 1."""

    epochs: PositiveInt = 20
    """At most this many passes over the training rankings."""

    patience: PositiveInt = 3
    """Stop after this many passes without a lower validation loss."""

    batch_size: PositiveInt = 16
    """Rankings per optimizer step, each with all its texts."""

    learning_rate: PositiveFloat | None = None
    """Of the language model. Null is 1e-4 for all weights and 5e-4 for a LoRA; models of billions
    of weights want 1e-5 and 1e-4."""

    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of the head, which starts at zero."""

    likelihood: bool = True
    """Whether the score is the head's number plus a learned weight times the log-likelihood of the
    text under the same model, in nats. A language model knows much of what is wrong with a text
    before any ranking is seen; from the head alone it has to learn that anew."""

    @model_validator(mode="after")
    def _a_rank_needs_a_lora(self) -> "TextFitConfig":
        if self.train == "full":
            refuse_ineffective(self, ["lora_rank"], "without train=lora")
        return self

    @property
    def chosen_learning_rate(self) -> float:
        """The learning rate of the language model, where none is set its default."""
        return self.learning_rate or LEARNING_RATES[self.train]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """Rankings as indices, and the tokens of each text of each prompt."""

    rankings: RankingData
    tokens: Mapping[tuple[int, int], Answered]
    """Of prompt and text, by their places in `rankings`."""
    pad: Pad


@dataclass(slots=True, kw_only=True)
class TextAttempt(Descent):
    """Result of one seed: a model with the weights of its best epoch, the LoRA merged."""

    model: ScalarModel


def train_text_attempt(
    seed: int,
    model: ScalarModel,
    data: TextData,
    *,
    train: Int[Tensor, " n"],
    validation: Int[Tensor, " m"],
    config: TextFitConfig,
    world: World,
) -> TextAttempt:
    """Fit a model in place, to the rankings in the rows `train`."""
    device = model.head.weight.device
    generator = Generator().manual_seed(seed)
    attempt = TextAttempt(
        seed=seed, log_tie=new_log_tie(data.rankings.ranks.shape[1], device), model=model
    )

    attempt.fit_ties(data.rankings.ranks[train], data.rankings.weights[train])

    def losses(rows: Tensor) -> Tensor:
        scores = ranking_scores(model, data, rows)
        return plackett_luce_loss(scores, data.rankings.ranks[rows], log_tie=attempt.log_tie)

    @torch.no_grad()
    def measure() -> float:
        found = shared_rows(
            world,
            len(validation),
            lambda some: losses(validation[some]),
            at_once=RANKINGS_AT_ONCE,
            device=device,
        )
        return float(weighted_mean(found, data.rankings.weights[validation]))

    with _trainable(model, config, seed) as live:
        head = list(model.head.parameters())
        scalars = [attempt.log_tie, *([] if model.likelihood is None else [model.likelihood])]
        groups: list[dict[str, Any]] = [
            {"params": live, "lr": config.chosen_learning_rate},
            {"params": head, "lr": config.head_learning_rate},
            {"params": scalars, "lr": SCALAR_LR_FACTOR * config.head_learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

        def epoch() -> float:
            return one_pass(
                optimizer,
                train,
                data.rankings.weights[train],
                batch_size=config.batch_size,
                generator=generator,
                losses=losses,
                penalty=attempt.tie_penalty,
                largest_norm=LARGEST_NORM,
                world=world,
            )

        attempt.descend(
            [*live, *head, *scalars],
            epoch=epoch,
            measure=measure,
            epochs=config.epochs,
            patience=config.patience,
            shown=True,
            world=world,
        )
    return attempt


def ranking_scores(
    model: ScalarModel, data: TextData, rows: Int[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """Utility of every candidate; 0 where a ranking has fewer than k."""
    prompts = data.rankings.prompt_index[rows]
    texts, present = data.rankings.image_index[rows], data.rankings.ranks[rows] >= 0
    places = present.nonzero()
    wanted = [(int(prompts[n]), int(texts[n, k])) for n, k in places.tolist()]
    # A text that several rankings of a batch share is read once.
    unique = {each: number for number, each in enumerate(dict.fromkeys(wanted))}
    found = utilities(model, data.pad([data.tokens[each] for each in unique]))
    index = torch.tensor([unique[each] for each in wanted], device=found.device)
    return found.new_zeros(texts.shape).index_put(tuple(places.T), found[index])


@contextmanager
def _trainable(
    model: ScalarModel, config: TextFitConfig, seed: int
) -> Iterator[list[nn.Parameter]]:
    """The parameters of the body to train; a LoRA is merged into it at the end."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    if model.likelihood is not None:
        model.likelihood.requires_grad_(True)
    body = model.body
    if config.train == "full":
        own = [] if model.language_head is None else list(model.language_head.parameters())
        yield [each.requires_grad_(True) for each in (*body.parameters(), *own)]
        model.requires_grad_(False)
        return
    settings = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_rank, target_modules="all-linear"
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Of GPT-2, whose linear layers are stored transposed; peft finds that out by itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        # Not `torch.manual_seed`, which would seed the generators of GPUs too.
        torch.default_generator.manual_seed(seed)
        model.body = peft.LoraModel(body, settings, "default")
    yield [each for each in model.body.parameters() if each.requires_grad]
    model.body = model.body.merge_and_unload()
    model.requires_grad_(False)
