"""IDX files to arrays, strictly, and MNIST in three splits.

An IDX file is a header and raw bytes. The header is the magic number (two zero bytes, the type of
the elements, the number of dimensions) and then each dimension's size in four bytes, big-endian.
MNIST's images are 00 00 08 03, count, 28, 28; its labels are 00 00 08 01, count; 08 means uint8.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scratchnet.backend import Array
from scratchnet.errors import InputError

BUNDLED = Path(__file__).parent / "datasets" / "mnist"
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MAX_BYTES = 2**30  # of one unpacked file; MNIST's largest has 47 MB
GZIP_MAGIC = b"\x1f\x8b"


class Split(NamedTuple):
    """Images and their labels.

    images: (N, 784) uint8, each row a 28x28 image, 0 background to 255 ink.
    labels: (N,) int64, 0 to 9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mnist:
    """The three splits: 50,000 training, 10,000 validation and 10,000 test images in MNIST."""

    train: Split
    validation: Split
    test: Split


def load(directory: Path | None = None) -> Mnist:
    """Read MNIST, or a data set in the same four files.

    Args:
        directory: a folder that holds the files of `FILES`, plain or as .gz, or whose subfolder
            raw/ does, as torchvision has it. Default: the MNIST that comes with scratchnet.

    Returns:
        The splits. Training is the train files without their last sixth, validation is that last
        sixth, test is the t10k files.

    Raises:
        InputError: a file is missing, damaged, or does not hold 28x28 images and labels 0 to 9.
    """
    folder = _find_folder(BUNDLED if directory is None else directory)
    whole = _read_split(folder, "train", at_least=6)
    test = _read_split(folder, "t10k", at_least=1)
    last_sixth = len(whole.labels) // 6
    return Mnist(
        train=Split(whole.images[:-last_sixth], whole.labels[:-last_sixth]),
        validation=Split(whole.images[-last_sixth:], whole.labels[-last_sixth:]),
        test=test,
    )


def to_float(images: Array, dtype: npt.DTypeLike = np.float32) -> Array:
    """Pixels 0 to 255 as fractions in [0, 1]: pixels / 255, of the same shape and device.

    Args:
        images: uint8, any shape, NumPy or CuPy.
        dtype: a floating type. Default: float32.
    """
    return images.astype(dtype) / 255


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes, plain or gzip; its first two bytes tell which.

    Args:
        path: the file.
        dimensions: how many the array must have: 3 for images, 1 for labels.

    Returns:
        A uint8 array of the shape that the header gives.

    Raises:
        InputError: the file can't be read, or is not exactly such an array: wrong magic number,
            cut off, surplus bytes, damaged gzip, or more than `MAX_BYTES`.
    """
    try:
        # Opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: is not a file; expected an IDX file there")
        with path.open("rb") as file:
            is_gzip = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if not is_gzip:
                return _parse(path, file, dimensions)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _parse(path, unpacked, dimensions)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"{path}: is a damaged gzip file ({error}); expected a whole one; download it again"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror or error}); expected an IDX file there"
        ) from error


def _parse(path: Path, stream: io.BufferedIOBase, dimensions: int) -> npt.NDArray[np.uint8]:
    """Header, then data. Asks the stream for one byte more than the header says, and no more."""
    _check_magic(path, stream.read(4), dimensions)
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise InputError(
            f"{path}: is cut off within its header, after {4 + len(sizes)} bytes; "
            f"expected {4 + 4 * dimensions}; download it again"
        )
    shape = struct.unpack(f">{dimensions}I", sizes)
    _check_size(path, shape)
    expected = math.prod(shape)
    data = stream.read(expected + 1)
    if len(data) != expected:
        found = f"only {len(data)}" if len(data) < expected else "more"
        raise InputError(
            f"{path}: its header says {_times(shape)} = {expected} bytes of data, but there are "
            f"{found}; expected exactly as many; download it again"
        )
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def _check_magic(path: Path, magic: bytes, dimensions: int) -> None:
    expected = bytes((0, 0, 8, dimensions))
    if magic != expected:
        raise InputError(
            f"{path}: {_describe(magic)}; expected an IDX file of {dimensions} dimension(s), which "
            f"starts with {expected.hex(' ')}; check its name, or download it again"
        )


def _describe(magic: bytes) -> str:
    if not magic:
        return "is empty"
    if magic.startswith(b"<"):
        return "looks like an HTML page, as a failed download leaves it"
    kinds = {b"\0\0\x08\x01": "a labels file", b"\0\0\x08\x03": "an images file"}
    if magic in kinds:
        return f"looks like {kinds[magic]} (it starts with {magic.hex(' ')})"
    return f"has the wrong magic number (it starts with {magic.hex(' ')})"


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    # A size of 0 counts as 1: NumPy refuses huge sizes beside a 0 too.
    if math.prod(max(size, 1) for size in shape) > MAX_BYTES:
        raise InputError(
            f"{path}: its header says {_times(shape)} bytes; expected at most {MAX_BYTES} (1 GiB); "
            "the header is damaged, so download the file again"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _find_folder(directory: Path) -> Path:
    """The folder with the files: directory itself, or raw/ in it."""
    for folder in (directory, directory / "raw"):
        if any(_find(folder, name) for name in FILES):
            return folder
    wrong = "has no MNIST files" if os.path.isdir(directory) else "is not a folder"
    raise InputError(
        f"{directory}: {wrong}; looked there and in raw/ for {', '.join(FILES)}, each plain or as "
        ".gz; give the folder that holds them, or none for the bundled MNIST"
    )


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if os.path.lexists(path)), None)


def _require(folder: Path, name: str) -> Path:
    path = _find(folder, name)
    if path is None:
        raise InputError(
            f"{folder}: has no file {name} or {name}.gz; expected all four of MNIST's files there; "
            "add the missing one"
        )
    return path


def _read_split(folder: Path, prefix: str, at_least: int) -> Split:
    image_path = _require(folder, f"{prefix}-images-idx3-ubyte")
    label_path = _require(folder, f"{prefix}-labels-idx1-ubyte")
    images = read_idx(image_path, dimensions=3)
    labels = read_idx(label_path, dimensions=1)
    _check_images(image_path, images, at_least)
    if len(images) != len(labels):
        raise InputError(
            f"{label_path}: has {len(labels)} labels for the {len(images)} images in "
            f"{image_path.name}; expected one each; take both files from the same data set"
        )
    _check_labels(label_path, labels)
    return Split(images.reshape(-1, 784), labels.astype(np.int64))


def _check_images(path: Path, images: npt.NDArray[np.uint8], at_least: int) -> None:
    if images.shape[1:] != (28, 28):
        raise InputError(
            f"{path}: has images of {_times(images.shape[1:])} pixels; expected 28 x 28; "
            "scale them first"
        )
    if len(images) < at_least:
        raise InputError(
            f"{path}: has {len(images)} image(s); expected at least {at_least}, so that no split "
            "is empty; use a larger data set"
        )


def _check_labels(path: Path, labels: npt.NDArray[np.uint8]) -> None:
    wrong = np.flatnonzero(labels > 9)
    if wrong.size:
        raise InputError(
            f"{path}: the label at index {wrong[0]} is {labels[wrong[0]]}; expected 0 to 9; "
            "correct it, or use a data set of ten classes"
        )
