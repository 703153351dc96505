"""Passwords: which are refused, and what is kept of them, their argon2id digests.

Hashing takes a tenth of a second and 64 MiB on purpose, so a caller limits how often it is asked
for, and asks before it makes other writers wait.
"""

import secrets
from contextlib import suppress
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from imgalign.errors import InputError
from imgalign.preferences import validation
from imgalign.preferences.identity import person

SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 200
LEAST_BESIDE_THE_NAME = 6
"""Characters of a password, spaces left out, that are not the name of its account."""


def refuse_password(password: str, name: str) -> None:
    """InputError for a password that is easily guessed or cannot be one."""
    validation.name("annotator", name)
    validation.name("annotator", person(name))
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InputError(
            f"password: expected {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, "
            f"got {len(password)}"
        )
    rest = person(password).replace(person(name), "").replace(" ", "")
    if len(rest) < LEAST_BESIDE_THE_NAME or len(set(password)) < 4:
        raise InputError("password: too easily guessed; take several words that you make up")
    with suppress(UnicodeEncodeError):
        password.encode()
        return
    raise InputError("password: contains characters that cannot be stored")


def hashed(password: str) -> str:
    """The digest to keep of a password."""
    return _hasher().hash(password)


def matches(digest: str | None, password: str) -> bool:
    """Whether a digest is of this password; None is nobody's, which takes as long to tell."""
    if len(password) > LONGEST_PASSWORD:
        return False
    try:
        _hasher().verify(_nobody() if digest is None else digest, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
    return digest is not None


def renewed(digest: str, password: str) -> str:
    """The digest itself, or one of the present settings where it was made by others."""
    return hashed(password) if _hasher().check_needs_rehash(digest) else digest


@cache
def _hasher() -> PasswordHasher:
    """Argon2id by the second recommendation of RFC 9106: 64 MiB, three passes."""
    return PasswordHasher()


@cache
def _nobody() -> str:
    """The digest of a password that nobody has."""
    return _hasher().hash(secrets.token_urlsafe(32))
