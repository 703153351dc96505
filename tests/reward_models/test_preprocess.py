import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from reward_models.contract import Preprocess
from reward_models.preprocess import preprocess_images

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("target", [(24, 24), (24, 18)])
@pytest.mark.parametrize("source", [(40, 61), (13, 10), (24, 24), (97, 33)])
def test_tensor_path_equals_open_clips_own_pil_path(resize_mode, interpolation, target, source):
    pixels = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    rule = Preprocess(
        image_size=target,
        mean=MEAN,
        std=STD,
        resize_mode=resize_mode,
        interpolation=interpolation,
        fill=51 / 255,
    )
    theirs = image_transform_v2(
        PreprocessCfg(
            size=target,
            mean=MEAN,
            std=STD,
            resize_mode=resize_mode,
            interpolation=interpolation,
            fill_color=51,
        ),
        is_train=False,
    )(Image.fromarray(pixels))
    ours = preprocess_images(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, rule)[0]
    assert ours.shape == theirs.shape
    # PIL rounds to 8 bits after each of its two passes, 1/2 each, and the negative lobes of the
    # second filter can amplify the first error a little.
    levels = (ours - theirs).abs() * torch.tensor(STD).view(3, 1, 1) * 255
    assert float(levels.max()) < 1.3


def test_gradients_reach_the_pixels():
    rule = Preprocess(image_size=(8, 8), mean=MEAN, std=STD, resize_mode="squash")
    samples = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    preprocess_images(samples, rule).sum().backward()
    # Each output pixel is an average with weights that sum to 1, divided by std.
    assert samples.grad is not None
    expected = torch.tensor([64 / s for s in STD])
    torch.testing.assert_close(samples.grad.sum((0, 2, 3)), expected)
