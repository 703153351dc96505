"""The table of the contract suite leaves out no kind of anything."""

from collections.abc import Iterator
from typing import Any, get_args

from algorithm_rows import ALGORITHMS, algorithm_config

from imgalign.algorithms.choice import AlgorithmConfig
from imgalign.algorithms.critic import CriticConfig
from imgalign.config import Config
from imgalign.train.data.choice import DataConfig
from imgalign.train.data.images import ImagesConfig
from imgalign.train.data.rankings import FolderConfig, RankingsConfig, TableConfig
from imgalign.train.data.rollouts import RolloutsConfig
from imgalign.train.data.texts import CompletionsConfig, LabelledConfig, TextRankingsConfig


def kinds(annotation: Any) -> set[type[Config]]:
    """Every section that a setting of this type can be, and those inside it."""
    if not (isinstance(annotation, type) and issubclass(annotation, Config)):
        return {kind for each in get_args(annotation) for kind in kinds(each)}
    fields = annotation.model_fields.values()
    return {annotation}.union(*(kinds(field.annotation) for field in fields))


def sections(settings: Config) -> Iterator[Config]:
    """Settings and all sections inside."""
    yield settings
    for name in type(settings).model_fields:
        if isinstance(value := getattr(settings, name), Config):
            yield from sections(value)


def test_the_table_has_every_kind_of_algorithm_baseline_kl_weighting_and_data():
    tried = {type(each) for name in ALGORITHMS for each in sections(algorithm_config(name))}
    # A critic starts as a reward model, which the table does not have: algorithms/test_critic.py.
    missing = kinds(AlgorithmConfig) - {CriticConfig} - tried
    names = sorted(kind.__name__ for kind in missing)
    assert not names, f"add rows to ALGORITHMS of tests/stand_ins/algorithm_rows.py: {names}"
    of = {"supervised, given images": ImagesConfig, "dpo, given rankings": RankingsConfig}
    sources = {of.get(name, RolloutsConfig) for name in ALGORITHMS}
    # Through the sources of RankingsConfig and ImagesConfig.
    same: set[type[Config]] = {
        *(FolderConfig, TableConfig),
        *(TextRankingsConfig, CompletionsConfig, LabelledConfig),
    }
    assert sources == set(get_args(DataConfig)) - same
