"""Claims: on a real network, both models are asked the same about all candidates of a ranking."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from policies import diffusion
from ranked_batches import CONFIGS
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.rankings import RankedBatch
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.runs.world import Alone

PROMPTS = ["a red house", "a blue boat", "two trees"]
CANDIDATES, DRAWS = 3, 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One row of a forward pass of the network."""

    adapted: bool
    """The policy's own weights, and not the reference."""
    latent: Tensor
    timestep: int
    condition: Tensor


class Questions:
    """Records what the UNet is asked, row by row."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self.rows: list[Question] = []
        network = policy.family.network
        (self.layer, *_) = [each for each in network.modules() if hasattr(each, "lora_A")]
        network.register_forward_pre_hook(self.asked, with_kwargs=True)

    def asked(self, _: object, places: tuple[Tensor, Tensor], named: Mapping[str, Any]) -> None:
        latents, timesteps = places
        self.rows += [
            Question(
                adapted=not self.layer.disable_adapters,
                latent=latent.detach().clone(),
                timestep=int(timestep),
                condition=condition.clone(),
            )
            for latent, timestep, condition in zip(
                latents, timesteps, named["encoder_hidden_states"], strict=True
            )
        ]


def rankings(policy: DiffusionPolicy) -> RankedBatch:
    """A ranking of three images for each prompt."""
    prompts = [prompt for prompt in PROMPTS for _ in range(CANDIDATES)]
    images = torch.rand(len(prompts), 3, 16, 16, generator=torch.Generator().manual_seed(0))
    index = torch.arange(len(prompts)).view(-1, CANDIDATES)
    return RankedBatch(
        data=policy.encode(prompts, images),
        index=index,
        ranks=torch.arange(CANDIDATES).expand_as(index),
        all_bad=torch.zeros(len(PROMPTS), dtype=torch.bool),
        all_good=torch.zeros(len(PROMPTS), dtype=torch.bool),
        weights=torch.ones(len(PROMPTS)),
    )


def noise_in(policy: DiffusionPolicy, asked: Question, clean: Tensor) -> Tensor:
    """What was added to a latent: corrupting is linear in the latent and in the noise."""
    level, nothing = torch.tensor([asked.timestep]), torch.zeros_like(clean)
    kernel = policy.denoiser.kernel
    without = kernel.corrupt(clean[None], nothing[None], level)[0]
    scale = kernel.corrupt(nothing[None], torch.ones_like(clean)[None], level)[0]
    return (asked.latent - without) / scale


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("batch_size", [2, 6, 18])
def test_prompt_noise_and_timestep_are_equal_for_both_models_and_all_candidates(
    tiny_pipeline_folder, batch_size, held_out
):
    # Passes of two rows cut a ranking apart, of six have one ranking, of eighteen all of them.
    policy = diffusion(tiny_pipeline_folder, batch_size=batch_size)
    batch, questions = rankings(policy), Questions(policy)
    algorithm = Direct(CONFIGS["all pairs"].model_copy(update={"draws": DRAWS}))
    if held_out:
        algorithm.held_out(policy, batch, world=Alone())
    else:
        generator = torch.Generator().manual_seed(0)
        for loss in algorithm.losses(policy, batch, world=Alone(), generator=generator):
            assert loss.value is not None
            torch.autograd.backward(loss.value)
    draws = {True: set(), False: set()}
    for place, prompt in enumerate(PROMPTS):
        condition = policy.family.encode([prompt])["prompt_embeds"][0]
        clean = batch.data.content["latents"][batch.index[place]]
        for adapted in (True, False):
            own = [
                each
                for each in questions.rows
                if each.adapted == adapted and torch.equal(each.condition, condition)
            ]
            num_draws = 4 if held_out else DRAWS
            # Without gradients first, and then with them, where a ranking is cut apart.
            again = 2 if adapted and batch_size < CANDIDATES * DRAWS and not held_out else 1
            assert len(own) == CANDIDATES * num_draws * again
            found = [own[turn::num_draws] for turn in range(num_draws)]
            for of_draw in found:
                (timestep,) = {each.timestep for each in of_draw}
                first, *others = [
                    noise_in(policy, each, clean[number % CANDIDATES])
                    for number, each in enumerate(of_draw)
                ]
                for other in others:
                    # Corrupted in float32, and divided by little at low noise levels.
                    assert_close(other, first, rtol=1e-2, atol=1e-3)
                draws[adapted].add((place, timestep, round(first.mean().item(), 2)))
    assert draws[True] == draws[False]
    assert len(draws[True]) == len(PROMPTS) * num_draws  # another one for each ranking and draw
