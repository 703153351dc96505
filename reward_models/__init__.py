"""CLIP reward models fitted to rankings.

Importing this package does not load torch; `load` does, when called.
"""

from reward_models.loading import load

__all__ = ["load"]
