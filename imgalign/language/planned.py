"""What the model of a language policy would refuse, before its weights are loaded."""

from collections.abc import Sequence

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from imgalign.errors import InputError
from imgalign.language.chat import prompt_tokens, reading
from imgalign.language.config import LanguageConfig
from imgalign.language.loading import plan_language_model

PROMPT_SHOWN = 60
"""Characters of a prompt in a message."""


class PlannedLanguagePolicy:
    """The policy of these settings without weights; InputError where there is no such model."""

    def __init__(self, config: LanguageConfig) -> None:
        self.config = config
        self.tokenizer, self.context_length = plan_language_model(config.model)

    @property
    def reading(self) -> str:
        """A hash of what decides which tokens a text becomes."""
        return reading(self.tokenizer)

    def refuse_prompts(self, prompts: Sequence[str]) -> None:
        """InputError for prompts after which the context has no room for a response."""
        refuse_long_prompts(prompts, self.tokenizer, self.context_length, self.config)


def refuse_long_prompts(
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int,
    config: LanguageConfig,
) -> None:
    """InputError for the first prompt after which the context has no room for a response."""
    room = context_length - config.max_new_tokens
    for prompt, row in zip(prompts, prompt_tokens(tokenizer, prompts), strict=True):
        if len(row) > room:
            raise InputError(
                f"prompts: {prompt[:PROMPT_SHOWN]!r} has {len(row)} tokens, and the model reads "
                f"{context_length}, of which policy.max_new_tokens takes {config.max_new_tokens}; "
                "shorten or leave out such prompts, or lower policy.max_new_tokens"
            )
