"""Each plot is a readable PNG, whatever the run was like, and never half a one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from scratchnet import plots
from scratchnet.backend import Array

RNG = np.random.default_rng(0)


def assert_png(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width == 1000
    assert list(path.parent.iterdir()) == [path]


def figure_of(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], None]) -> Figure:
    """The figure that is saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def spy(figure: Figure, *args: object, **options: object) -> None:
        saved.append(figure)
        save(figure, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", spy)
    draw()
    return saved[0]


def texts(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], None]) -> list[str]:
    """All that is written in a figure."""
    artists = figure_of(monkeypatch, draw).findobj(match=lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in artists]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "losses",
    [[2.3], [2.3, 1.1], [2.0] * 60, [2.0] * 60 + [np.inf, np.nan], [np.nan] * 3],
    ids=["one step", "two", "three epochs", "diverged", "never finite"],
)
def test_losses(losses: list[float], tmp_path: Path) -> None:
    plots.losses(tmp_path / "p.png", losses, [1e-3] * len(losses), steps_per_epoch=20)
    assert_png(tmp_path / "p.png")


def test_losses_says_where_they_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([2.0] * 100 + [np.nan] * 5)
    found = texts(
        monkeypatch, lambda: plots.losses(tmp_path / "p.png", values, values, steps_per_epoch=50)
    )
    assert "Training loss, not finite at step 101" in found
    assert "running mean (window 4)" in found


def networks(
    count: int, steps: int, diverged: tuple[int, ...] = ()
) -> tuple[list[int], list[list[float]], list[float]]:
    """Seeds from 5 on, losses, and accuracies that rise with the seed; a third of the losses of
    those that diverged."""
    losses = [RNG.uniform(0.1, 2, steps).tolist() for _ in range(count)]
    accuracies = [0.9 + 0.0123 * i / count for i in range(count)]
    for i in diverged:
        losses[i], accuracies[i] = [*losses[i][: steps // 3], 1e30], np.nan
    return list(range(5, 5 + count)), losses, accuracies


@pytest.mark.parametrize("steps", [1, 2, 10, 80])
@pytest.mark.parametrize(
    ("count", "diverged"),
    [(1, ()), (2, ()), (2, (0,)), (3, (0, 1, 2)), (16, ()), (33, (1, 4)), (64, ())],
)
def test_seeds(steps: int, count: int, diverged: tuple[int, ...], tmp_path: Path) -> None:
    plots.seeds(tmp_path / "p.png", *networks(count, steps, diverged), steps_per_epoch=steps)
    assert_png(tmp_path / "p.png")


def test_seeds_that_diverge_before_the_first_loss(tmp_path: Path) -> None:
    plots.seeds(tmp_path / "p.png", [1, 2], [[], []], [np.nan, np.nan], steps_per_epoch=20)
    assert_png(tmp_path / "p.png")


def test_seeds_draws_each_running_mean_and_their_median(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the scale of those that did not diverge. Two losses are too few for a whole window."""
    seeds, losses, accuracies = networks(5, 100, diverged=(2, 4))
    losses[4] = losses[4][:2]
    figure = figure_of(
        monkeypatch,
        lambda: plots.seeds(tmp_path / "p.png", seeds, losses, accuracies, steps_per_epoch=100),
    )
    left = figure.axes[0]
    curves = [np.array(line.get_ydata()) for line in left.lines]
    # 25 windows of a hundred steps: 4 each.
    means = [[np.mean(loss[i : i + 4]) for i in range(max(1, len(loss) - 3))] for loss in losses]
    kept = [means[i] for i in (0, 1, 3)]
    for curve, mean in zip(curves, [*means, np.median(kept, axis=0)], strict=True):
        np.testing.assert_allclose(curve, mean, rtol=1e-12)  # sums of 4 numbers, rounded
    np.testing.assert_array_equal(left.lines[0].get_xdata(), np.arange(97) + 2.5)
    assert np.max(kept) < left.get_ylim()[1] < 2.2
    assert left.get_ylim()[0] == 0


def test_seeds_writes_every_accuracy_and_the_median(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = [0.9, np.nan, 0.95, 0.921, 0.93]
    losses = [[1.0] * 10] * 5
    found = texts(
        monkeypatch,
        lambda: plots.seeds(tmp_path / "p.png", [7, 8, 9, 10, 11], losses, accuracies, 10),
    )
    assert "Training loss of 5 networks" in found
    assert {"90.00%", "95.00%", "92.10%", "93.00%"} <= set(found)
    assert "median 92.55% (dashed), 1 diverged" in found
    rows = list(dict.fromkeys(text for text in found if text.startswith("seed")))
    assert rows == ["seed 8", "seed 7", "seed 10", "seed 11", "seed 9"], "from the bottom up"


def test_of_many_seeds_only_the_best_and_the_worst_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = texts(
        monkeypatch,
        lambda: plots.seeds(tmp_path / "p.png", *networks(33, 10, diverged=(0,)), 10),
    )
    named = [text for text in found if "seed" in text]
    assert sorted(named) == ["90.04% (seed 6)", "91.19% (seed 37)"]
    found = texts(monkeypatch, lambda: plots.seeds(tmp_path / "p.png", *networks(32, 10), 10))
    assert {f"seed {seed}" for seed in range(5, 37)} <= set(found)


@pytest.mark.parametrize(("units", "count"), [(1, "1"), (50, "50"), (101, "100 of 101")])
def test_weights(units: int, count: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = RNG.normal(size=(units, 784)).astype(np.float32)
    found = texts(monkeypatch, lambda: plots.weights(tmp_path / "p.png", weight))
    assert f"First-layer weights of each hidden unit ({count})" in found
    assert_png(tmp_path / "p.png")


@pytest.mark.parametrize("value", [0, np.nan])
def test_weights_without_a_scale(value: float, tmp_path: Path) -> None:
    plots.weights(tmp_path / "p.png", np.full((3, 784), value))
    assert_png(tmp_path / "p.png")


@pytest.mark.parametrize("units", [1, 10, 11])
def test_mosaic_holds_each_image_once(units: int) -> None:
    images = RNG.normal(size=(units, 28, 28))
    mosaic = plots._mosaic(images)
    for unit, image in enumerate(images):
        top, left = 30 * (unit // 10) + 1, 30 * (unit % 10) + 1
        assert np.array_equal(mosaic[top : top + 28, left : left + 28], image)
    assert np.isfinite(mosaic).sum() == images.size


def test_confusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = np.array([3] * 41 + [5] * 59)
    predicted = np.array([3] * 41 + [3] * 29 + [5] * 30)
    found = texts(monkeypatch, lambda: plots.confusion(tmp_path / "p.png", target, predicted))
    assert "Accuracy 71.00%: 71 of 100 images read right" in found
    assert {"41", "29", "30"} <= set(found)
    assert_png(tmp_path / "p.png")


@pytest.mark.parametrize("count", [0, 100])
def test_confusion_without_mistakes(count: int, tmp_path: Path) -> None:
    labels = np.arange(count) % 10
    plots.confusion(tmp_path / "p.png", labels, labels)
    assert_png(tmp_path / "p.png")


def readings(count: int, wrong: int) -> tuple[Array, Array, Array]:
    """Images, targets, and probabilities of which the first `wrong` are mistakes, worst first."""
    target = np.arange(count) % 10
    probabilities = np.full((count, 10), 0.05)
    probabilities[np.arange(count), target] = 0.55
    for i in range(wrong):
        probabilities[i, [target[i], (target[i] + 1) % 10]] = 0.001 * i, 0.6 - 0.001 * i
    return RNG.integers(0, 256, (count, 784), np.uint8), target, probabilities


@pytest.mark.parametrize(
    ("wrong", "headline"),
    [
        (0, "No mistakes in 1,000 images"),
        (1, "All mistakes in 1,000 images: 1"),
        (25, "All mistakes in 1,000 images: 25"),
        (26, "The worst 25 of 26 mistakes in 1,000 images"),
    ],
)
def test_mistakes(
    wrong: int, headline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = readings(1000, wrong)
    found = texts(monkeypatch, lambda: plots.mistakes(tmp_path / "p.png", *arrays))
    labels = [text for text in found if "read as" in text]
    assert headline in found
    assert labels == [
        f"{i % 10} read as {(i + 1) % 10}\n{0.6 - 0.001 * i:.1%} sure"
        for i in range(min(wrong, 25))
    ]
    assert_png(tmp_path / "p.png")
