"""The runtime type checker of the jaxtyping hook: beartype, with an int good enough for a float.

PEP 484 says so and mypy agrees; beartype does not by default.

The hook decorates each function with `jaxtyping.jaxtyped`, with which small ones take twenty times
as long: it binds the arguments, keeps the sizes of axes, and checks twice. From the import of this
module on, that is left to what has arrays in its annotations, or names in quotes, which jaxtyping
looks up; beartype alone checks the same of all others, and raises the same kind of error.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any, ForwardRef, Literal, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
with_axes: Callable[..., Any] = jaxtyping.jaxtyped


def checked(given: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """A function, or a dataclass, that checks its arguments; in place of `jaxtyped`."""
    if given is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isfunction(given) and not _has_arrays(given):
        return typechecker(given)
    if inspect.isclass(given) and is_dataclass(given) and not _has_arrays(given.__init__):
        kind: Any = given
        kind.__init__ = typechecker(kind.__init__)
        return kind
    return with_axes(given, typechecker=typechecker)


def _has_arrays(function: Any) -> bool:
    return any(map(_names_one, inspect.get_annotations(function).values()))


def _names_one(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return False
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    if isinstance(annotation, list | tuple):  # the arguments of a callable
        return any(map(_names_one, annotation))
    return isinstance(annotation, str | ForwardRef) or any(map(_names_one, get_args(annotation)))


hook: Any = jaxtyping
hook.jaxtyped = checked
