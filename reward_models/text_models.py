"""The body of a causal language model with a linear head: one number at every token.

To what the head reads from the state of a token, a weight times the log-likelihood of the response
up to that token may be added (docs/adr/0014). Left out: which of the numbers is a score or a value
(text.py), and fitting (text_training.py).

Shapes: b = texts, L = tokens of the longest one.
"""

import copy
import inspect
import json
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerFast
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.errors import CheckpointError, InputError, first_line
from imgalign.language.chat import end_token, positions, vocabulary
from imgalign.language.loading import causal_class, quiet, usable_attention
from reward_models.contract import TOKENIZER_FOLDER, WEIGHTS_FILE, Likelihood, TextContract

LOGITS_AT_ONCE = 2**26
"""Numbers in memory at once; 256 MiB."""

OTHER_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of models that change the logits of their language head."""

NOT_KEPT = ("auto_map", "attn_implementation", "_attn_implementation", "quantization_config")
"""Settings of a model that name code, or that say how it was stored and not what it is."""


class ScalarModel(nn.Module):
    """A causal body and a linear head; always in evaluation mode, so without dropout.

    With `likelihood` the weighted log-likelihood of the response is added, under the body's own
    language head: `language_head`, or where there is none, its embeddings. `width` is that of the
    body's states. A new head and a new
    weight are zero: before any training all texts are equal.
    """

    def __init__(
        self,
        body: PreTrainedModel,
        *,
        width: int,
        likelihood: bool = False,
        language_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.body: Any = cast(Any, body).to(torch.float32).eval()
        # Made without numbers first: the usual constructor draws from the global generator.
        head = nn.Linear(width, 1, bias=False, device="meta")
        self.head = head.to_empty(device=next(body.parameters()).device)
        nn.init.zeros_(self.head.weight)
        self.language_head = None if language_head is None else language_head.to(torch.float32)
        self.likelihood: nn.Parameter | None = None
        """Weight of the log-likelihood, per nat."""
        if likelihood:
            self.likelihood = nn.Parameter(torch.zeros((), device=self.head.weight.device))
        # Models without position embeddings, such as Bloom, take none.
        self.takes_positions = "position_ids" in inspect.signature(body.forward).parameters

    def train(self, mode: bool = True) -> "ScalarModel":
        """Stay in evaluation mode: dropout would make scores random."""
        return super().train(False)

    def forward(
        self,
        input_ids: Int[Tensor, "b L"],
        attention_mask: Bool[Tensor, "b L"],
        responses: Bool[Tensor, "b L"],
    ) -> Float[Tensor, "b L"]:
        """The number at each token, which depends on that token and on those before; float32.

        `responses` is where the tokens of the responses are, each after one of its text. Padding
        may be on either side or on both; what stands there is arbitrary.
        """
        device = self.head.weight.device
        there = attention_mask.to(device)
        where = {"position_ids": positions(there)} if self.takes_positions else {}
        # Under a caller's autocast the scores would leave the golden ones by more than a percent.
        with torch.autocast(device.type, enabled=False):
            found = self.body(
                input_ids=input_ids.to(device),
                attention_mask=there.long(),
                use_cache=False,
                **where,
            )
            states: Tensor = found.last_hidden_state
            values: Tensor = self.head(states).squeeze(-1)
            if self.likelihood is not None:
                said = self._log_probs(states, input_ids.to(device), responses.to(device))
                values = values + self.likelihood * said.cumsum(dim=1)
        return values

    def _log_probs(
        self,
        states: Float[Tensor, "b L d"],
        input_ids: Int[Tensor, "b L"],
        responses: Bool[Tensor, "b L"],
    ) -> Float[Tensor, "b L"]:
        """Of each token of the responses, after what stands before it; 0 elsewhere."""
        said = responses.clone()
        said[:, 0] = False
        asked = said[:, 1:]
        # Of these tokens only, and some at a time: vocabularies are large.
        before, tokens = states[:, :-1][asked], input_ids[:, 1:][asked]
        size = max(1, LOGITS_AT_ONCE // self.body.get_input_embeddings().weight.shape[0])
        parts = list(zip(torch.split(before, size), torch.split(tokens, size), strict=True))
        if len(parts) == 1 or not torch.is_grad_enabled():
            scored = [self._chosen(*part) for part in parts]
        else:  # the logits of a part are computed again when its gradient is asked for
            scored = [checkpoint(self._chosen, *part, use_reentrant=False) for part in parts]
        found = torch.cat(scored)
        return torch.zeros_like(said, dtype=found.dtype).masked_scatter(said, found)

    def _chosen(
        self, states: Float[Tensor, "n d"], tokens: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Log-probability of each token after its state."""
        return -cross_entropy(self.logits(states), tokens, reduction="none")

    def logits(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Of the next token after each state."""
        if self.language_head is not None:
            found: Tensor = self.language_head(states)
            return found
        return linear(states, self.body.get_input_embeddings().weight)

    @property
    def with_likelihood(self) -> Likelihood | None:
        """Which language head gives the log-likelihood that is part of the numbers; None: none."""
        if self.likelihood is None:
            return None
        return "embeddings" if self.language_head is None else "own head"

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Settings of the body, from which `rebuilt` makes it again."""
        kept: dict[str, JsonValue] = json.loads(self.body.config.to_json_string())
        return {name: value for name, value in kept.items() if name not in NOT_KEPT}


def rebuilt(contract: TextContract, folder: Path) -> ScalarModel:
    """The model of a contract with random weights, to load a state dict into; works offline.

    CheckpointError for settings that no causal language model has. Refused before memory is
    allocated where the file is too small for that many weights.
    """
    where = f"{folder}: backbone"
    try:
        fields = {k: v for k, v in contract.backbone.items() if k not in NOT_KEPT}
        settings: Any = fields
        with quiet():
            config = AutoConfig.for_model(**settings)
        assert isinstance(config, PreTrainedConfig)
        kind = causal_class(config, where)
        config._attn_implementation = usable_attention(kind, "sdpa")
        weights = folder / WEIGHTS_FILE
        build: Any = kind
        with torch.device("meta"):
            size = sum(
                each.numel() for each in again(build(config), contract.likelihood).parameters()
            )
        if weights.is_file() and size > weights.stat().st_size:
            raise CheckpointError(
                f"{where}: has {size} weights, which {weights.name} of {weights.stat().st_size} "
                "bytes cannot hold; they come from different models"
            )
        with torch.random.fork_rng(devices=[]), quiet():
            return again(build(config), contract.likelihood)
    except CheckpointError:
        raise
    except Exception as error:  # settings are anybody's: whatever their class makes of them
        raise CheckpointError(
            f"{where}: no language model can be built from it ({first_line(error)}); fit it again"
        ) from None


def scalar_model(model: PreTrainedModel, *, likelihood: bool) -> ScalarModel:
    """A causal language model with a new head in the place of its language head, or beside it.

    What the language head has of its own is kept: whether it shares the embeddings is a fact of the
    weights that were loaded, which settings may tell otherwise.
    """
    untyped: Any = model
    head, shared = untyped.get_output_embeddings(), untyped.get_input_embeddings()
    same = head.weight is shared.weight
    if not likelihood or (same and getattr(head, "bias", None) is None):
        return _scalar(model, head.weight, likelihood=likelihood)
    own = copy.deepcopy(head) if same else head
    return _scalar(model, head.weight, likelihood=True, language_head=own)


def again(model: PreTrainedModel, likelihood: Likelihood | None) -> ScalarModel:
    """Of the same kind as one that was saved, whether or not a new model shares the embeddings."""
    untyped: Any = model
    head = untyped.get_output_embeddings()
    own = copy.deepcopy(head) if likelihood == "own head" else None
    return _scalar(model, head.weight, likelihood=likelihood is not None, language_head=own)


def _scalar(model: PreTrainedModel, weight: Tensor, **options: Any) -> ScalarModel:
    # Some models make their states narrower before the language head reads them.
    return ScalarModel(body_of(model), width=weight.shape[1], **options)


@torch.no_grad()
def refuse_other_logits(scalar: ScalarModel, model: PreTrainedModel) -> None:
    """InputError where a model does more than its language head to make logits of its states.

    Some scale or cap them; their likelihood would not be what `ScalarModel` makes of it.
    """
    network: Any = model
    text = model.config.get_text_config()
    said = [name for name in OTHER_LOGITS if getattr(text, name, None) not in (None, 1)]
    tokens = torch.arange(8, device=scalar.head.weight.device)[None] % model.config.vocab_size
    states = scalar.body(input_ids=tokens, use_cache=False).last_hidden_state[0]
    expected = network(input_ids=tokens, use_cache=False).logits[0].float()
    found = scalar.logits(states)
    if (
        said
        or found.shape != expected.shape
        or not torch.allclose(found, expected, atol=1e-3, rtol=1e-3)
    ):
        raise InputError(
            "reward fit: this model changes the logits of its language head, so the likelihood of "
            "a text is not known from its states; add likelihood=false"
        )


def body_of(model: PreTrainedModel) -> PreTrainedModel:
    """A causal language model without its language head."""
    body = model.base_model
    assert isinstance(body, PreTrainedModel)
    return body


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """InputError for a tokenizer that could not be saved as one file and read again."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"reward model: tokenizer {type(tokenizer).__name__} cannot be saved; convert the "
            "model to one with a tokenizer.json"
        )
    end_token(tokenizer)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer into the folder of a reward, with the one chat template that is used."""
    kept = copy.deepcopy(tokenizer)
    if kept.chat_template:
        kept.chat_template = kept.get_chat_template()
    kept.save_pretrained(folder / TOKENIZER_FOLDER)


def read_tokenizer(contract: TextContract, folder: Path) -> PreTrainedTokenizerBase:
    """Read what `save_tokenizer` wrote; CheckpointError where it is missing or another one.

    Only tokenizer.json and settings of transformers' general class are read, no code.
    """
    path = folder / TOKENIZER_FOLDER
    try:
        with quiet():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
            end_token(tokenizer)
    except Exception as error:  # tokenizers raises no class of its own
        raise CheckpointError(
            f"{path}: tokenizer cannot be read ({first_line(error)}); copy the whole folder again"
        ) from None
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if vocabulary(tokenizer) != contract.vocabulary:
        raise CheckpointError(f"{path}: is another tokenizer than that of the fit; copy it again")
    return tokenizer
