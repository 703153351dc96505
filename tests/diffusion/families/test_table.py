import pytest
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

from imgalign.diffusion.families.table import family_of
from imgalign.errors import InputError


def test_a_pipeline_of_another_kind_is_refused():
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(InputError, match="expected one of StableDiffusionPipeline, got DDPMPipel"):
        family_of(DDPMPipeline(unet=unet, scheduler=DDIMScheduler()))
