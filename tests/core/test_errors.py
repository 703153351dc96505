import errno

import pytest

from imgalign.errors import (
    CheckpointError,
    ConfigError,
    ImgalignError,
    InputError,
    JudgeError,
    StorageFullError,
)


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


@pytest.mark.parametrize("kind", [ConfigError, CheckpointError, JudgeError, StorageFullError])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb: unknown key", "a b: unknown key"),
        ("runs/a\r\n\t b: missing", "runs/a b: missing"),
        ("key \x1b[2J\x00: unknown", r"key \x1b[2J\x00: unknown"),
        ("\ud800 and \u2028 and \u202e", r"\ud800 and and \u202e"),
        ("ein roter  Fuchs, 狐 🦊", "ein roter  Fuchs, 狐 🦊"),
    ],
)
def test_a_message_is_one_line_that_can_be_printed_whatever_it_quotes(kind, text, line):
    assert str(kind(text)) == line
