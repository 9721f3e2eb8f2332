"""Pictures of a training run, each drawn into a PNG file about 1000 pixels wide.

The figures are made without pyplot, so nothing here opens a window or changes Matplotlib's state.
All arrays are NumPy arrays.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from scratchnet import files
from scratchnet.backend import Array

WIDTH = 10.0  # inches
DPI = 100
INK, FAINT, ACCENT, ALARM = "#222222", "#b8c4d0", "#1f5fa8", "#c2571a"
TITLE, TEXT = 15, 12  # points
MOST_UNITS = 100
UNITS_A_ROW = 10
TILE = 30  # pixels: an image and its margin
MISTAKES = 25
MISTAKES_A_ROW = 5
MOST_NAMED = 32  # networks

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


def seeds(
    path: Path,
    seeds: Sequence[int],
    losses: Sequence[Sequence[float]],
    accuracies: Sequence[float],
    steps_per_epoch: int,
) -> None:
    """Draw the loss curves of several networks with their median, and beside them the accuracies.

    Of up to 32 networks each accuracy is written out, of more the lowest and the highest.

    Args:
        path: the PNG file to write.
        seeds: (K,), at least one.
        losses: K times (steps,), finite; of a network that diverged, those before it did.
        accuracies: (K,) on the validation images; nan for a network that diverged.
        steps_per_epoch: for the axis.

    Raises:
        InputError: the file can't be written.
    """
    named = len(seeds) <= MOST_NAMED
    figure = _figure(height=max(5.0, 1.4 + 0.25 * len(seeds)) if named else 7.0)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_curves(left, losses, np.isnan(accuracies))
    left.set_title(f"Training loss of {len(seeds)} networks", fontsize=TITLE, loc="left")
    left.set_xlabel(f"step ({steps_per_epoch:,} an epoch)", fontsize=TEXT)
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _draw_accuracies(right, seeds, np.array(accuracies), named)
    for axes in (left, right):
        _clean(axes)
    right.tick_params(axis="y", length=0)
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
    step, window = np.arange(1, len(loss) + 1), _window(len(loss))
    middle, mean = _running_mean(loss, window)
    label = f"running mean (window {window:,})"
    marker = _marker(loss)
    axes.plot(step, loss, marker=marker, color=FAINT, linewidth=0.8, label="each step")
    axes.plot(middle, mean, marker=marker, color=ACCENT, linewidth=2, label=label)
    axes.set_ylabel("loss", fontsize=TEXT)
    axes.grid(axis="y", color="#eeeeee")
    axes.legend(frameon=False, fontsize=TEXT, loc="upper right")


def _window(steps: int) -> int:
    return max(1, steps // 25)


def _running_mean(loss: Floats, window: int) -> tuple[Floats, Floats]:
    """The middle of each window of so many steps, which count from 1, and the mean loss in it."""
    mean = np.convolve(loss, np.full(window, 1 / window), mode="valid")
    middle = np.arange(1, len(mean) + 1) + (window - 1) / 2
    return middle.astype(np.float64), mean


def _draw_curves(
    axes: Axes, losses: Sequence[Sequence[float]], diverged: npt.NDArray[np.bool_]
) -> None:
    """The running mean of each network's loss, on the scale of those that did not diverge."""
    window = _window(max(map(len, losses)))
    kept = []
    for loss, lost in zip(losses, diverged, strict=True):
        if not loss:
            continue
        middle, mean = _running_mean(np.array(loss), min(window, len(loss)))
        if lost:
            axes.plot(middle, mean, color=ALARM, marker="x", markevery=[-1], label="diverged")
        else:
            label = f"each, running mean (window {window:,})"
            axes.plot(middle, mean, color=FAINT, marker=_marker(mean), linewidth=1, label=label)
            kept.append((middle, mean))
    high, end = axes.get_ylim()[1], 0.0
    if kept:
        (middle, _), means = kept[0], [mean for _, mean in kept]
        median = np.median(means, axis=0)
        axes.plot(middle, median, color=ACCENT, marker=_marker(median), linewidth=3, label="median")
        high, end = 1.05 * np.max(means), median[-1]
    axes.set_ylim(0, high)
    axes.set_ylabel("loss", fontsize=TEXT)
    axes.grid(axis="y", color="#eeeeee")
    kinds = {str(line.get_label()): line for line in axes.lines}
    corner: Literal["upper right", "lower left"] = "upper right" if end < high / 2 else "lower left"
    axes.legend(kinds.values(), kinds, frameon=False, fontsize=TEXT, loc=corner)


def _draw_accuracies(axes: Axes, seeds: Sequence[int], accuracies: Floats, named: bool) -> None:
    """A network a row: the best at the top, those that diverged at the bottom."""
    order = np.argsort(np.nan_to_num(accuracies, nan=-1.0), kind="stable")
    accuracy, names = accuracies[order], [f"seed {seeds[i]}" for i in order]
    rows, lost = np.arange(len(order)), int(np.isnan(accuracy).sum())
    axes.set_title("Validation accuracy", fontsize=TITLE, loc="left")
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_yticks(rows if named else [], names if named else [])
    axes.xaxis.set_major_locator(MaxNLocator(3) if lost < len(rows) else NullLocator())
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=2))
    about = []
    if lost < len(rows):
        axes.plot(accuracy, rows, "o", color=ACCENT)
        for row in rows[lost:] if named else {lost, len(rows) - 1}:
            _write_beside(axes, accuracy[row], row, "" if named else f" ({names[row]})")
        median, room = np.nanmedian(accuracy), max(accuracy[-1] - accuracy[lost], 1e-3)
        axes.axvline(median, color=ACCENT, linewidth=1, linestyle="--", zorder=0)
        axes.set_xlim(accuracy[lost] - 0.2 * room, accuracy[-1] + 0.6 * room)
        about.append(f"median {median:.2%} (dashed)")
    if lost:
        across = axes.get_yaxis_transform()  # the width of the axes is 1
        axes.plot([0.04] * lost, rows[:lost], "x", color=ALARM, transform=across)
        about.append(f"{lost} diverged")
    axes.set_xlabel(", ".join(about), fontsize=TEXT)


def _write_beside(axes: Axes, accuracy: float, row: int, name: str) -> None:
    axes.annotate(
        f"{accuracy:.2%}{name}",
        (accuracy, row),
        (8, 0),
        textcoords="offset points",
        va="center",
        fontsize=TEXT,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


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
