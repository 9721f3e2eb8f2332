"""A file is written whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scratchnet import files
from scratchnet.errors import InputError


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(28, "No space left on device"), InputError),
        (KeyboardInterrupt("now"), KeyboardInterrupt),
    ],
)
def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: BaseException,
    seen: type[BaseException],
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = tmp_path / "file"
    files.write(path, b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(seen, match=r"No space left|now"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_keeps_others_out_apart_from_those_that_share_it(tmp_path: Path) -> None:
    """A descriptor of its own is another's, in one process too."""
    for mine, others in [(False, False), (False, True), (True, False)]:
        refused = pytest.raises(InputError, match=f"^{tmp_path}: another process is at work here")
        with files.lock(tmp_path, shared=mine), refused, files.lock(tmp_path, shared=others):
            pass
    with files.lock(tmp_path, shared=True), files.lock(tmp_path, shared=True):
        pass


@pytest.mark.parametrize("name", ["absent/p.png", "file/p.png", "folder"])
def test_a_place_that_cannot_be_written_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with pytest.raises(InputError, match="can't be written") as caught:
        files.write(path, b"content")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
