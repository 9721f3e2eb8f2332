"""The IDX reader gives exactly what was written, or an InputError; never anything else."""

import contextlib
import gzip
import hashlib
import shutil
import struct
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.datasets import MNIST

from scratchnet import backend, mnist
from scratchnet.errors import InputError

Bytes = npt.NDArray[np.uint8]

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6))


def idx(array: Bytes) -> bytes:
    """The IDX file of an array."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def header(*sizes: int) -> bytes:
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)


@contextlib.contextmanager
def temporary_file(content: bytes) -> Iterator[Path]:
    """A file for one Hypothesis example; tmp_path is one folder for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file-idx-ubyte"
        path.write_bytes(content)
        yield path


def write_data_set(folder: Path, count: int = 6) -> Path:
    """A good data set of zeros, small enough to damage in a hundred ways."""
    folder.mkdir(exist_ok=True)
    for name in mnist.FILES:
        shape = (count, 28, 28) if "images" in name else (count,)
        (folder / name).write_bytes(idx(np.zeros(shape, np.uint8)))
    return folder


# What is read


@pytest.mark.parametrize("name", mnist.FILES)
def test_bundled_files_are_the_original_ones(name: str) -> None:
    content = gzip.decompress((mnist.BUNDLED / f"{name}.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == MD5[name]


def test_splits_of_the_bundled_set() -> None:
    data = mnist.load()
    for split, count in ((data.train, 50_000), (data.validation, 10_000), (data.test, 10_000)):
        assert split.images.shape == (count, 784)
        assert split.images.dtype == np.uint8
        assert split.labels.shape == (count,)
        assert split.labels.dtype == np.int64
        assert set(split.labels) == set(range(10))


def test_equals_torchvision(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in mnist.FILES:
        with gzip.open(mnist.BUNDLED / f"{name}.gz") as packed, (raw / name).open("wb") as file:
            shutil.copyfileobj(packed, file)
    whole = MNIST(tmp_path, train=True, download=False)
    test = MNIST(tmp_path, train=False, download=False)

    data = mnist.load(tmp_path / "MNIST")
    images = np.concatenate([data.train.images, data.validation.images])
    labels = np.concatenate([data.train.labels, data.validation.labels])
    assert np.array_equal(images, whole.data.numpy().reshape(-1, 784))
    assert np.array_equal(labels, whole.targets.numpy())
    assert np.array_equal(data.test.images, test.data.numpy().reshape(-1, 784))
    assert np.array_equal(data.test.labels, test.targets.numpy())


def test_last_sixth_is_the_validation_split(tmp_path: Path) -> None:
    folder = write_data_set(tmp_path, count=13)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(13, dtype=np.uint8) % 10))
    data = mnist.load(folder)
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert data.validation.labels.tolist() == [1, 2]


def test_plain_is_taken_before_gz_and_the_folder_before_raw(tmp_path: Path) -> None:
    write_data_set(tmp_path / "raw", count=60)
    assert len(mnist.load(tmp_path).test.labels) == 60
    write_data_set(tmp_path, count=6)
    for name in mnist.FILES:
        (tmp_path / f"{name}.gz").write_bytes(b"not to be opened")
    assert len(mnist.load(tmp_path).test.labels) == 6


def test_to_float_divides_by_255(xp: ModuleType) -> None:
    pixels = xp.arange(256, dtype=np.uint8).reshape(2, 128)
    for dtype in ("float32", "float64"):
        result = backend.to_numpy(mnist.to_float(pixels, dtype))
        assert result.dtype == dtype
        assert np.array_equal(result.ravel(), np.arange(256).astype(dtype) / 255)
    assert mnist.to_float(pixels).dtype == np.float32


# What is refused


@given(arrays)
def test_round_trip(array: Bytes) -> None:
    for content in (idx(array), gzip.compress(idx(array))):
        with temporary_file(content) as path:
            result = mnist.read_idx(path, array.ndim)
        assert result.shape == array.shape
        assert np.array_equal(result, array)


@given(arrays, st.booleans(), st.data())
def test_a_cut_file_is_always_refused(array: Bytes, packed: bool, data: st.DataObject) -> None:
    whole = gzip.compress(idx(array)) if packed else idx(array)
    length = data.draw(st.integers(0, len(whole) - 1))
    with temporary_file(whole[:length]) as path, pytest.raises(InputError):
        mnist.read_idx(path, array.ndim)


@given(arrays, st.data())
def test_a_flipped_byte_of_a_gzip_never_gives_wrong_data(array: Bytes, data: st.DataObject) -> None:
    damaged = bytearray(gzip.compress(idx(array)))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    with temporary_file(bytes(damaged)) as path:
        try:
            result = mnist.read_idx(path, array.ndim)
        except InputError:
            return
    # Some bytes of a gzip's header, such as its time stamp, change nothing.
    assert np.array_equal(result, array)


IMAGES = idx(np.zeros((6, 28, 28), np.uint8))
LABELS = idx(np.zeros(6, np.uint8))
BAD_CRC = gzip.compress(IMAGES)[:-8] + bytes(8)

# The file to replace, what it then holds, and words of the message.
BAD_FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "empty": ("train-images-idx3-ubyte", b"", ["is empty"]),
    "labels as images": ("train-images-idx3-ubyte", LABELS, ["labels file", "00 00 08 03"]),
    "images as labels": ("t10k-labels-idx1-ubyte", IMAGES, ["images file", "00 00 08 01"]),
    "web page": ("t10k-images-idx3-ubyte", b"<!DOCTYPE html>", ["HTML", "download"]),
    "other type": ("t10k-images-idx3-ubyte", b"\0\0\x0d\3" + IMAGES[4:], ["00 00 0d 03"]),
    "gzip's magic": ("t10k-images-idx3-ubyte", b"\0" + BAD_CRC[1:], ["wrong magic", "00 8b 08"]),
    "gzip's header": ("t10k-images-idx3-ubyte", b"\x1f\x8b\7" + BAD_CRC[3:], ["damaged gzip"]),
    "gzip's CRC": ("t10k-images-idx3-ubyte", BAD_CRC, ["damaged gzip", "CRC"]),
    "gzip's end": ("t10k-images-idx3-ubyte", BAD_CRC[:-9], ["damaged gzip", "ended"]),
    "gzip's tail": ("t10k-images-idx3-ubyte", gzip.compress(IMAGES) + b"?", ["damaged gzip"]),
    "cut header": ("train-images-idx3-ubyte", IMAGES[:9], ["after 9 bytes", "expected 16"]),
    "cut data": ("train-images-idx3-ubyte", IMAGES[:-1], ["6 x 28 x 28 = 4704", "only 4703"]),
    "surplus": ("train-labels-idx1-ubyte", LABELS + b"\0", ["6 = 6 bytes", "there are more"]),
    "huge": ("train-images-idx3-ubyte", header(2**32 - 1, 28, 28), ["1 GiB", "4294967295"]),
    "huge with 0": ("train-images-idx3-ubyte", header(2**32 - 1, 2**32 - 1, 0), ["1 GiB"]),
    "counts": ("train-labels-idx1-ubyte", idx(np.zeros(7, np.uint8)), ["7 labels", "6 images"]),
    "label 10": ("t10k-labels-idx1-ubyte", LABELS[:-2] + b"\x0a\0", ["index 4 is 10", "0 to 9"]),
    "size": (
        "t10k-images-idx3-ubyte",
        idx(np.zeros((6, 32, 20), np.uint8)),
        ["32 x 20", "28 x 28"],
    ),
    "few": ("train-images-idx3-ubyte", idx(np.zeros((5, 28, 28), np.uint8)), ["5 image(s)", "6"]),
    "none": ("t10k-images-idx3-ubyte", header(0, 28, 28), ["0 image(s)", "at least 1"]),
}


def assert_one_line(error: BaseException, *words: str) -> None:
    message = str(error)
    assert "\n" not in message
    assert "expected" in message or "looked" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("name", "content", "words"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    path = write_data_set(tmp_path) / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        mnist.load(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert_one_line(caught.value, *words)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (make_folder, ["is not a file"]),
        (make_loop, ["can't be read", "symbolic links"]),
        (Path.unlink, ["has no file", "t10k-images-idx3-ubyte.gz"]),
    ],
)
def test_unreadable_file(tmp_path: Path, damage: Callable[[Path], None], words: list[str]) -> None:
    path = write_data_set(tmp_path) / "t10k-images-idx3-ubyte"
    damage(path)
    with pytest.raises(InputError) as caught:
        mnist.load(tmp_path)
    assert_one_line(caught.value, str(tmp_path), "t10k-images-idx3-ubyte", *words)


def test_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    write_data_set(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)  # root may read any file, whatever its mode
    with pytest.raises(InputError) as caught:
        mnist.load(tmp_path)
    assert_one_line(caught.value, str(tmp_path), "can't be read", "Permission denied")


@pytest.mark.parametrize(
    ("folder", "wrong"), [("", "has no MNIST files"), ("absent", "is not a folder")]
)
def test_folder_without_files(tmp_path: Path, folder: str, wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        mnist.load(tmp_path / folder)
    assert_one_line(caught.value, str(tmp_path / folder), wrong, "raw/", *mnist.FILES)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(header(1, 28, 28) + bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="there are more"):
            mnist.read_idx(bomb, dimensions=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000  # the reader's buffers, not the 50 MB
