"""Causal language models: prompts and responses as tokens, and loading."""
