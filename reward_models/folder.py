"""The folder of a reward model: written whole or not at all, and its weights.

Left out: what is in a contract (contract.py), and what it describes (clip.py, text.py).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imgalign.errors import CheckpointError, InputError
from imgalign.files import (
    lock_name,
    recover_folder,
    sha256_of,
    whole_folder,
)
from imgalign.preferences.fit_report import REPORT_FILE
from reward_models.contract import (
    CONTRACT_FILE,
    GOLDEN_FOLDER,
    PLOT_FILE,
    TOKENIZER_FOLDER,
    WEIGHTS_FILE,
    Contract,
    TextContract,
    hash_files,
    write_contract,
)

OWN_FILES = frozenset(
    {
        CONTRACT_FILE,
        WEIGHTS_FILE,
        TOKENIZER_FOLDER,
        GOLDEN_FOLDER,
        REPORT_FILE,
        PLOT_FILE,
    }
)
"""All files of a reward's folder."""

C = TypeVar("C", Contract, TextContract)


def save_folder(
    folder: Path, write: Callable[[Path], C], *, beside: Callable[[Path], None] = lambda _: None
) -> C:
    """Write a reward model, whole or not at all; an earlier one in `folder` is replaced.

    `write` writes the files that decide a score into the folder it is given, and returns the
    contract without their hashes; `beside` writes further files. InputError as of `check_target`.
    Returns the contract as it was written.
    """
    check_target(folder)
    with whole_folder(folder, doing=f"saving the reward model {folder.name}") as unfinished:
        contract = write(unfinished)
        contract = contract.model_copy(update={"files": hash_files(unfinished)})
        write_contract(contract, unfinished)
        beside(unfinished)
    return contract


def save_weights(module: nn.Module, folder: Path) -> None:
    """Write the weights of a module on the CPU."""
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, folder / WEIGHTS_FILE)


def load_weights(module: nn.Module, folder: Path) -> None:
    """Read what `save_weights` wrote; CheckpointError where it is missing or does not fit."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; copy the whole folder again")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy it again") from error
    own = module.state_dict()
    wrong = [
        f"{name} is {_shape(state, name)}, expected {_shape(own, name)}"
        for name in sorted(own.keys() | state.keys())
        if _shape(state, name) != _shape(own, name)
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors do not fit the contract, {wrong[0]}; "
            f"weights and {CONTRACT_FILE} come from different fits"
        )
    module.load_state_dict(state)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of names and values of all weights."""
    return sha256_of(
        (name, memoryview(value.cpu().reshape(-1).view(torch.uint8).numpy()))
        for name, value in module.state_dict().items()
    )


@contextmanager
def reserve_target(folder: Path) -> Iterator[None]:
    """Lock `folder` for a reward model that this process will save there.

    An unfinished save of a killed process is recovered or removed first. InputError where `folder`
    cannot be written, or where another process is writing it.
    """
    with ExitStack() as stack:
        try:
            check_target(folder)
            stack.enter_context(lock_name(folder, doing="writing"))
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        recover_folder(folder)
        check_target(folder)
        yield


def check_target(folder: Path) -> None:
    """InputError unless `folder` is new, empty or an earlier reward model.

    An earlier one is replaced as a whole, so it may hold no other files.
    """
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        if names and CONTRACT_FILE not in names:
            raise InputError(f"{folder}: holds something else than a reward model; name a new one")
        if foreign := sorted(names - OWN_FILES):
            raise InputError(
                f"{folder}: holds {foreign[0]} beside a reward model, which would be lost; move it "
                "or name a new folder"
            )
        return
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder}: expected a folder for the reward model, {there} is a file")


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return str(list(state[name].shape)) if name in state else "absent"
