"""`python -m benchmarks.equality`: every rung of the ladder against the one below, on a GPU.

On fresh random data: each case has a network, batches and a recipe of its own, drawn from a seed
that comes from the clock and is recorded. Two rungs make the same update from the same state. Each
may differ from the exact update by what it can have rounded, which reference.step and
reference.propagation derive; so the two may differ by twice that, and what was found is given as a
share of it. And where rungs compute the same in the same order, they must agree bit for bit:
`cuda_graph` and `cuda_fused`, and a network of `cuda_epoch` alone and beside others.

Then MNIST, a whole epoch in one go. In float32 each rung's losses and weights are judged as those
of any contender: see `agreement`. In float64 a rung may be 1e-9 from the one below, as
scratchnet may be from PyTorch.

Whatever fails is recorded, and the rest goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks import report, results, rungs
from benchmarks.agreement import Standard
from benchmarks.contenders.scratchnet_engine import Contender
from benchmarks.rungs import RUNGS, Rung
from benchmarks.task import Outcome, Task, training
from reference import lockstep
from reference.bounds import Dtype
from reference.compare import Difference, difference
from reference.lockstep import STABLE, Step
from reference.propagation import Estimate
from scratchnet import backend, engines
from scratchnet.cli import OneLineErrors
from scratchnet.engines import cuda, cuda_epoch
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.training import RECIPES, Options, Run

UPDATES = 4  # of a case
MOST = 130  # samples of a batch and hidden units, so that tiles of 4, 32 and 64 are full and not
NETWORKS = 3  # side by side
SAME = {"cuda_graph": "cuda_fused"}  # bit for bit
STABLE_RECIPES = ("adam", "one-cycle")

Entry = dict[str, Any]
Arrays = dict[str, npt.NDArray[Any]]
Sides = dict[str, lockstep.Engine]  # by the rung's name


@dataclasses.dataclass(frozen=True)
class Case:
    """A random run: what it is made from, and its images."""

    seed: int
    options: Options
    dtype: Dtype
    split: Split

    @classmethod
    def draw(cls, seed: int, batch_size: int | None = None, hidden: int | None = None) -> Case:
        """From a seed, but for the sizes that are given."""
        rng = np.random.default_rng(seed)
        batch_size = batch_size or int(rng.integers(1, MOST + 1))
        count = int(rng.integers(1, 3 * batch_size + 1))  # so that last batches are smaller
        images = rng.integers(0, 256, (count, 784)) * (rng.random((count, 784)) < rng.random())
        options = Options(
            recipe=str(rng.choice([*RECIPES])),
            epochs=UPDATES,
            batch_size=batch_size,
            hidden=hidden or int(rng.integers(1, MOST + 1)),
            seed=int(rng.integers(2**31)),
            lr=[None, 1e-3, 3e-2][rng.integers(3)],
        )
        dtype: Dtype = np.float64 if rng.random() < 1 / 3 else np.float32
        labels = rng.integers(0, 10, count)
        return cls(seed, options, dtype, Split(images.astype(np.uint8), labels))

    def run(self, engine: str = "layers", device: str = "") -> Run:
        """The run, by default where the engines for a GPU work."""
        return Run(self.options, self.split, device or cuda.DEVICE, self.dtype, engine)


def compare(case: Case, chosen: Sequence[Rung] = RUNGS) -> Entry:
    """The updates of a case by every rung, each beside the one below; and networks side by side."""
    sides, entries = _sides(case, chosen)
    found: dict[tuple[str, str], list[Difference]] = {}
    for number, (at, limits) in enumerate(_updates(case), start=1):
        states, failed = _advance(sides, at, number)
        entries += failed
        for below, name in itertools.pairwise(states):
            found.setdefault((name, below), []).extend(
                difference(
                    array, f"update {number}", states[name][array], value, 2 * limits[array].error
                )
                for array, value in states[below].items()
            )
    entries += [_entry(*names, differences) for names, differences in found.items()]
    together = case.dtype is np.float32
    return {
        "seed": case.seed,
        "options": dataclasses.asdict(case.options),
        "dtype": np.dtype(case.dtype).name,
        "images": len(case.split.labels),
        "rungs": entries,
        "together": [_together(case, rung) for rung in chosen if rung.blocks and together],
    }


def _sides(case: Case, chosen: Sequence[Rung]) -> tuple[Sides, list[Entry]]:
    """The rungs that can make a case's updates, and why others can't."""
    sides, entries = {}, []
    for rung in (rung for rung in chosen if rung.computes_in(case.dtype)):
        try:
            with rungs.only(rung):
                sides[rung.name] = lockstep.Engine(case.run(rung.engine))
        except Exception as error:  # of whatever kind, the other rungs are to be compared
            entries.append(_failed(rung.name, error))
    return sides, entries


def _advance(sides: Sides, at: Step, number: int) -> tuple[dict[str, Arrays], list[Entry]]:
    """An update by each of the sides, from which those are taken that fail; and why they do."""
    states, entries = {}, []
    for name, side in [*sides.items()]:
        try:
            states[name] = side.advance(at, number)
        except Exception as error:
            entries.append(_failed(name, error))
            del sides[name]
    return states, entries


def _updates(case: Case) -> Iterator[tuple[Step, dict[str, Estimate]]]:
    """What each update starts from, and how far off its results may be by rounding."""
    run = case.run(device="cpu")
    for number, (x, y, lr) in enumerate(run.batches(0, UPDATES), start=1):
        at = Step.of(run, number, x, y, lr)
        yield at, at.limits_of_engine(run)
        run.update(x, y, lr)


def _entry(name: str, below: str, differences: list[Difference]) -> Entry:
    worst = max(differences, key=lambda each: each.share)
    exact = all(each.exact for each in differences)
    wrong = [str(each) for each in differences if not each.ok]
    if SAME.get(name) == below and not exact:
        wrong.append(f"differs from {below}, though it computes the same in the same order")
    return {
        "rung": name,
        "below": below,
        "reason": "; ".join(wrong[:3]),
        "updates": UPDATES,
        "exact": exact,
        "share": worst.share if np.isfinite(worst.share) else None,
        "array": worst.name,
    }


def _failed(name: str, error: Exception) -> Entry:
    """A rung that could not be compared; if this GPU has not what it takes, that is no failure."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, rungs.NOT_HERE):
        return {"rung": name, "below": "", "reason": "", "skipped": text, "updates": 0}
    return {"rung": name, "below": "", "reason": f"{type(error).__name__}: {text}", "updates": 0}


def _together(case: Case, rung: Rung) -> Entry:
    """Whether networks that train side by side are, bit for bit, what each is alone."""
    try:
        with rungs.only(rung):
            fleet = cuda_epoch.Fleet(_networks(case))
            alone = [cuda_epoch.Engine(run) for run in _networks(case)]
        same = fleet.advance(0, UPDATES) == [each.advance(0, UPDATES) for each in alone]
        runs = zip(fleet.runs, (each.fleet.runs[0] for each in alone), strict=True)
        same = same and all(_equal(ours, theirs) for ours, theirs in runs)
        reason = "" if same else f"{NETWORKS} networks together are not what each is alone"
        return {"rung": rung.name, "reason": reason}
    except Exception as error:
        return _failed(rung.name, error)


def _networks(case: Case) -> list[Run]:
    first = case.run()
    return [first, *(first.with_seed(case.options.seed + more) for more in range(1, NETWORKS))]


def _equal(a: Run, b: Run) -> bool:
    return all(
        np.array_equal(backend.to_numpy(mine), backend.to_numpy(theirs))
        for mine, theirs in zip(_arrays(a), _arrays(b), strict=True)
    )


def _arrays(run: Run) -> list[npt.NDArray[Any]]:
    return [run.model.parameters()[0].buffer.data, *run.optimizer.vectors.values()]


# ----------------------------------------------------------------------------------------- MNIST


def mnist_in_float32(
    recipe: str, steps: int, batch_size: int, chosen: Sequence[Rung]
) -> Iterator[Entry]:
    """So many updates of each rung, judged as any contender's; and whether SAME holds."""
    options = Options(recipe, limit=steps * batch_size, batch_size=batch_size)
    task = Task.of(options, "cuda")
    standard, below, outcome_below = Standard(task), "", None
    for rung in chosen:
        entry = {"rung": rung.name, "recipe": recipe, "dtype": "float32", "steps": steps}
        try:
            outcome = _train(rung, task)
        except Exception as error:
            yield entry | _failed(rung.name, error)
            continue
        judged = standard.judge(outcome)
        reason = "" if judged.ok else str(judged)
        if outcome_below and SAME.get(rung.name) == below and not _same(outcome, outcome_below):
            reason = reason or f"differs from {below}, though it computes the same"
        share = judged.share if np.isfinite(judged.share) else None
        yield entry | {"reason": reason, "share": share}
        below, outcome_below = rung.name, outcome


def _train(rung: Rung, task: Task) -> Outcome:
    contender = Contender(rung.name)
    contender.prepare(task, 1)
    contender.reset()
    contender.epoch(0)
    return contender.collect()


def _same(a: Outcome, b: Outcome) -> bool:
    names = a.parameters.keys()
    return np.array_equal(a.losses, b.losses) and all(
        np.array_equal(a.parameters[name], b.parameters[name]) for name in names
    )


def mnist_in_float64(
    recipe: str, steps: int, batch_size: int, chosen: Sequence[Rung]
) -> Iterator[Entry]:
    """So many updates of each rung that has float64, beside the one below."""
    options = Options(recipe, limit=steps * batch_size, batch_size=batch_size)
    below, made_below = "", None
    for rung in (rung for rung in chosen if rung.computes_in(np.float64)):
        entry = {"rung": rung.name, "recipe": recipe, "dtype": "float64", "steps": steps}
        try:
            run = Run(options, training(options), cuda.DEVICE, np.float64, rung.engine)
            engines.make(rung.engine, run).advance(0, run.total_steps)
        except Exception as error:
            yield entry | _failed(rung.name, error)
            continue
        made = backend.to_numpy(run.model.parameters()[0].buffer.data)
        apart = 0.0 if made_below is None else float(np.abs(made - made_below).max())
        limit = 0.0 if SAME.get(rung.name) == below else STABLE
        reason = "" if apart <= limit else f"{apart:.2g} from {below}; expected {limit:g}"
        yield entry | {"reason": reason, "share": apart / STABLE if np.isfinite(apart) else None}
        below, made_below = rung.name, made


# ------------------------------------------------------------------------------------ the command


@click.command(cls=OneLineErrors, context_settings={"show_default": True})
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The record."
)
@click.option("--seconds", type=float, default=60.0, help="Begin cases for so long.")
@click.option("--cases", type=click.IntRange(min=0), help="But no more than so many.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the first case; the next ones follow.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Of all cases.  [default: drawn]")
@click.option("--hidden", type=click.IntRange(min=1), help="Of all cases.  [default: drawn]")
@click.option("--steps", type=click.IntRange(min=0), default=937, help="Updates on MNIST.")
@click.option("--rungs", "names", metavar="NAME,...", help="Which.  [default: all]")
def main(
    out: Path,
    seconds: float,
    cases: int | None,
    seed: int | None,
    batch_size: int | None,
    hidden: int | None,
    steps: int,
    names: str | None,
) -> None:
    """Hold every rung of the ladder to the one below: on MNIST, and on random cases.

    The record is written anew after each comparison. The exit status is 1 if a rung failed, or if
    nothing could be compared.
    """
    backend.cupy()  # which says now if there is none
    chosen = _chosen(names)
    first = time.time_ns() % 2**32 if seed is None else seed
    command = shlex.join(["python", "-m", "benchmarks.equality", *sys.argv[1:]])
    noise: Entry = {"seconds": [], "relative_spread": None, "noisy": None}
    record = results.header("rungs", "cuda", command)
    record |= {"noise": noise, "interrupted": True, "seed": first, "cases": [], "mnist": []}
    end = time.perf_counter() + seconds
    for recipe in STABLE_RECIPES if steps else ():
        for measure in (mnist_in_float32, mnist_in_float64):
            for entry in measure(recipe, steps, batch_size or 64, chosen):
                record["mnist"].append(entry)
                _tell(f"MNIST, {recipe}, {entry['dtype']}, {entry['rung']}", entry)
                results.save(record, out)
    for seed in itertools.islice(itertools.count(first), cases):
        if time.perf_counter() > end:
            break
        click.echo(f"case of seed {seed}", err=True)
        found = compare(Case.draw(seed, batch_size, hidden), chosen)
        record["cases"].append(found)
        for entry in (*found["rungs"], *found["together"]):
            _tell(f"seed {seed}, {found['dtype']}, {entry['rung']}", entry)
        results.save(record, out)
    record["interrupted"] = False
    results.save(record, out)
    click.echo(report.as_text(record))
    if all("skipped" in entry for entry in _entries(record)):
        raise InputError("nothing was compared: see above for what each rung lacks here")
    sys.exit(1 if failures(record) else 0)


def _chosen(names: str | None) -> list[Rung]:
    known = {rung.name: rung for rung in RUNGS}
    wanted = names.split(",") if names else [*known]
    for name in wanted:
        if name not in known:
            raise InputError(f"rung {name!r} is unknown; expected some of {', '.join(known)}")
    return [known[name] for name in wanted]


def _tell(what: str, entry: Entry) -> None:
    click.echo(f"{what}: {entry['reason'] or entry.get('skipped') or 'ok'}", err=True)


def failures(record: results.Record) -> list[Entry]:
    """All entries of a record that are not as they should be."""
    return [entry for entry in _entries(record) if entry["reason"]]


def _entries(record: results.Record) -> list[Entry]:
    of_cases = [e for case in record["cases"] for e in (*case["rungs"], *case["together"])]
    return [*of_cases, *record["mnist"]]


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.equality")
