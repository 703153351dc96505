"""Finding a causal language model and loading it: the shipped one, a folder, or one from the hub.

Weights are read from safetensors only, and no code of a repository is run. What would make a model
compute nonsense without an error is refused here: weights that are missing, a tokenizer of another
model, a model whose tokens see later ones. Left out: what is done with the model.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers.utils.logging as transformers_logging
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.generation.configuration_utils import GenerationConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.configuration_auto import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.errors import CheckpointError, InputError, first_line
from imgalign.files import describe_folder
from imgalign.language.chat import control_tokens, end_token
from imgalign.runs.trained import LANGUAGE_ADAPTER, find_weights

log = logging.getLogger(__name__)
STORYBOOK = Path(__file__).parents[1] / "storybook" / "assets" / "language"
CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
RUNS = "runs"
"""Where commands write by default."""
FULL = 0.9
"""Share of a model's embeddings that its own tokenizer uses at least."""
NO_LIMIT = 10**9
"""Tokenizers that state no length have a number above this one."""

Attention = Literal["sdpa", "eager"]
"""Implementation of attention: PyTorch's fused one where the class of the model has it (few older
ones do not), or plain matrix products."""


TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
"""Names of files that a tokenizer may be in."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanguageModel:
    """A causal language model, its tokenizer, and how many tokens it reads."""

    model: PreTrainedModel
    """With its language head, in evaluation mode: no dropout."""
    tokenizer: PreTrainedTokenizerBase
    context_length: int
    """Tokens of prompt and response together."""
    ends: frozenset[int]
    """Tokens of which each ends a sampled response: the one that given responses are learned with
    (chat.py), that of the tokenizer, and those that the model's settings name."""


def load_language_model(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    attention: Attention = "sdpa",
) -> LanguageModel:
    """The model of "storybook", a local folder, or a hub id such as "owner/name".

    InputError, in one line, where there is no such model, where it can neither be fetched nor found
    in the hub's cache on this machine, where it is no causal language model, and where tokenizer
    and weights do not belong together.
    """
    source = find_language_model(name)
    with quiet():
        tokenizer = load_tokenizer(source, name)
        model = _load_weights(source, name, dtype=dtype, attention=attention)
        ends = end_tokens(source, tokenizer, name)
    check_vocabulary(tokenizer, model, name)
    check_causal(model, name)
    module: nn.Module = model  # whose `to` has types
    module.to(device)
    length = context_length(model.config, tokenizer, name)
    return LanguageModel(model=model, tokenizer=tokenizer, context_length=length, ends=ends)


def find_language_model(name: str) -> str:
    """The folder or hub id of a model; InputError where it can be neither.

    Of a run that trained all weights it is the folder of its best checkpoint.
    """
    folder = STORYBOOK if name == "storybook" else Path(name).expanduser()
    if (folder / CONFIG_FILE).is_file():
        return str(folder)
    if folder.is_dir():
        return str(_trained(folder, name))
    if name == "storybook":
        raise InputError(
            "model: the storybook's language model is not part of this installation; reinstall, or "
            "name a folder or hub id"
        )
    if not _is_hub_id(name):
        cure = "; train it first, or name another" if name.startswith(f"{RUNS}/") else ""
        raise InputError(
            "model: expected 'storybook', a folder or a hub id like 'owner/name', "
            f"got {name!r}, which is no folder here{cure}"
        )
    return name


def _trained(folder: Path, name: str) -> Path:
    """The whole model that a run left; InputError where a folder is no run, or trained a LoRA."""
    try:
        found = find_weights(folder)
    except CheckpointError:
        found = folder
    if (found / CONFIG_FILE).is_file():
        return found
    if (found / LANGUAGE_ADAPTER).is_file():
        raise InputError(
            f"model: {name!r} has a LoRA and no whole model; make one of the two by imgalign "
            "export RUN --format merged, or train on from the model with the LoRA as policy.adapter"
        )
    raise InputError(
        f"model: expected {CONFIG_FILE} in {name!r}, a language model's folder, "
        f"{describe_folder(folder)}"
    )


def load_tokenizer(source: str, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id, which has an end token; InputError otherwise.

    `name` is what messages call the model.
    """
    folder = Path(source)
    if folder.is_dir() and not any(any(folder.glob(files)) for files in TOKENIZER_FILES):
        raise InputError(
            f"model: expected tokenizer.json in {name!r}, {describe_folder(folder)}; copy the "
            "files of the model's tokenizer there"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # tokenizers raises no class of its own
        raise _refused(name, "tokenizer", error) from None
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(f"model: {name!r} has no tokenizer of text; choose a language model")
    end_token(tokenizer)
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """InputError where the tokenizer has tokens that the model has no embedding of.

    One with far fewer is warned of: embeddings are padded to a round number, but not by so much.
    """
    highest = max(tokenizer.get_vocab().values())
    known = embedding(model).num_embeddings
    if highest >= known:
        raise InputError(
            f"model: {name!r}: its tokenizer has token number {highest}, the model knows {known} "
            "tokens from 0; they belong to different models"
        )
    if highest + 1 < FULL * known:
        log.warning(
            "model: %r: its tokenizer has %d tokens and the model %d; if they belong to different "
            "models, what is learned is nonsense",
            *(name, highest + 1, known),
        )


def end_tokens(source: str, tokenizer: PreTrainedTokenizerBase, name: str) -> frozenset[int]:
    """The tokens that end a response, by tokenizer, chat template and the model's settings.

    InputError where the settings name one that is text to the tokenizer, or nothing: it would be
    that of another model with the same number of tokens, or fewer.
    """
    controls = control_tokens(tokenizer)
    for file, number in _stated_ends(source):
        if number not in controls:
            words = tokenizer.get_vocab()
            meant = next(
                (repr(word) for word, place in words.items() if place == number), "nothing"
            )
            raise InputError(
                f"model: {name!r}: by {file} token number {number} ends a text, and that is "
                f"{meant} to its tokenizer, no control token; they belong to different models, or "
                "eos_token_id there is wrong"
            )
    own = tokenizer.eos_token_id
    usual = {end_token(tokenizer), *([own] if isinstance(own, int) else [])}
    return frozenset(usual | {number for _, number in _stated_ends(source)})


def _stated_ends(source: str) -> list[tuple[str, int]]:
    """What the files of a model say of end tokens; not the defaults of its class.

    transformers writes these into config.json as well, so there they say nothing.
    """
    config, _ = PreTrainedConfig.get_config_dict(source)
    stated = [
        (CONFIG_FILE, each.get("eos_token_id"))
        for each in (config, _inner(config))
        if each.get("eos_token_id") != _default_end(each)
    ]
    with suppress(OSError):  # it may have none
        generation = GenerationConfig.from_pretrained(source)
        # The library may have made it, then from defaults, too.
        if not getattr(generation, "_from_model_config", False):
            stated.append((GENERATION_FILE, getattr(generation, "eos_token_id", None)))
    return [
        (file, number)
        for file, value in stated
        for number in (value if isinstance(value, list) else [value])
        if isinstance(number, int)
    ]


def _default_end(config: Mapping[str, Any]) -> Any:
    try:
        return AutoConfig.for_model(config["model_type"]).eos_token_id
    except (KeyError, ValueError, AttributeError):  # of no class that is known
        return None


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")  # of models that also see
    return inner if isinstance(inner, dict) else {}


def embedding(model: PreTrainedModel) -> torch.nn.Embedding:
    """The embedding of a model's tokens."""
    found = model.get_input_embeddings()
    assert isinstance(found, torch.nn.Embedding)
    return found


@torch.no_grad()
def check_causal(model: PreTrainedModel, name: str) -> None:
    """InputError for a model in which a token sees later ones, such as BERT."""
    body: Any = model.base_model
    tokens = torch.tensor([[0, 0], [0, 1]], device=embedding(model).weight.device)
    first = body(input_ids=tokens).last_hidden_state[:, 0]
    if not torch.allclose(first[0], first[1], rtol=1e-3, atol=1e-5):
        raise InputError(
            f"model: {name!r}: its tokens see those after them; expected a causal language model"
        )


def plan_language_model(name: str) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer of a model and how many tokens it reads, without its weights.

    InputError as from `load_language_model`, for what can be known by then.
    """
    source = find_language_model(name)
    with quiet():
        tokenizer = load_tokenizer(source, name)
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # of the library or of the hub: no common class
            raise _refused(name, "settings", error) from None
    return tokenizer, context_length(config, tokenizer, name)


def context_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """Tokens that a model reads at once: the smaller of what model and tokenizer state."""
    settings = config.get_text_config()
    stated = [getattr(settings, "max_position_embeddings", None), tokenizer.model_max_length]
    limits = [int(each) for each in stated if each is not None and 0 < each < NO_LIMIT]
    if not limits:
        raise InputError(
            f"model: {name!r} does not state its context length; set model_max_length in its "
            "tokenizer_config.json"
        )
    return min(limits)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers shows no progress bars and only errors."""
    bars, level = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
    )
    library: Any = transformers_logging  # it gives these no types
    library.disable_progress_bar()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="huggingface_hub")
            yield
    finally:
        if bars:
            library.enable_progress_bar()
        transformers_logging.set_verbosity(level)


def causal_class(config: PreTrainedConfig, name: str) -> type[PreTrainedModel]:
    """The class of causal language models with such settings; InputError where there is none."""
    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        kind = config.model_type or type(config).__name__
        raise InputError(f"model: {name!r} is of the kind {kind!r}, no causal language model")
    return found


def usable_attention(kind: type[PreTrainedModel], attention: Attention) -> Attention:
    """The implementation asked for, or plain attention for the few classes without the fused one.

    Always given to the library by name: left open, it would be taken from the settings that come
    with the weights, and these can name code on the hub.
    """
    return attention if kind._supports_sdpa else "eager"


def _load_weights(
    source: str, name: str, *, dtype: torch.dtype, attention: Attention
) -> PreTrainedModel:
    found: Any
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of the library, of the hub: no common class
        raise _refused(name, "settings", error) from None
    kind = causal_class(config, name)
    try:
        found = kind.from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation=usable_attention(kind, attention),
            output_loading_info=True,
        )
    except Exception as error:  # of the library, of safetensors, of the hub: no common class
        raise _refused(name, "model", error) from None
    model, info = found
    # transformers draws at random what a file lacks, and only says so in its log.
    absent = sorted(info["missing_keys"]) + sorted(str(each) for each in info["mismatched_keys"])
    if absent:
        raise InputError(
            f"model: {name!r}: {len(absent)} weights are missing or of another size, {absent[0]}; "
            "it is no language model, or its files are incomplete"
        )
    loaded: PreTrainedModel = model.eval()
    return loaded


def _refused(name: str, part: str, error: Exception) -> InputError:
    reason = first_line(error)
    if _is_hub_id(name) and isinstance(error, OSError):
        return InputError(
            f"model: {name!r} is no folder here, not in the hub's cache, and could not be fetched; "
            f"check the name and the connection, or pass a folder: {reason}"
        )
    return InputError(f"model: cannot load the {part} of {name!r}: {reason}")


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    # A folder of runs is no owner on the hub, and what lies there is made here.
    return name.count("/") == 1 and not Path(name).exists() and not name.startswith(f"{RUNS}/")
