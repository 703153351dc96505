"""The runtime type checker of the jaxtyping hook: beartype, with an int good enough for a float.

PEP 484 says so and mypy agrees; beartype does not by default.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
