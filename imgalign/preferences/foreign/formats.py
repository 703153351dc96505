"""In which formats rankings leave a store, by name."""

from typing import Literal, TypeAlias

FieldFormat: TypeAlias = Literal[
    "pick_a_pic", "image_reward_db", "hpd_v2", "hpd_v2_pairs", "hpd_v3"
]
"""Those of public data sets: see field_export.py."""
ExportFormat: TypeAlias = Literal["rankings", "pairs", "text_pairs", FieldFormat]
