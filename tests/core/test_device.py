import pytest
import torch

from imgalign.device import choose_device
from imgalign.errors import InputError


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match="device"):
        choose_device(name)


def test_auto_is_cuda_only_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto") == choose_device() == torch.device(expected)
