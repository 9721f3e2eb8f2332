"""Would the tests of the kernels notice? One mistake at a time is planted into their sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scratchnet import engines
from scratchnet.training import Options, Run
from tests.cuda import emulator
from tests.cuda.engines import AMPERE, Form, running
from tests.cuda.plants import CLUSTER, FUSED, GRID, MISSING_WAITS, WRONG_FORMULAS, Plant
from tests.test_cuda import SEEDS
from tests.test_engines import assert_within_bounds, copy
from tests.test_training import some_images

pytestmark = pytest.mark.skipif(bool(emulator.why_not()), reason=str(emulator.why_not()))

FORM_OF = {
    CLUSTER: Form("cuda_epoch", largest=8),
    GRID: Form("cuda_epoch", AMPERE),
    FUSED: Form("cuda_fused"),
}


def outcome(form: str, seed: int) -> list[bytes]:
    """All bits after six updates; or an error of the kernel, which is none of them."""
    options = Options("one-cycle", epochs=2, batch_size=32, hidden=12)
    run = Run(options, some_images(2, 75), "cpu")
    with emulator.settings(seed=seed):
        try:
            losses = engines.make(FORM_OF[form].engine, run).advance(0, 6)
        except emulator.KernelError as error:
            return [str(error).encode()]
    return [np.array(losses).tobytes(), *(array.tobytes() for array in copy(run))]


@pytest.fixture(scope="module")
def rights() -> dict[str, list[bytes]]:
    """What comes of the kernels as they are, by form."""
    found: dict[str, list[bytes]] = {}
    for form in {plant.form for plant in MISSING_WAITS}:
        with running(FORM_OF[form]):
            found[form] = outcome(form, 0)
    return found


@pytest.mark.parametrize("plant", MISSING_WAITS, ids=lambda plant: plant.name)
def test_who_does_not_wait_is_caught_under_some_schedule(
    plant: Plant, rights: dict[str, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "KERNELS", plant.copy_kernels(tmp_path))
    with running(FORM_OF[plant.form]):
        caught = any(outcome(plant.form, seed) != rights[plant.form] for seed in SEEDS)
    assert caught != bool(plant.harmless)


@pytest.mark.parametrize("plant", WRONG_FORMULAS, ids=lambda plant: plant.name)
def test_a_wrong_formula_is_outside_the_bounds(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "KERNELS", plant.copy_kernels(tmp_path))
    with running(FORM_OF[plant.form]), pytest.raises((AssertionError, emulator.KernelError)):
        judge(FORM_OF[plant.form].engine)


def judge(engine: str) -> None:
    """In single steps, and in several, where float64 knows no difference above 1e-9."""
    split = some_images(2, 75)
    for recipe in ("one-cycle", "tutorial"):
        options = Options(recipe, epochs=2, batch_size=32, hidden=12)
        assert_within_bounds(engine, options, split, np.float32, 1, 4)
    ours, layers = (Run(options, split, "cpu", np.float64) for _ in range(2))
    losses = engines.make(engine, ours).advance(0, 3)
    expected = engines.make("layers", layers).advance(0, 3)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORM_OF.values(), ids=str)
def test_where_nothing_is_planted_there_is_nothing_to_find(form: Form) -> None:
    with running(form):
        if form.engine == "cuda_epoch":
            assert_within_bounds(
                form.engine, Options(batch_size=32, hidden=12), some_images(2, 75), np.float32, 1, 3
            )
        else:
            judge(form.engine)
