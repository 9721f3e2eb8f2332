"""Pictures of a training run, each drawn into a PNG file about 1000 pixels wide.

The figures are made without pyplot, so nothing here opens a window or changes Matplotlib's state.
All arrays are NumPy arrays.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from scratchnet import files
from scratchnet.backend import Array

WIDTH = 10.0  # inches
DPI = 100
INK, FAINT, ACCENT = "#222222", "#b8c4d0", "#1f5fa8"
TITLE, TEXT = 15, 12  # points
MOST_UNITS = 100
UNITS_A_ROW = 10
TILE = 30  # pixels: an image and its margin
MISTAKES = 25
MISTAKES_A_ROW = 5

Floats = npt.NDArray[np.float64]


def losses(
    path: Path,
    losses: Sequence[float] | Array,
    learning_rates: Sequence[float] | Array,
    steps_per_epoch: int,
) -> None:
    """Draw each step's loss, its running mean, and the learning rate below.

    Args:
        path: the PNG file to write.
        losses: (steps,), at least one; a loss that is not finite leaves a gap.
        learning_rates: (steps,).
        steps_per_epoch: where the lines between epochs go.

    Raises:
        InputError: the file can't be written.
    """
    loss = np.array(losses, np.float64)
    loss[~np.isfinite(loss)] = np.nan
    figure = _figure(height=6)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    upper.set_title(_loss_title(loss), fontsize=TITLE, loc="left")
    _draw_losses(upper, loss)
    lower.plot(np.arange(1, len(loss) + 1), learning_rates, marker=_marker(loss), color=ACCENT)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    lower.set_ylabel("learning rate", fontsize=TEXT)
    lower.set_xlabel(f"step ({steps_per_epoch:,} an epoch)", fontsize=TEXT)
    for axes in (upper, lower):
        _clean(axes)
        axes.set_ylim(bottom=0)
        for border in range(steps_per_epoch, len(loss), steps_per_epoch):
            axes.axvline(border + 0.5, color=INK, linewidth=0.8, linestyle=":")
    figure.align_ylabels()
    _save(figure, path)


def weights(path: Path, weight: Array) -> None:
    """Draw the first layer's weights as an image for each hidden unit.

    Args:
        path: the PNG file to write.
        weight: (H, 784); of more than 100 units the first 100 are drawn.

    Raises:
        InputError: the file can't be written.
    """
    shown = weight[:MOST_UNITS]
    count = f"{len(weight)}" if len(shown) == len(weight) else f"{len(shown)} of {len(weight)}"
    mosaic = _mosaic(shown.reshape(-1, 28, 28))
    figure = _figure(height=0.6 + 0.9 * mosaic.shape[0] / TILE)
    axes = figure.subplots()
    limit = _limit(shown)
    image = axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(f"First-layer weights of each hidden unit ({count})", fontsize=TITLE, loc="left")
    axes.set_axis_off()
    bar = figure.colorbar(image, extend="both", extendfrac=0.03, pad=0.01, fraction=0.03)
    bar.set_label("weight", fontsize=TEXT)
    bar.ax.tick_params(labelsize=TEXT, color=FAINT)
    bar.outline.set_visible(False)
    _save(figure, path)


def confusion(path: Path, target: Array, predicted: Array) -> None:
    """Draw how many images of each digit were read as which.

    The right answers stay grey: they are many, and the colours are there for the mistakes.

    Args:
        path: the PNG file to write.
        target: (N,) int, the true labels, 0 to 9.
        predicted: (N,) int, the labels read, 0 to 9.

    Raises:
        InputError: the file can't be written.
    """
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (target, predicted), 1)
    wrong = np.where(np.eye(10, dtype=bool), np.nan, counts)
    colours = matplotlib.colormaps["Oranges"].with_extremes(bad="#e3e8ed")
    figure = _figure(height=8.6)
    axes = figure.subplots()
    axes.imshow(wrong, cmap=colours, vmin=0, vmax=1.6 * max(1, np.nanmax(wrong)))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            weight = "bold" if row == column else "normal"
            axes.text(
                column, row, f"{count:,}", ha="center", va="center", size=TEXT + 1, weight=weight
            )
    axes.set_title(_accuracy(counts), fontsize=TITLE, loc="left")
    axes.set_xlabel("read as", fontsize=TEXT + 1, labelpad=8)
    axes.set_ylabel("true digit", fontsize=TEXT + 1, labelpad=8)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    _clean(axes)
    axes.tick_params(length=0, labelsize=TEXT + 1)
    _save(figure, path)


def mistakes(path: Path, images: Array, target: Array, probabilities: Array) -> None:
    """Draw the 25 images that were misread with the highest loss, worst first.

    Args:
        path: the PNG file to write.
        images: (N, 784), 0 background to any maximum.
        target: (N,) int, the true labels.
        probabilities: (N, 10), the network's for each digit.

    Raises:
        InputError: the file can't be written.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != target)
    # The loss is -log of the true label's probability, so the least probable is the worst.
    worst = wrong[np.argsort(probabilities[wrong, target[wrong]], kind="stable")][:MISTAKES]
    rows = -(-len(worst) // MISTAKES_A_ROW)
    figure = _figure(height=0.6 + 2.3 * rows)
    title = _headline(len(worst), len(wrong), len(target))
    figure.suptitle(title, fontsize=TITLE, x=0.02, ha="left")
    for place, index in enumerate(worst, start=1):
        axes = figure.add_subplot(rows, MISTAKES_A_ROW, place)
        axes.imshow(images[index].reshape(28, 28), cmap="gray_r", interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#dddddd")
        confidence = probabilities[index, predicted[index]]
        label = f"{target[index]} read as {predicted[index]}\n{confidence:.1%} sure"
        axes.set_title(label, fontsize=TEXT)
    _save(figure, path)


def _figure(height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, compress=True)
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout, facecolor="white")


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    files.write(path, picture.getvalue())


def _clean(axes: Axes) -> None:
    """No frame, quiet ticks."""
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=TEXT, color=FAINT, labelcolor=INK)


def _draw_losses(axes: Axes, loss: Floats) -> None:
    step = np.arange(1, len(loss) + 1)
    window = max(1, len(loss) // 25)
    mean = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    middle = step[: len(mean)] + (window - 1) / 2
    label = f"running mean (window {window:,})"
    marker = _marker(loss)
    axes.plot(step, loss, marker=marker, color=FAINT, linewidth=0.8, label="each step")
    axes.plot(middle, mean, marker=marker, color=ACCENT, linewidth=2, label=label)
    axes.set_ylabel("loss", fontsize=TEXT)
    axes.grid(axis="y", color="#eeeeee")
    axes.legend(frameon=False, fontsize=TEXT, loc="upper right")


def _marker(values: Floats) -> str:
    return "o" if len(values) == 1 else ""  # a line through one point can't be seen


def _loss_title(loss: Floats) -> str:
    missing = np.flatnonzero(np.isnan(loss))
    if missing.size:
        return f"Training loss, not finite at step {missing[0] + 1:,}"
    return "Training loss"


def _mosaic(images: Array) -> Array:
    """(H, 28, 28) images in rows of ten, two pixels apart, as one image; NaN between them."""
    rows = -(-len(images) // UNITS_A_ROW)
    tiles = np.full((rows * UNITS_A_ROW, TILE, TILE), np.nan)
    tiles[: len(images), 1:-1, 1:-1] = images
    grid = tiles.reshape(rows, UNITS_A_ROW, TILE, TILE).swapaxes(1, 2)
    return grid.reshape(rows * TILE, UNITS_A_ROW * TILE)


def _limit(weight: Array) -> float:
    """The colour scale's end, so that a few extreme weights don't bleach all others."""
    finite = np.abs(weight[np.isfinite(weight)])
    return float(np.percentile(finite, 99.5)) or 1.0 if finite.size else 1.0


def _accuracy(counts: npt.NDArray[np.int64]) -> str:
    right, total = int(counts.trace()), int(counts.sum())
    return f"Accuracy {right / max(1, total):.2%}: {right:,} of {total:,} images read right"


def _headline(shown: int, wrong: int, total: int) -> str:
    if not wrong:
        return f"No mistakes in {total:,} images"
    if shown == wrong:
        return f"All mistakes in {total:,} images: {wrong}"
    return f"The worst {shown} of {wrong:,} mistakes in {total:,} images"
