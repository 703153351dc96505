"""What is told about one metric: its unit, its meaning, and what to watch."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Group: TypeAlias = Literal["reward", "distance", "update", "cost"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One key of metrics.jsonl.

    Example: `Metric("kl", "KL to the reference", "nats", "KL per image.", "...", "distance")`.
    """

    key: str
    title: str
    """What a chart is called."""
    unit: str
    """Empty for a ratio without a unit."""
    meaning: str
    watch: str
    """When to worry, or what to expect; may be empty."""
    group: Group
    algorithms: tuple[str, ...] = ()
    """Modules of `imgalign.algorithms` that write it; empty where every run does."""
    limit: float | None = None
    """Charts draw a line here: beyond it there is reason to worry."""

    @property
    def caption(self) -> str:
        """What it means and what to watch, as running text."""
        return f"{self.meaning} {self.watch}".strip()
