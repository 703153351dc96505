"""Settings of the alignment loop."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from imgalign.config import Config, PathText, refuse_ineffective
from imgalign.preferences import address
from imgalign.preferences.records import SamplerSettings, comparisons_of

MOST_ROUNDS = 20
SEEDS_PER_ROUND = 50_000
"""Each round has as many for its candidates, and as many for its comparison."""

Judges = Annotated[int, Field(ge=1, le=100)]


class PeopleConfig(Config):
    """People rank in the app; the loop waits for them."""

    kind: Literal["people"] = "people"
    """Who is asked."""

    annotators: Judges = 1
    """How many people judge each ranking and each pair."""

    wait_for: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the answers after which the loop goes on. Later answers still count: rankings in the
    training of the next round."""


class SimulatedConfig(Config):
    """Simulated annotators of the storybook, with the noise and the habits of people."""

    kind: Literal["simulated"] = "simulated"
    """Who is asked."""

    group: Literal["cosy", "dreamy", "graphic"] = "cosy"
    """Whose taste they share."""

    annotators: Judges = 2
    """How many of them judge each ranking and each pair."""


AskConfig: TypeAlias = PeopleConfig | SimulatedConfig


class AlignConfig(Config):
    """How a round is trained."""

    recipe: PathText = "storybook_dpo"
    """A recipe of `imgalign train` that learns from rankings, or from its own samples and a reward
    model that is fitted to the rankings."""

    overrides: tuple[str, ...] = ()
    """Settings of the recipe to change. Example: ["run.iterations=80"]."""


class CandidatesConfig(Config):
    """The images that are ranked in a round."""

    prompts: Path | None = None
    """Text file with one prompt per line, which rounds take one after the other. Null draws them
    from the storybook's grammar."""

    num_prompts: PositiveInt = 120
    """New prompts in each round."""

    per_prompt: Annotated[int, Field(ge=2, le=9)] = 4
    """Images of each prompt, which are one ranking."""

    sampler: SamplerSettings = SamplerSettings(num_inference_steps=10, eta=1.0)
    """How they are sampled: with noise, as in training, so that they differ."""


class CompareConfig(Config):
    """The blind comparison of a round with the one before."""

    prompts: Path | None = None
    """Text file with one prompt per line, all of which are used in every round and never trained
    on. Null draws unseen combinations from the storybook's grammar."""

    num_prompts: PositiveInt = 48
    """Prompts that are drawn; the same in every round."""

    images_per_prompt: PositiveInt = 3
    """Pairs of images of each prompt, of seeds that are new in every round."""

    sampler: SamplerSettings = SamplerSettings()
    """How the images of both sides are sampled."""

    @model_validator(mode="after")
    def _a_file_of_prompts_is_used_as_a_whole(self) -> "CompareConfig":
        if self.prompts is not None:
            refuse_ineffective(self, ["num_prompts"], "with prompts from a file")
        return self


class StopConfig(Config):
    """When the loop ends; these settings may be changed when it is continued."""

    max_rounds: Annotated[int, Field(ge=1, le=MOST_ROUNDS)] = 3
    """Rounds at most."""

    patience: PositiveInt = 1
    """Rounds in a row that do not improve, after which the loop ends. A round improves if the lower
    bound of the win rate's 95 % interval, ties as halves, is above 50 %. The next round starts from
    the last one that did."""


class LoopConfig(Config):
    """Rounds of generating, ranking, aligning and comparing blindly."""

    align: AlignConfig = AlignConfig()
    """How a round is trained."""

    ask: AskConfig = Field(SimulatedConfig(), discriminator="kind")
    """Who ranks the candidates and votes in the comparison."""

    reward: Literal["none", "fit"] = "none"
    """fit: a reward model is fitted to all rankings before each training, for recipes that learn
    from their own samples. none: for recipes that learn from the rankings themselves."""

    fit: tuple[str, ...] = ()
    """Settings of `imgalign reward train` to change. Example: ["head.style=false"]."""

    reference: Literal["before", "base"] = "before"
    """What a round starts from, which is also the reference of its KL and of its implicit rewards.
    before: the last round that improved, so that each round may go as far as the one before. base:
    the pretrained model; a new adapter learns from the rankings of all rounds and stays near it."""

    candidates: CandidatesConfig = CandidatesConfig()
    """The images that are ranked."""

    compare: CompareConfig = CompareConfig()
    """The blind comparison."""

    stop: StopConfig = StopConfig()
    """When the loop ends."""

    database: PathText | None = None
    """File or URL of the database for images, rankings and votes. Null is imgalign.db in the loop's
    folder."""

    project: Annotated[str, Field(min_length=1)] = "loop"
    """Project of the rankings in the database; that of the votes is this name and "-compare"."""

    seed: Annotated[int, Field(ge=0, lt=1000)] = 0
    """Decides prompts, noise, simulated annotators, display orders and training."""

    @property
    def votes_project(self) -> str:
        """Project of the pairs that are compared, apart from what is learned from."""
        return comparisons_of(self.project)

    @model_validator(mode="after")
    def _each_round_has_seeds_enough(self) -> "LoopConfig":
        for name, per_prompt in (
            ("candidates", self.candidates.per_prompt),
            ("compare", self.compare.images_per_prompt),
        ):
            section = getattr(self, name)
            if section.num_prompts * per_prompt > SEEDS_PER_ROUND:
                raise ValueError(
                    f"{name}.num_prompts: expected at most {SEEDS_PER_ROUND} images in a round, "
                    f"got {section.num_prompts} x {per_prompt}"
                )
        return self

    @model_validator(mode="after")
    def _only_a_fitted_reward_has_settings(self) -> "LoopConfig":
        if self.fit and self.reward == "none":
            raise ValueError("fit: has no effect with reward: none")
        return self

    @model_validator(mode="after")
    def _a_password_is_not_written_down(self) -> "LoopConfig":
        if self.database is not None and address.has_password(self.database):
            raise ValueError(
                "database: a URL with a password would be written into loop.yaml; leave it out and "
                "let the server's client find it, as in ~/.pgpass"
            )
        return self
