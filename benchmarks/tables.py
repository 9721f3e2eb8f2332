"""A record as a Markdown table with what is needed to read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks import ladder, statistics, summary, targets
from benchmarks.summary import BASELINE, Record, Row

Cells = Sequence[str]
NOT_RUN = "not yet run on a GPU"


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
    if record["experiment"] == "kernels":
        return f"NVRTC {record['nvrtc']}, {record['date'][:10]}. `{record['command']}`"
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
    if record["device"] == "rehearsal":
        text += " **A rehearsal without a GPU**: its times say nothing."
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
    if "multiprocessors" in record["limits"][0]:
        return _stages_of_kernels(record, parts, stages)
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
        f"with {least.where} {number(least.flops / 1e9)} GFLOP/s, at which "
        f"the products of an update would take {number(least.us)} us"
        for least in summary.at_best(record)
    )
    copied = record["limits"][0]
    return _markdown(["contender", "threads", *stages, "all"], lines), (
        "Microseconds an update by stage, medians; looking at the clock takes about 0.1 of it each "
        "time. head: loss and gradient of the logits "
        "(elsewhere part of forward and backward); wait: for other threads; rest: what is between "
        "the stages. "
        f"What NumPy's product of two 1024x1024 matrices reaches here: {limits}. One thread copies "
        f"{number(copied['copied_in_cache'] / 1e9)} GB/s in its cache and "
        f"{number(copied['copied_in_memory'] / 1e9)} GB/s in memory (read and written)."
    )


def _stages_of_kernels(
    record: Record, parts: Sequence[summary.Parts], stages: Cells
) -> tuple[str, str]:
    lines = [
        [f"`{p.name}`", *(number(p.stages.get(s, 0)) for s in stages), number(p.total)]
        for p in parts
    ]
    limits = ", ".join(f"{number(each.us)} with {each.where}" for each in summary.at_best(record))
    return _markdown(["contender", *stages, "all"], lines), (
        "Microseconds an update by stage, medians of the rounds and means of the blocks, by the "
        "clock of a multiprocessor, for which the kernel is compiled with a look at it after each "
        "stage. gather: of pixels, with the kernel of that name; wait: for other blocks; update: "
        "gradients of the parameters, and Adam; rest: loading and storing the model. At this GPU's "
        f"best the products of an update take {limits}."
    )


def _ladder(record: Record) -> tuple[str, str]:
    (point, *_), rows = record["points"], ladder.rows(record)
    header = [
        *TRAFFIC, "us, GPU", "us, wall", "of the limit", "of its own limit",
        f"ms to {record['required']:.1%}",
    ]  # fmt: skip
    lines = [[*_traffic(row), *_times(row, record["required"])] for row in rows]
    return _markdown(header, lines), (
        f"{_task(point)}, an epoch of {point['steps']:,} updates; medians. {EXPLAINED} us, GPU: "
        "microseconds an update, from the start of an epoch's first kernel to the end of its last "
        "one (of `layers`, of the epoch); wall: by the host's clock, with all that the host does. "
        "of the limit: what an update's products would take at least, on all multiprocessors, as "
        "a share of the time on the GPU; own: with only the multiprocessors that the rung uses. "
        "ms: of GPU time, an epoch of recipe one-cycle, after which the validation accuracy is "
        "what is in brackets."
    )


def _times(row: ladder.Row, required: float) -> Cells:
    times = row.times
    if times is None:
        return ["-"] * 5
    reached = "-"
    if times.accurate and times.accuracy and times.accuracy >= required:
        reached = f"{number(times.accurate)} ({times.accuracy:.2%})"
    gpu = times.gpu.median
    shares = (f"{least / gpu:.1%}" for least in (times.least, times.own))
    return [number(gpu), number(times.wall.median), *shares, reached]


TRAFFIC = ("rung", "launches", "kernels", "kB moved", "kB exchanged")
EXPLAINED = (
    "launches: of kernels and graphs by the host, for an update; kernels: that the GPU runs, of "
    "`layers` at least, one for each of CuPy's operations; moved: read and written in global "
    "memory, by what the shapes say; exchanged: sent from block to block."
)


def _traffic(row: ladder.Row) -> Cells:
    moved = row.traffic
    return [
        f"`{row.name}`",
        few(moved.launches),
        few(moved.kernels),
        number(moved.moved / 1e3),
        number(moved.exchanged / 1e3) if moved.exchanged else "-",
    ]


def few(value: float) -> str:
    """Two significant digits of what is small."""
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def ladder_without_a_gpu() -> str:
    """The ladder's table as far as no GPU is needed."""
    lines = [[*_traffic(row), NOT_RUN] for row in ladder.rows()]
    return (
        f"{_markdown([*TRAFFIC, 'us an update'], lines)}\n\n784-50-10, batch 64, float32, an epoch "
        f"of 937 updates. {EXPLAINED}"
    )


def goals(records: dict[str, Record]) -> str:
    """The targets, and what of them was measured."""
    lines = []
    for target in targets.TARGETS:
        value = target.measured(records)
        verdict = NOT_RUN if value is None else "yes" if value <= target.limit else "**no**"
        measured = "" if value is None else f"{value:.3g}"
        lines.append([target.text, f"{target.limit:g}", measured, verdict])
    return _markdown(["", "at most", "measured", "reached"], lines)


def _networks(record: Record) -> tuple[str, str]:
    counts = sorted({each["networks"] for each in record["networks"]})
    rows: dict[str, dict[int, str]] = {}
    for each in record["networks"]:
        if each["status"] == "ok":
            seconds = statistics.spread(each["gpu_seconds"]).median
            us = seconds / each["steps"] / each["networks"] * 1e6
            rows.setdefault(each["rung"], {})[each["networks"]] = number(us)
    header = ["layout", *(f"{count} network{'s' if count > 1 else ''}" for count in counts)]
    lines = [[f"`{name}`", *(row.get(n, "-") for n in counts)] for name, row in rows.items()]
    task = record["task"]
    return _markdown(header, lines), (
        f"784-{task['hidden']}-10, batch {task['batch_size']}, recipe {task['recipe']}. "
        "Microseconds of GPU time for an update of one network, where so many train side by side; "
        "medians. Each has the losses that it has alone, bit for bit."
    )


def _rungs(record: Record) -> tuple[str, str]:
    names = list(dict.fromkeys(e["rung"] for e in _compared(record)))
    lines = [_rung(name, record) for name in names]
    header = [
        "rung", "updates", "bit for bit", "worst share of the bound", "MNIST, share", "networks",
        "failures",
    ]  # fmt: skip
    steps = max((entry["steps"] for entry in record["mnist"]), default=0)
    return _markdown(header, lines), (
        f"{len(record['cases'])} random networks, batches and recipes, from the seed "
        f"{record['seed']} on, each rung beside the one below: how many updates, in how many cases "
        "all numbers were the same, and the largest difference as a share of its bound. MNIST: "
        f"after {steps} updates, the largest share of what is tolerated. networks: in how many "
        "cases three side by side were, bit for bit, what each is alone."
    )


def _compared(record: Record) -> list[Record]:
    return [*record["mnist"], *(e for case in record["cases"] for e in case["rungs"])]


def _rung(name: str, record: Record) -> Cells:
    cases, mnist, together = (
        [entry for entry in entries if entry["rung"] == name and not entry.get("skipped")]
        for entries in (
            [entry for case in record["cases"] for entry in case["rungs"]],
            record["mnist"],
            [entry for case in record["cases"] for entry in case["together"]],
        )
    )
    everything = [*cases, *mnist, *together]
    if not everything:
        return [f"`{name}`", "not on this GPU", *["-"] * 4, "0"]
    return [
        f"`{name}`",
        f"{sum(e['updates'] for e in cases):,}" if cases else "-",
        f"{sum(e.get('exact', False) for e in cases)} of {len(cases)}" if cases else "-",
        _worst(cases),
        _worst(mnist),
        f"{sum(not e['reason'] for e in together)} of {len(together)}" if together else "-",
        str(sum(bool(e["reason"]) for e in everything)),
    ]


def _worst(entries: list[Record]) -> str:
    """The largest share; one that is not finite is recorded as None."""
    shares = [entry["share"] for entry in entries if "share" in entry]
    return f"{max(math.inf if s is None else s for s in shares):.2%}" if shares else "-"


def _campaign(record: Record) -> tuple[str, str]:
    lines = [
        [f"`{p['name']}`", p["status"], number(p["seconds"]) if "seconds" in p else "-"]
        for p in record["parts"]
    ]
    return _markdown(["part", "result", "seconds"], lines), "What was run, in this order."


def _kernels(record: Record) -> tuple[str, str]:
    """A row for each kernel and form, a column for each compute capability."""
    tutorial = [v for v in record["variants"] if v["units"] == 50 and v["batch"] in (None, 64)]
    tutorial.sort(key=lambda variant: -variant["architecture"])  # the newest have all forms
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for variant in tutorial:
        for name, usage in variant["kernels"].items():
            shared = variant["shared"] if name == "train" else 0
            key = f"`{name}`, {variant['form']}", number(shared / 2**10) if shared else "-"
            fits = variant["fits"] or not shared
            cell = _registers(usage) if fits else "too large"
            rows.setdefault(key, {})[variant["architecture"]] = cell
    architectures = sorted({variant["architecture"] for variant in tutorial})
    header = ["kernel", "shared, KiB", *(f"sm_{each}" for each in architectures)]
    lines = [[*key, *(row.get(each, "-") for each in architectures)] for key, row in rows.items()]
    return _markdown(header, lines), (
        "Registers of a thread, for each compute capability; +: bytes of a thread for which there "
        "is no register, and which go into memory. shared: of a block; where that is too large for "
        "the GPU, or where it has no clusters, another form of `train` is taken. All at "
        "784-50-10, and `train` and `gather` at batch 64."
    )


def _registers(usage: Record) -> str:
    spilt = f" + {usage['spill_stores']}" if usage["spill_stores"] else ""
    return f"{usage['registers']}{spilt}"


TABLES: dict[str, Callable[[Any], tuple[str, str]]] = {
    "compare": _compare,
    "sweep-batch": lambda record: _sweep(record, "batch_size", "batch size"),
    "sweep-hidden": lambda record: _sweep(record, "hidden", "hidden units"),
    "epochs": _epochs,
    "accuracy": _accuracy,
    "breakdown": _breakdown,
    "ladder": _ladder,
    "networks": _networks,
    "rungs": _rungs,
    "campaign": _campaign,
    "kernels": _kernels,
}
