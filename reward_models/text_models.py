"""The body of a causal language model with a linear head: one number at every token.

Left out: which of the numbers is a score or a value (text.py), and fitting (text_training.py).

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

    A new head is zero: before any training all texts are equal.
    """

    def __init__(self, body: PreTrainedModel) -> None:
        super().__init__()
        self.body: Any = cast(Any, body).to(torch.float32).eval()
        width = body.config.get_text_config().hidden_size
        # Made without numbers first: the usual constructor draws from the global generator.
        head = nn.Linear(width, 1, bias=False, device="meta")
        self.head = head.to_empty(device=next(body.parameters()).device)
        nn.init.zeros_(self.head.weight)
        # Models without position embeddings, such as Bloom, take none.
        self.takes_positions = "position_ids" in inspect.signature(body.forward).parameters

    def train(self, mode: bool = True) -> "ScalarModel":
        """Stay in evaluation mode: dropout would make scores random."""
        return super().train(False)

    def forward(
        self, input_ids: Int[Tensor, "b L"], attention_mask: Bool[Tensor, "b L"]
    ) -> Float[Tensor, "b L"]:
        """The number at each token, which depends on that token and on those before; float32.

        Padding may be on either side or on both; what stands there is arbitrary.
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
            values: Tensor = self.head(found.last_hidden_state).squeeze(-1)
        return values

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
            size = sum(each.numel() for each in body_of(build(config)).parameters())
        if weights.is_file() and size > weights.stat().st_size:
            raise CheckpointError(
                f"{where}: has {size} weights, which {weights.name} of {weights.stat().st_size} "
                "bytes cannot hold; they come from different models"
            )
        with torch.random.fork_rng(devices=[]), quiet():
            return ScalarModel(body_of(build(config)))
    except CheckpointError:
        raise
    except Exception as error:  # settings are anybody's: whatever their class makes of them
        raise CheckpointError(
            f"{where}: no language model can be built from it ({first_line(error)}); fit it again"
        ) from None


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
