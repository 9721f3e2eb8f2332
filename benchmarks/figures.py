"""Plots of the records, as SVG: the same bytes for the same record."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter

from benchmarks import ladder, summary
from benchmarks.summary import BASELINE, Parts, Record, Row
from benchmarks.tables import few, number
from scratchnet.plots import ACCENT, FAINT, INK

WIDTH = 9.0  # inches
ROW = 0.34  # inches, the height of a line of text with its bar
TEXT = 10  # points
GREY = "#8a929b"
SHADES = (
    "#1f5fa8", "#5b8fc9", "#9dbfe0", "#c98a3c", "#e6bf86", "#e6bf86", "#b8c4d0", "#e3e8ed",
)  # fmt: skip
LINES = {"scratchnet-numpy_inplace": "--", "scratchnet-layers": ":", "pytorch-whole-step": "--"}
STYLE: Any = {
    "svg.hashsalt": "scratchnet",  # identifiers that do not change from run to run
    "svg.fonttype": "none",
    "font.size": TEXT,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": FAINT,
    "legend.frameon": False,
}


def draw(record: Record) -> bytes | None:
    """The plot of a record; None if its experiment has none, or if nothing was timed."""
    make = FIGURES.get(record["experiment"])
    if make is None or not any(summary.best(point) for point in record["points"]):
        return None
    with matplotlib.rc_context(STYLE):
        content = io.BytesIO()
        make(record).savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


def _colour(name: str) -> str:
    if name.startswith("scratchnet-"):
        return ACCENT
    return INK if name == BASELINE else GREY


def _axes(height: float, left: float, right: float, bottom: float = 0.55) -> tuple[Figure, Axes]:
    """A figure of so many inches; margins in inches, so that texts fit whatever the height."""
    figure = Figure(figsize=(WIDTH, height))
    box = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (bottom + 0.5) / height)
    axes = figure.add_axes(box)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    return figure, axes


def _log(axis: matplotlib.axis.Axis, ticks: Sequence[float]) -> None:
    axis.set_ticks(list(ticks))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within a range."""
    candidates = [m * 10.0**k for k in range(-3, 8) for m in (1, 2, 5)]
    return [tick for tick in candidates if low <= tick <= high]


def _compare(record: Record) -> Figure:
    """A row for each contender: a ring for its fewest threads, a dot for its most; quartiles."""
    (point,) = record["points"]
    order = [row.name for row in summary.best(point)]
    rows = [row for row in summary.rows(point) if row.us]
    counts = sorted({row.threads for row in rows})
    figure, axes = _axes(1.1 + ROW * len(order), left=2.2, right=1.5)
    for row in rows:
        _dot(axes, row, order.index(row.name), filled=row.threads == counts[-1])
    _beside(axes, -0.75, "us", "speed", INK)
    for place, row in enumerate(summary.best(point)):
        speed = f"{row.speed.median:.1f}×" if row.speed else ""
        _beside(axes, place, number(summary.median(row)), speed, _colour(row.name))
    spreads = [row.us for row in rows if row.us]
    lowest = min(us.first_quartile for us in spreads)
    highest = max(us.third_quartile for us in spreads)
    axes.set_xscale("log")
    axes.set_xlim(lowest / 1.25, highest * 1.25)
    _log(axes.xaxis, _ticks(lowest / 1.25, highest * 1.25))
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(order)), order)
    for tick, name in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_color(_colour(name))
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel("microseconds an update; " + _marks(counts))
    axes.set_title(f"Time of an update, and speed relative to {BASELINE}", loc="left")
    return figure


def _beside(axes: Axes, place: float, us: str, speed: str, colour: str) -> None:
    """Two numbers at the right of a row, one below the other in each column."""
    for x, text in ((1.08, us), (1.18, speed)):
        _beside_at(axes, x, place, text, colour)


def _beside_at(axes: Axes, x: float, place: float, text: str, colour: str = INK) -> None:
    """A number at the right of a row, which ends at x of the width of the axes."""
    axes.text(
        x, place, text, transform=axes.get_yaxis_transform(), ha="right", va="center", color=colour
    )


def _marks(counts: Sequence[int]) -> str:
    names = [_threads(count) for count in counts]
    return f"ring: {names[0]}, dot: {names[-1]}" if len(names) > 1 else f"with {names[0]}"


def _dot(axes: Axes, row: Row, place: int, *, filled: bool) -> None:
    assert row.us
    colour = _colour(row.name)
    quartiles = [row.us.first_quartile, row.us.third_quartile]
    axes.plot(quartiles, [place, place], color=colour, linewidth=2.5, alpha=0.5)
    face = colour if filled else "white"
    axes.plot(row.us.median, place, "o", markersize=7, markerfacecolor=face, markeredgecolor=colour)


def _sweep(record: Record, size: str, shown: str) -> Figure:
    """Speed relative to the baseline, a curve for each contender with its name at the end."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for point in record["points"]:
        for row in summary.best(point):
            if row.speed:
                curves.setdefault(row.name, []).append((point["task"][size], row.speed.median))
    figure, axes = _axes(5.0, left=0.7, right=2.1)
    for name, curve in curves.items():
        xs, ys = zip(*curve, strict=True)
        axes.plot(
            xs, ys, marker="o", linestyle=LINES.get(name, "-"), color=_colour(name), markersize=4,
            linewidth=1.8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    speeds = [speed for curve in curves.values() for _, speed in curve]
    low, high = min([*speeds, 1.0]) / 1.15, max([*speeds, 1.0]) * 1.15
    axes.set_ylim(low, high)
    _log(axes.yaxis, _ticks(low, high))
    _log(axes.xaxis, [point["task"][size] for point in record["points"]])
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    ends = {name: curve[-1][1] for name, curve in curves.items()}
    for name, place in _apart(ends, (high / low) ** 0.045).items():
        axes.annotate(
            name, (1, place), xycoords=axes.get_yaxis_transform(), xytext=(8, 0),
            textcoords="offset points", va="center", color=_colour(name), annotation_clip=False,
        )  # fmt: skip
    axes.set_xlabel(shown)
    axes.set_title(f"Speed relative to {BASELINE}, each at its best number of threads", loc="left")
    return figure


def _apart(places: dict[str, float], factor: float) -> dict[str, float]:
    """Labels moved up until neighbours are at least a factor apart."""
    found: dict[str, float] = {}
    last = 0.0
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = found[name] = max(place, last * factor)
    return found


def _breakdown(record: Record) -> Figure:
    """A bar for each contender and number of threads; below, what the machine needs at least."""
    parts, limits = summary.parts(record), summary.at_best(record)
    stages = [
        stage
        for stage in summary.STAGES
        if any(each.stages.get(stage, 0) > 0.005 * each.total for each in parts)
    ]
    colours = dict(zip(summary.STAGES, SHADES, strict=True))
    rows = len(parts) + len(limits)
    on_gpu = "multiprocessors" in record["limits"][0]
    left = 3.4 if on_gpu else 2.8
    figure, axes = _axes(1.6 + 1.2 * ROW * rows, left=left, right=0.8, bottom=0.95)
    widest = max(each.total for each in parts)
    for place, each in enumerate(parts):
        _bar(axes, place, each, colours, widest)
    for place, limit in enumerate(limits, start=len(parts)):
        axes.barh(place, limit.us, height=0.7, facecolor="none", edgecolor=INK)
        axes.text(limit.us + 0.008 * widest, place, number(limit.us), va="center", weight="bold")
    for stage in stages:
        axes.barh(0, 0, color=colours[stage], label=stage)
    names = [each.name if on_gpu else f"{each.name}, {_threads(each.threads)}" for each in parts]
    names += [f"the products at best, {limit.where}" for limit in limits]
    axes.set_yticks(range(rows), names)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, widest * 1.02)
    axes.set_xlabel("microseconds an update")
    axes.set_title("Where the time of an update goes", loc="left")
    figure.legend(loc="lower left", ncols=len(stages), handlelength=1, columnspacing=1.5)
    return figure


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _bar(axes: Axes, place: int, each: Parts, colours: dict[str, str], widest: float) -> None:
    start = 0.0
    for stage, us in each.stages.items():
        axes.barh(place, us, left=start, height=0.7, color=colours[stage])
        if us > 0.07 * widest:
            dark = stage in ("gather", "forward", "backward")
            axes.text(
                start + us / 2, place, number(us), ha="center", va="center", size=TEXT - 1,
                color="white" if dark else INK,
            )  # fmt: skip
        start += us
    axes.text(start + 0.008 * widest, place, number(each.total), va="center", weight="bold")


def _ladder(record: Record) -> Figure:
    """A row for each rung that was timed: GPU and wall time, and where its own limit is."""
    timed = [(row, row.times) for row in ladder.rows(record) if row.times]
    figure, axes = _axes(1.3 + 1.2 * ROW * len(timed), left=2.0, right=3.1)
    for place, (row, times) in enumerate(timed):
        gpu, wall = times.gpu.median, times.wall.median
        axes.plot([gpu, wall], [place, place], color=ACCENT, linewidth=2, alpha=0.5)
        axes.plot(wall, place, "o", markersize=7, markerfacecolor="white", markeredgecolor=ACCENT)
        axes.plot(gpu, place, "o", markersize=7, color=ACCENT)
        axes.plot(times.own, place, "|", markersize=14, markeredgewidth=2, color=INK)
        moved, share = number(row.traffic.moved / 1e3), f"{times.own / gpu:.0%}"
        _columns(axes, place, number(gpu), few(row.traffic.launches), moved, share)
    _columns(axes, -0.75, "us", "launches", "kB moved", "of limit")
    everything = [x for _, t in timed for x in (t.gpu.median, t.wall.median, t.own)]
    low, high = min(everything) / 1.4, max(everything) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _log(axes.xaxis, _ticks(low, high))
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(timed)), [row.name for row, _ in timed])
    axes.set_ylim(len(timed) - 0.4, -0.6)
    axes.set_xlabel("microseconds; dot: GPU, ring: wall, bar: limit")
    axes.set_title("Time of an update, rung by rung", loc="left")
    return figure


def _columns(axes: Axes, place: float, *cells: str) -> None:
    for number_of_column, cell in enumerate(cells):
        _beside_at(axes, 1.12 + 0.2 * number_of_column, place, cell)


FIGURES: dict[str, Callable[[Record], Figure]] = {
    "compare": _compare,
    "sweep-batch": lambda record: _sweep(record, "batch_size", "batch size"),
    "sweep-hidden": lambda record: _sweep(record, "hidden", "hidden units"),
    "breakdown": _breakdown,
    "ladder": _ladder,
}
