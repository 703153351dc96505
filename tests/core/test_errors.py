import errno

import pytest

from imgalign.errors import ConfigError, ImgalignError, InputError, StorageFullError


@pytest.mark.parametrize("kind", [ConfigError, InputError])
def test_what_a_user_typed_or_handed_in_is_a_value_error(kind):
    assert issubclass(kind, ValueError)
    assert issubclass(kind, ImgalignError)


def test_a_full_disk_is_an_os_error_that_keeps_its_own_message():
    error = StorageFullError("runs/a: disk full; newest good checkpoint: step-000100")
    assert str(error) == "runs/a: disk full; newest good checkpoint: step-000100"
    assert error.errno == errno.ENOSPC
    assert isinstance(error, OSError)
    assert error.exit_code == 2
