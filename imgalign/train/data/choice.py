"""The sources of training data: the union of their sections in the settings.

To add one, write its file and name its section here.
"""

from typing import TypeAlias

from imgalign.train.data.images import ImagesConfig
from imgalign.train.data.rankings import FolderConfig, RankingsConfig, TableConfig
from imgalign.train.data.rollouts import RolloutsConfig
from imgalign.train.data.texts import CompletionsConfig, LabelledConfig, TextRankingsConfig

DataConfig: TypeAlias = (
    RolloutsConfig
    | ImagesConfig
    | RankingsConfig
    | FolderConfig
    | TableConfig
    | CompletionsConfig
    | TextRankingsConfig
    | LabelledConfig
)
