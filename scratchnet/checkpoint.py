"""Models and runs as safetensors files: written whole or not at all, read with suspicion.

`model.safetensors` holds the parameters under PyTorch's names, for any program. `checkpoint.
safetensors` holds all that a run needs to go on as if it had never stopped: parameters, optimizer
state, losses so far and the options. Both carry a SHA-256 of their contents. There is no pickle,
so a file can't run code.

Several networks that differ in their seeds have a folder each, seed-0, seed-1 and so on, within one
that has neither file itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from scratchnet import backend, files
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.nn import Mnist_NN, Module
from scratchnet.optim import Optimizer
from scratchnet.training import Normalization, Options, Run

Arrays = dict[str, npt.NDArray[Any]]

MODEL = "model.safetensors"
RUN = "checkpoint.safetensors"
FORMAT = 1
_SEED = re.compile("seed-(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class SavedModel:
    """A model, and what one has to know to use it.

    Attributes:
        model: the network.
        normalization: of its inputs.
        data: the folder of the images it was trained on; None for the bundled MNIST.
    """

    model: Mnist_NN
    normalization: Normalization
    data: Path | None = None


def save_model(
    path: Path, model: Mnist_NN, normalization: Normalization, data: Path | None = None
) -> None:
    """Write a model: lin1.weight (H, D), lin1.bias (H,), lin2.weight (C, H), lin2.bias (C,).

    `safetensors.torch.load_file` reads it for the state_dict of the same model in PyTorch, which
    then needs the same inputs: (pixels / 255 - mean) / std, as `normalization` has them.

    Raises:
        InputError: it can't be written; a file that was there is as it was.
    """
    arrays = {name: backend.to_numpy(value) for name, value in model.state_dict().items()}
    info = {"normalization": dataclasses.asdict(normalization), "data": _absolute(data)}
    _write(path, arrays, info)


def load_model(path: Path, device: str = "auto") -> SavedModel:
    """Read a model, and how its inputs are normalized.

    Args:
        path: the file, or the folder of a run.
        device: as for `nn.Linear`.

    Returns:
        The model, of the sizes and dtype in the file. A file that says no normalization, such as
        one that PyTorch wrote, is of a model that takes pixels in [0, 1].

    Raises:
        InputError: the file is missing, damaged, no Mnist_NN, or has numbers that are not finite.
    """
    path = _file(path, MODEL)
    arrays, info = _read(path)
    if "options" in info:
        raise InputError(f"{path}: is the checkpoint of a run; expected its folder, or its {MODEL}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: {name} is not finite; expected the model of a run that is")
    try:
        (hidden, in_features), classes = arrays["lin1.weight"].shape, len(arrays["lin2.bias"])
        dtype = arrays["lin1.weight"].dtype
        model = Mnist_NN(in_features, hidden, classes, device=device, dtype=dtype)
        model.load_state_dict(arrays)
        data = Path(info["data"]) if info.get("data") else None
        return SavedModel(model, Normalization(**info.get("normalization", {})), data)
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        found = [f"{name} {array.dtype}{array.shape}" for name, array in arrays.items()]
        raise InputError(
            f"{path}: holds no Mnist_NN, but {', '.join(found) or 'nothing'}; expected float32 "
            "or float64 lin1.weight (H, D), lin1.bias (H,), lin2.weight (C, H) and lin2.bias (C,)"
        ) from error


def save_run(path: Path, run: Run, data: Path | None = None) -> None:
    """Write a run as it stands, between two updates.

    Args:
        path: the file.
        run: the run.
        data: the folder that its images came from, to find them again; None for the bundled MNIST.

    Raises:
        InputError: it can't be written; a file that was there is as it was.
    """
    arrays = _state(run.model, run.optimizer)
    arrays["losses"] = np.array(run.losses, dtype=np.float64)
    info = {
        "options": dataclasses.asdict(run.options),
        "device": run.device,
        "dtype": np.dtype(run.dtype).name,
        "engine": run.engine,
        "param_groups": run.optimizer.state_dict()["param_groups"],
        "data": _absolute(data),
        "data_crc32": run.data_crc32,
    }
    _write(path, arrays, info)


@dataclass(frozen=True)
class SavedRun:
    """A run as a file has it. Load its data, and `resume` it.

    Attributes:
        path: the file.
        options: what the run was started with.
        device: "cpu" or "cuda", where it ran.
        data: the folder of its images; None for the bundled MNIST.
    """

    path: Path
    options: Options
    device: str
    data: Path | None
    _arrays: Arrays
    _info: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> SavedRun:
        """Read a run from its file, or from the folder with its file.

        Raises:
            InputError: the file is missing, damaged, or no run of this version's.
        """
        path = _file(path, RUN)
        arrays, info = _read(path)
        try:
            options = Options(**info["options"])
            data = None if info["data"] is None else Path(info["data"])
            return cls(path, options, info["device"], data, arrays, info)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{path}: is not the checkpoint of a run; expected the {RUN} that "
                "`scratchnet train` leaves in its folder"
            ) from error

    def resume(
        self, split: Split, *, device: str, engine: str | None = None, epochs: int | None = None
    ) -> Run:
        """The run, ready to go on with the next update; on the same device and engine, bit for bit.

        Args:
            split: the training images and labels that it was started with.
            device: "cpu" or "cuda".
            engine: a name in engines.NAMES; None for the one it ran on.
            epochs: train for so many in all; None for as many as it was started with.

        Raises:
            InputError: the data is not the same, or the epochs don't fit.
        """
        options = self.options if epochs is None else replace(self.options, epochs=epochs)
        run = Run(options, split, device, self._info["dtype"], engine or self._info["engine"])
        self.restore(run)
        return run

    def restore(self, run: Run) -> None:
        """Bring a run that has not begun to where this one was.

        Raises:
            InputError: its data or its options, apart from the epochs, are not the same, or the
                epochs don't fit.
        """
        if replace(run.options, epochs=self.options.epochs) != self.options:
            raise InputError(
                f"{self.path}: the run was started with {self.options}; expected {run.options}, as "
                "the networks beside it have: move its folder elsewhere"
            )
        if run.data_crc32 != self._info["data_crc32"]:
            raise InputError(
                f"{self.path}: the run was started with other training data; expected that of "
                f"{self.data or 'the bundled MNIST'}: give the folder where it is now as --data"
            )
        if run.recipe.one_cycle and run.options != self.options:
            raise InputError(
                f"{self.path}: the learning rate of a one-cycle run falls to 0 at the end of epoch "
                f"{self.options.epochs}, so it can't go on to {run.options.epochs}; start a new run"
            )
        run.losses = self._arrays["losses"].tolist()
        if run.step > run.total_steps:
            least = math.ceil(run.step / run.steps_per_epoch)
            raise InputError(
                f"{self.path}: the run has made {run.step} updates already; "
                f"expected --epochs of at least {least}"
            )
        _set_state(self._arrays, run.model, run.optimizer, self._info["param_groups"])


def seed_folder(folder: Path, seed: int) -> Path:
    """The folder of one network, within that of several."""
    return folder / f"seed-{seed}"


def is_seed_folder(folder: Path) -> bool:
    """Whether a folder may be that of one network within that of several, by its name."""
    return _SEED.fullmatch(folder.resolve().name) is not None


def seeds_in(folder: Path) -> list[int]:
    """The seeds of the networks that have a folder in this one, in order."""
    found = [_SEED.fullmatch(path.name) for path in folder.glob("seed-*/")]
    return sorted(int(match[1]) for match in found if match)


def read_runs(folder: Path) -> dict[Path, SavedRun]:
    """The run of a folder, or each of the several that were saved in it, with its own folder.

    Raises:
        InputError: there is none, or a file is damaged.
    """
    seeds = [] if (folder / RUN).exists() else seeds_in(folder)
    folders = [seed_folder(folder, seed) for seed in seeds] or [folder]
    begun = [path for path in folders if (path / RUN).exists()] or folders[:1]
    return {path: SavedRun.read(path) for path in begun}


def save_state(path: Path, model: Module, optimizer: Optimizer) -> None:
    """Write the parameters of any model and the state of its optimizer.

    The names are `model.NAME`, `optimizer.I.step` and `optimizer.I.VECTOR`, where I is the
    parameter's position: the same as in the checkpoint of a run.

    Raises:
        InputError: it can't be written; a file that was there is as it was.
    """
    _write(path, _state(model, optimizer), {})


def load_state(path: Path, model: Module, optimizer: Optimizer) -> None:
    """Take over what `save_state` or `save_run` has written, or PyTorch's side in `reference`.

    The optimizer's options, such as its learning rate, stay as they are.

    Raises:
        InputError: the file is missing, damaged, or of another model or optimizer.
    """
    arrays, _ = _read(path)
    try:
        _set_state(arrays, model, optimizer, optimizer.state_dict()["param_groups"])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: holds no state of this model and optimizer: {error}") from error


def _state(model: Module, optimizer: Optimizer) -> Arrays:
    arrays = {f"model.{name}": value for name, value in model.state_dict().items()}
    for i, entry in optimizer.state_dict()["state"].items():
        step = {f"optimizer.{i}.step": np.array(entry.pop("step"))}
        arrays |= step | {f"optimizer.{i}.{name}": value for name, value in entry.items()}
    return {name: backend.to_numpy(value) for name, value in arrays.items()}


def _set_state(arrays: Arrays, model: Module, optimizer: Optimizer, param_groups: Any) -> None:
    state: dict[int, Arrays] = {}
    parameters: Arrays = {}
    for key, array in arrays.items():
        kind, _, name = key.partition(".")
        if kind == "model":
            parameters[name] = array
        elif kind == "optimizer":
            i, _, vector = name.partition(".")
            state.setdefault(int(i), {})[vector] = array
    model.load_state_dict(parameters)
    optimizer.load_state_dict({"param_groups": param_groups, "state": state})


def _file(path: Path, name: str) -> Path:
    """The path of a file, or of the file of this name in a folder."""
    if not path.is_dir():
        return path
    if not (path / name).exists() and (seeds := seeds_in(path)):
        raise InputError(
            f"{path}: holds {len(seeds)} networks; expected one of them, such as "
            f"{seed_folder(path, seeds[0])}"
        )
    return path / name


def _absolute(data: Path | None) -> str | None:
    return None if data is None else str(data.resolve())


def _write(path: Path, arrays: Arrays, info: Mapping[str, Any]) -> None:
    # One metadata entry: of several, the file's order would differ from write to write.
    noted = {"format": FORMAT, "sha256": _sha256(arrays, info), **info}
    files.write(path, save(arrays, {"scratchnet": json.dumps(noted)}))


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays, and what scratchnet noted beside them: {} in a file that others wrote."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for its writer
        raise InputError(f"{path}: is not a file; expected a safetensors file there")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file; expected what `scratchnet train --out` has left"
        ) from error
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: can't be read as a safetensors file ({error}); expected a whole one: "
            "it is cut off, damaged, or of another kind"
        ) from error
    if "scratchnet" not in metadata:
        return arrays, {}
    try:
        info = json.loads(metadata["scratchnet"])
        version, checksum = info.pop("format"), info.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is damaged: its metadata can't be read ({error})") from error
    if version != FORMAT:
        raise InputError(f"{path}: was written by another version; expected format {FORMAT}")
    if checksum != _sha256(arrays, info):
        raise InputError(f"{path}: is damaged: its contents don't match their SHA-256 checksum")
    return arrays, info


def _sha256(arrays: Arrays, info: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
