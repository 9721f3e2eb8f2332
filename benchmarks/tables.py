"""A record as a Markdown table with what is needed to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks import statistics, summary
from benchmarks.summary import BASELINE, Record, Row

Cells = Sequence[str]


def table(record: Record) -> str:
    """The table, how to read it, who is not in it, and the machine and the command behind it."""
    body, note = TABLES[record["experiment"]](record)
    lines = [body, "", note]
    missing = summary.untimed(record)
    if missing:
        lines += ["", "Not timed: " + "; ".join(missing) + "."]
    return "\n".join([*lines, "", origin(record)])


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def origin(record: Record) -> str:
    """Machine, versions, date, command, and whether the machine was quiet."""
    machine = record["machine"]
    where = f"{machine['gpu']}, " if record["device"] == "cuda" else ""
    versions = ", ".join(
        f"{shown} {machine['packages'][name]}"
        for name, shown in (("numpy", "NumPy"), ("torch", "PyTorch"), ("jax", "JAX"))
        if name in machine["packages"]
    )
    commit = (machine["commit"] or "unknown")[:7]
    changes = " with uncommitted changes" if machine["uncommitted_changes"] else ""
    text = (
        f"{where}{machine['cpu']}, {machine['cores']} cores; Python {machine['python']}, "
        f"{versions}; commit {commit}{changes}, {record['date'][:10]}. `{record['command']}`"
    )
    noise = record["noise"]["relative_spread"]
    if record["noise"]["noisy"]:
        text += f" **The machine was noisy**: a loop that is always the same varied by {noise:.0%}."
    if record["interrupted"]:
        text += " **Interrupted**: not all that was asked for was measured."
    return text


def _markdown(header: Cells, rows: Iterable[Cells]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _spread(row: Row | None) -> str:
    if row is None or row.us is None:
        return "-"
    low, high = number(row.us.first_quartile), number(row.us.third_quartile)
    return f"{number(row.us.median)} ({low}-{high})"


def _speed(row: Row) -> str:
    if row.speed is None:
        return "-"
    return f"{row.speed.median:.2f} ({row.speed.low:.2f}-{row.speed.high:.2f})"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _compare(record: Record) -> tuple[str, str]:
    (point,) = record["points"]
    rows = {(row.name, row.threads): row for row in summary.rows(point)}
    counts = sorted({threads for _, threads in rows})
    lines = [
        [
            f"`{row.name}`",
            *(_spread(rows.get((row.name, count))) for count in counts),
            _speed(row),
            f"{row.memory / 2**20:.0f}",
        ]
        for row in summary.best(point)
    ]
    header = ["contender", *map(_threads, counts), f"× `{BASELINE}`", "MiB"]
    rounds = max((len(row.times) for row in rows.values()), default=0)
    return _markdown(header, lines), (
        f"{_task(point)}, {point['steps']:,} updates. Microseconds an update: median (quartiles) "
        f"of {rounds} rounds. ×: how many times as fast as `{BASELINE}`, each at its best number "
        "of threads, median of the rounds (its 95 % interval or, of fewer than six rounds, the "
        "range). MiB: most memory of the process, with libraries and data."
    )


def _task(point: Record) -> str:
    options = point["task"]
    return f"784-{options['hidden']}-10, batch {options['batch_size']}, recipe {options['recipe']}"


def _sweep(record: Record, size: str, shown: str) -> tuple[str, str]:
    points = record["points"]
    best = [{row.name: row for row in summary.best(point)} for point in points]
    names = sorted(
        {name for rows in best for name in rows},
        key=lambda name: [summary.median(rows[name]) if name in rows else 0.0 for rows in best],
    )
    lines = []
    for point, rows in zip(points, best, strict=True):
        fastest = min((row.us.median for row in rows.values() if row.us), default=0)
        cells = []
        for name in names:
            us = rows[name].us if name in rows else None
            text = number(us.median) if us else "-"
            cells.append(f"**{text}**" if us and us.median == fastest else text)
        lines.append([f"{point['task'][size]:,}", *cells])
    return _markdown([shown, *(f"`{name}`" for name in names)], lines), (
        "Microseconds an update, median of the rounds, each contender at its best number of "
        "threads; the fastest in bold."
    )


def _epochs(record: Record) -> tuple[str, str]:
    (point,) = record["points"]
    lines = []
    for contender in point["contenders"]:
        runs = [run["epoch_seconds"] for run in contender["runs"]]
        if contender["status"] != "ok" or not runs:
            continue
        first, last = (statistics.spread([run[i] for run in runs]).median for i in (0, -1))
        ratio = statistics.spread([run[-1] / run[0] for run in runs])
        lines.append(
            (
                last,
                [
                    f"`{contender['name']}`",
                    str(contender["threads"]),
                    number(first * 1e3),
                    number(last * 1e3),
                    f"{ratio.median:.2f} ({ratio.least:.2f}-{ratio.most:.2f})",
                ],
            )
        )
    count = point["task"]["epochs"]
    header = ["contender", "threads", "epoch 1, ms", f"epoch {count}, ms", "last / first"]
    return _markdown(header, [cells for _, cells in sorted(lines)]), (
        f"{_task(point)}. Each epoch of a run of {count} is timed; medians of the runs, in "
        "brackets the least and the most."
    )


def _accuracy(record: Record) -> tuple[str, str]:
    groups: dict[tuple[str, int], list[Record]] = {}
    for start in record["starts"]:
        if start["status"] == "ok":
            groups.setdefault((start["name"], start["threads"]), []).append(start)
    lines = []
    for (name, threads), group in groups.items():
        first, again, imports = (
            statistics.spread([start[key] for start in group])
            for key in ("first_seconds", "again_seconds", "import_seconds")
        )
        warm = statistics.spread([seconds for start in group for seconds in start["warm_seconds"]])
        cells = [
            f"`{name}`",
            str(threads),
            *(number(seconds.median) for seconds in (first, again, imports, warm)),
            f"{min(start['accuracy'] for start in group):.2%}",
        ]
        lines.append((again.median, cells))
    header = [
        "contender", "threads", "first start, s", "later start, s", "of it imports, s", "warm, s",
        "accuracy",
    ]  # fmt: skip
    return _markdown(header, [cells for _, cells in sorted(lines)]), (
        f"An epoch of recipe one-cycle on 50,000 images; {record['required']:.1%} validation "
        "accuracy is required. From the start of a Python process until the accuracy is known: the "
        "first time, with empty caches of compiled code, and later; warm: training and evaluation "
        "alone, in the same process once more. Medians."
    )


def _breakdown(record: Record) -> tuple[str, str]:
    parts = summary.parts(record)
    stages = [stage for stage in summary.STAGES if any(stage in p.stages for p in parts)]
    lines = [
        [
            f"`{each.name}`",
            str(each.threads),
            *(number(each.stages[s]) if s in each.stages else "-" for s in stages),
            number(each.total),
        ]
        for each in parts
    ]
    limits = "; ".join(
        f"with {_threads(limit['threads'])} {number(limit['flops'] / 1e9)} GFLOP/s, so that the "
        f"products of an update take at least {number(summary.least_us(record, limit))} us"
        for limit in record["limits"]
    )
    copied = record["limits"][0]
    return _markdown(["contender", "threads", *stages, "all"], lines), (
        "Microseconds an update by stage, medians; looking at the clock takes about 0.1 of it each "
        "time. head: loss and gradient of the logits "
        "(elsewhere part of forward and backward); wait: for other threads; rest: what is between "
        "the stages. "
        f"This machine's best: {limits}; one thread copies "
        f"{number(copied['copied_in_cache'] / 1e9)} GB/s in its cache and "
        f"{number(copied['copied_in_memory'] / 1e9)} GB/s in memory (read and written)."
    )


TABLES: dict[str, Callable[[Any], tuple[str, str]]] = {
    "compare": _compare,
    "sweep-batch": lambda record: _sweep(record, "batch_size", "batch size"),
    "sweep-hidden": lambda record: _sweep(record, "hidden", "hidden units"),
    "epochs": _epochs,
    "accuracy": _accuracy,
    "breakdown": _breakdown,
}
