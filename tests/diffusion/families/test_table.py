from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from safetensors.torch import save_file

from imgalign.diffusion.families.table import FAMILIES, family_of, family_of_file
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


def write(path: Path, *starts: str) -> Path:
    save_file({f"{start}weight": torch.ones(1) for start in (*starts, "other.")}, path)
    return path


def test_a_checkpoint_of_one_file_is_of_the_family_all_of_whose_parts_it_has(tmp_path):
    readable = {name: each.file_parts for name, each in FAMILIES.items() if each.file_parts}
    assert readable
    for name, parts in readable.items():
        assert family_of_file(write(tmp_path / "whole.safetensors", *parts)) == name
        for lost, part in parts.items():
            rest = [start for start in parts if start != lost]
            torn = write(tmp_path / "torn.safetensors", *rest)
            with pytest.raises(InputError, match=rf"got a file without {part} \({lost}"):
                family_of_file(torn)
