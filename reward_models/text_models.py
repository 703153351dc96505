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
from transformers import PreTrainedTokenizerFast
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.errors import CheckpointError, InputError, first_line
from imgalign.language.chat import end_token, positions, vocabulary
from imgalign.language.loading import causal_class, quiet, usable_attention
from reward_models.contract import TOKENIZER_FOLDER, WEIGHTS_FILE, TextContract

NOT_KEPT = ("auto_map", "attn_implementation", "_attn_implementation", "quantization_config")
"""Settings of a model that name code, or that say how it was stored and not what it is."""


class ScalarModel(nn.Module):
    """A causal body and a linear head; always in evaluation mode, so without dropout.

    With `likelihood` the weighted log-likelihood of the response is added, under the body's own
    language head: `language_head`, or where there is none, its embeddings. A new head and a new
    weight are zero: before any training all texts are equal.
    """

    def __init__(
        self,
        body: PreTrainedModel,
        *,
        likelihood: bool = False,
        language_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.body: Any = cast(Any, body).to(torch.float32).eval()
        width = body.config.get_text_config().hidden_size
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
        logits = self.logits(states[:, :-1][asked])  # of these tokens only: vocabularies are large
        found = -cross_entropy(logits, input_ids[:, 1:][asked], reduction="none")
        return torch.zeros_like(said, dtype=found.dtype).masked_scatter(said, found)

    def logits(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Of the next token after each state."""
        if self.language_head is not None:
            found: Tensor = self.language_head(states)
            return found
        return linear(states, self.body.get_input_embeddings().weight)

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
                each.numel()
                for each in scalar_model(build(config), likelihood=contract.likelihood).parameters()
            )
        if weights.is_file() and size > weights.stat().st_size:
            raise CheckpointError(
                f"{where}: has {size} weights, which {weights.name} of {weights.stat().st_size} "
                "bytes cannot hold; they come from different models"
            )
        with torch.random.fork_rng(devices=[]), quiet():
            return scalar_model(build(config), likelihood=contract.likelihood)
    except CheckpointError:
        raise
    except Exception as error:  # settings are anybody's: whatever their class makes of them
        raise CheckpointError(
            f"{where}: no language model can be built from it ({first_line(error)}); fit it again"
        ) from None


def scalar_model(model: PreTrainedModel, *, likelihood: bool) -> ScalarModel:
    """A causal language model with a new head in the place of its language head, or beside it."""
    untyped: Any = model
    head, shared = untyped.get_output_embeddings(), untyped.get_input_embeddings()
    own = None if head is None or not likelihood or is_tied(head, shared) else head
    return ScalarModel(body_of(model), likelihood=likelihood, language_head=own)


def is_tied(head: nn.Module, embeddings: nn.Module) -> bool:
    """Whether a language head is nothing but the embeddings."""
    biased = getattr(head, "bias", None) is not None
    return getattr(head, "weight", None) is getattr(embeddings, "weight", None) and not biased


@torch.no_grad()
def refuse_other_logits(scalar: ScalarModel, model: PreTrainedModel) -> None:
    """InputError where a model does more than its language head to make logits of its states.

    Some scale or cap them; their likelihood would not be what `ScalarModel` makes of it.
    """
    network: Any = model
    tokens = torch.arange(8, device=scalar.head.weight.device)[None] % model.config.vocab_size
    states = scalar.body(input_ids=tokens, use_cache=False).last_hidden_state[0]
    expected = network(input_ids=tokens, use_cache=False).logits[0].float()
    found = scalar.logits(states)
    if found.shape != expected.shape or not torch.allclose(found, expected, atol=1e-3, rtol=1e-3):
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
