"""The measures of the storybook, for the comparisons of the demo and of the loop."""

from imgalign.evaluate.judging import Measures, features_of
from imgalign.policy import RewardModel
from imgalign.storybook.oracle import ORACLE_TIE, check_faithful, oracle_reward, slice_of


def storybook_measures(group: str | None, proxy: RewardModel | None) -> Measures:
    """The noiseless utility of a group as the oracle reward, none without one; `proxy` is the
    reward that training maximised.
    """
    return Measures(
        oracle=None if group is None else oracle_reward(group),
        oracle_meaning=f"the noiseless utility of the {group} annotators",
        oracle_tie=ORACLE_TIE,
        proxy=proxy,
        faithful=check_faithful,
        features=features_of(proxy),
        slices=slice_of,
    )
