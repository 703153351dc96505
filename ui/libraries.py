"""Loads torch and diffusers, which takes seconds, in one thread at a time.

Two threads that import packages which import each other could find one of them half loaded.
"""

import threading

_LOADING = threading.Lock()


def load_libraries() -> None:
    """Return once all that the pages but Rank need can be imported at once."""
    with _LOADING:
        import imgalign.diffusion.generate
        import imgalign.language.rewriting
        import imgalign.runs.metrics
        import imgalign.train.config  # noqa: F401
        import reward_models.text_training
        import reward_models.training  # noqa: F401
