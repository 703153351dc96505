"""The noise that the storybook's text-to-image model is trained under."""

import torch

from imgalign.storybook.train.pipeline import build_scheduler, noised


def test_timesteps_are_logit_normal() -> None:
    torch.manual_seed(0)
    _, timesteps, _ = noised(torch.zeros(20_000, 1, 1, 1), build_scheduler())
    assert timesteps.min() >= 0
    assert timesteps.max() < 1000
    logit = ((timesteps + 0.5) / 1000).logit()
    torch.testing.assert_close(logit.mean(), torch.tensor(0.0), atol=0.03, rtol=0)
    torch.testing.assert_close(logit.std(), torch.tensor(1.0), atol=0.03, rtol=0)


def test_noisy_latents_have_the_schedules_share_of_signal() -> None:
    torch.manual_seed(0)
    scheduler = build_scheduler()
    clean = torch.full((4, 8, 16, 16), 3.0)
    noise, timesteps, noisy = noised(clean, scheduler)
    signal = scheduler.alphas_cumprod[timesteps].sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, signal * clean + (1 - signal**2).sqrt() * noise)
