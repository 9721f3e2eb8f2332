"""The commands: train, evaluate, predict, doctor, study."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from click.core import ParameterSource
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import scratchnet
from scratchnet import backend, checkpoint, engines, files, functional, interrupts, mnist, results
from scratchnet.checkpoint import SavedModel
from scratchnet.errors import InputError
from scratchnet.results import SUMMARY, Result
from scratchnet.study.commands import study
from scratchnet.training import RECIPES, Diverged, Options, Run, evaluate
from scratchnet.training import predict as predict_logits
from scratchnet.training import train as train_in_step

DEFAULTS = Options()
MOST_SEEDS = 10_000  # networks, of up to two megabytes each at the default size
Networks = dict[Path, Run]  # each with its folder
Command = TypeVar("Command", bound=Callable[..., Any])


class UnusableInput(click.ClickException):
    """What the user gave can't be used."""

    exit_code = 2  # as click has it for wrong options


class OneLineErrors(click.Command):
    """A command that tells the user's errors in one line, and a programmer's in full."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with interrupts.told():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except click.NoSuchOption as error:
            raise _without_hidden(error) from None
        except Diverged as error:
            raise click.ClickException(str(error)) from error
        except InputError as error:
            raise UnusableInput(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise UnusableInput(f"{where}{error.strerror or error}") from error
        except MemoryError as error:
            raise UnusableInput(
                f"not enough memory: {error}; try smaller --hidden, --batch-size, --epochs "
                "or --seeds"
            ) from error


def _without_hidden(error: click.NoSuchOption) -> click.NoSuchOption:
    """The error, suggesting only options that --help shows."""
    parameters = error.ctx.command.params if error.ctx else []
    shown = {
        name
        for each in parameters
        if isinstance(each, click.Option) and not each.hidden
        for name in each.opts
    }
    similar = [name for name in error.possibilities or () if name in shown]
    return click.NoSuchOption(error.option_name, possibilities=similar, ctx=error.ctx)


class Commands(OneLineErrors, click.Group):
    """A group of such commands."""


def _folder_option(name: str, help: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.Path(file_okay=False, path_type=Path), help=help)


data_option = _folder_option(
    "--data",
    "Folder with the four IDX files of MNIST or a set in the same format, as torchvision leaves "
    "them in NAME/raw.  [default: the MNIST that comes with scratchnet]",
)
device_option = click.option(
    "--device", type=click.Choice(backend.DEVICES), default="auto", help="Where to compute."
)


@click.group(cls=Commands, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(scratchnet.__version__, prog_name="scratchnet")
def main() -> None:
    """A neural network from scratch: backprop by hand, equal to PyTorch's."""
    warnings.showwarning = lambda message, *_: click.echo(f"{message}", err=True)


@main.command()
@click.option(
    "--recipe",
    type=click.Choice([*RECIPES]),
    default=DEFAULTS.recipe,
    help="; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items()) + ".",
)
@click.option("--epochs", type=int, default=DEFAULTS.epochs, help="Passes over the images.")
@click.option("--batch-size", type=int, default=DEFAULTS.batch_size, help="Images an update.")
@click.option(
    "--lr",
    type=float,
    help="Learning rate, or its peak.  [default: the recipe's own: 0.01 or 0.001]",
)
@click.option("--hidden", type=int, default=DEFAULTS.hidden, help="Hidden units.")
@click.option("--seed", type=int, default=DEFAULTS.seed, help="Of the weights and of the order.")
@click.option(
    "--seeds",
    type=int,
    default=1,
    help="Train so many networks at once, with the seeds SEED, SEED + 1, ...; each gets a folder "
    "in --out, which gets a table and a picture of them all.",
)
@click.option("--limit", type=int, help="Train on the first so many images only.")
@data_option
@device_option
@click.option(
    "--engine",
    type=click.Choice([engines.AUTO, *engines.NAMES]),
    default="layers",
    help="What makes the updates: layers, the readable one; numpy_inplace, the same without new "
    "arrays; native, in C; on a GPU cuda_fused, in three kernels, cuda_graph, many of them in one "
    "launch, or cuda_epoch, all of an epoch in one kernel. Equal up to rounding. auto is the "
    "fastest that works here, but layers on a GPU, where the others have not been run yet.",
)
@_folder_option("--out", "Folder for the results.  [default: the next free of runs/1, runs/2, ...]")
@_folder_option(
    "--resume", "Go on with the run in this folder, or the networks; its own options hold."
)
@click.option(
    "--save-every", type=click.IntRange(min=1), default=500, help="Steps between two checkpoints."
)
@click.pass_context
def train(
    ctx: click.Context,
    /,
    data: Path | None,
    device: str,
    engine: str,
    out: Path | None,
    resume: Path | None,
    save_every: int,
    seeds: int,
    **options: Any,
) -> None:
    """Train Mnist_NN, and leave model, losses and pictures in a folder.

    With --seeds several networks are trained at once. One that diverges is left out from there on:
    the others are trained to the end, and the exit status is 1. With --resume it is tried again.
    """
    start = time.perf_counter()
    if resume is None:
        networks, splits, out = _new(Options(**options), seeds, data, device, engine, out)
    else:
        networks, splits, data, out = _resumed(ctx, resume, data, device)
    click.echo(f"{_describe(networks)} -> {out}")
    if results.is_complete(out, networks.values()):
        click.echo(f"this run is complete: see {out / SUMMARY}")
        return
    try:
        with _locked(out):
            _train_and_finish(networks, splits, out, data, save_every)
    except KeyboardInterrupt:
        click.echo(f"interrupted; {_go_on(out)}", err=True)
        sys.exit(128 + signal.SIGINT)
    click.echo(f"the whole command took {time.perf_counter() - start:.1f} s")
    if lost := [run.diverged for run in networks.values() if run.diverged]:
        raise Diverged(
            f"{len(lost)} of {len(networks)} networks diverged, see {out / 'seeds.csv'}; "
            f"the first: {lost[0]}"
        )


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes out of what is trained in a folder: a network, or all that are in it."""
    with contextlib.ExitStack() as locks:
        if checkpoint.is_seed_folder(out):  # to train it with others, only the one around is locked
            locks.enter_context(files.lock(out.resolve().parent, shared=True))
        locks.enter_context(files.lock(out))
        yield


def _go_on(out: Path) -> str:
    return f"go on with: scratchnet train --resume={shlex.quote(str(out))}"


def _new(
    options: Options, seeds: int, data: Path | None, device: str, engine: str, out: Path | None
) -> tuple[Networks, mnist.Mnist, Path]:
    if not 1 <= seeds <= MOST_SEEDS:
        raise InputError(f"seeds is {seeds}; expected 1 to {MOST_SEEDS:,}")
    device = _resolve(device)
    splits = mnist.load(data)
    images = len(splits.train.labels)
    if options.limit and options.limit > images:
        click.echo(
            f"limit is {options.limit:,}; there are {images:,} images: all are used", err=True
        )
    if engine == engines.AUTO:
        reason = engines.why_not("native")
        if reason and device == "cpu":
            click.echo(f"{reason}; until then it is numpy_inplace", err=True)
    run = Run(options, splits.train, device, engine=engine)
    runs = [run, *(run.with_seed(options.seed + more) for more in range(1, seeds))]
    engines.make_together(runs)  # which says now, and not in the midst of things, if it can't
    if seeds == 1:
        out = _make_folder(out)
        return {out: run}, splits, out
    out = _make_folder(out, [run.options.seed for run in runs])
    networks = {checkpoint.seed_folder(out, run.options.seed): run for run in runs}
    for folder in networks:
        folder.mkdir(exist_ok=True)
    return networks, splits, out


def _resumed(
    ctx: click.Context, out: Path, data: Path | None, device: str
) -> tuple[Networks, mnist.Mnist, Path | None, Path]:
    given = {name for name in ctx.params if _was_given(ctx, name)}
    fixed = given - {"resume", "epochs", "data", "device", "engine", "save_every"}
    if fixed:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(fixed))
        raise InputError(f"{names}: can't be changed in a resumed run; leave it out")
    saved = checkpoint.read_runs(out)
    first = next(iter(saved.values()))
    data = data or first.data
    device = _resolve(device if "device" in given else first.device)
    splits = mnist.load(data)
    if "epochs" in given:
        epochs = ctx.params["epochs"]
    else:  # one may have more than the others: it was killed as soon as it had begun a longer run
        epochs = max(each.options.epochs for each in saved.values())
    engine = ctx.params["engine"] if "engine" in given else None
    run = first.resume(splits.train, device=device, engine=engine, epochs=epochs)
    if out in saved:
        return {out: run}, splits, data, out
    seeds = checkpoint.seeds_in(out)
    _check_none_is_gone(out, seeds)
    networks = {}
    for seed in seeds:
        folder = checkpoint.seed_folder(out, seed)
        networks[folder] = run.with_seed(seed)
        if folder in saved:  # else it was killed before it had saved them all
            saved[folder].restore(networks[folder])
    return networks, splits, data, out


def _check_none_is_gone(out: Path, seeds: list[int]) -> None:
    """Raise InputError unless the seeds are all those of the summary, if there is one, in a row."""
    before, found = results.read_summary(out).get("seed", []), set(seeds)
    expected = itertools.chain(before, range(seeds[0], seeds[-1]))
    gone = next((seed for seed in expected if seed not in found), None)
    if gone is not None:
        raise InputError(
            f"{checkpoint.seed_folder(out, gone)}: is missing; expected a folder for each network: "
            "put it back, or make it, empty, and the network is trained anew"
        )


def _was_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _resolve(device: str) -> str:
    """The device to use. Says why not the GPU, where CuPy is there and one could expect it."""
    reason = backend.why_no_gpu()
    if device == "auto" and reason and reason != backend.NO_CUPY:
        click.echo(f"no GPU: {reason}", err=True)
    return backend.resolve(device)


def _make_folder(out: Path | None, seeds: Collection[int] = ()) -> Path:
    """The folder for a new run, or for those of several seeds: never one that holds another."""
    if out is None:
        number = 1
        while True:
            with contextlib.suppress(FileExistsError):
                out = Path("runs", str(number))
                out.mkdir(parents=True)
                return out
            number += 1
    found = checkpoint.seeds_in(out)
    inside = [out, *(checkpoint.seed_folder(out, seed) for seed in found)]
    if any((folder / name).exists() for folder in inside for name in (checkpoint.RUN, SUMMARY)):
        raise InputError(
            f"{out}: holds a run already; expected a new folder: give another --out, or "
            f"{_go_on(out)}"
        )
    # A folder of these seeds that is empty is from a start that failed.
    if others := sorted(set(found) - set(seeds)):
        left = checkpoint.seed_folder(out, others[0])
        raise InputError(
            f"{left}: would count as one of the networks; expected a new folder: give another "
            "--out, or remove what a start with other seeds has left"
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _describe(networks: Networks) -> str:
    run, *others = networks.values()
    options, lin1, lin2 = run.options, run.model.lin1.weight, run.model.lin2.weight
    seeds = f"{len(networks)} seeds from {options.seed} on, " if others else ""
    return (
        f"Mnist_NN {lin1.shape[1]}-{lin1.shape[0]}-{lin2.shape[0]}, {seeds}recipe "
        f"{options.recipe}, {len(run.labels)} images, {run.total_steps - _step(networks)} steps of "
        f"{options.batch_size}, on {run.device}, engine {run.engine}"
    )


def _step(networks: Networks) -> int:
    """How many updates every network has made, apart from those that diverged."""
    return min((run.step for run in networks.values() if not run.diverged), default=0)


def _train(
    networks: Networks, validation: mnist.Split, out: Path, data: Path | None, save_every: int
) -> float:
    """Make the updates that are left, saving now and then. Returns the seconds it took."""
    runs, saved = [*networks.values()], dict.fromkeys(networks, -1)

    def save() -> None:
        for folder, run in networks.items():
            if run.diverged or run.step == saved[folder]:
                continue
            with contextlib.suppress(Diverged):  # the run remembers it, and is trained no more
                run.check()
                checkpoint.save_run(folder / checkpoint.RUN, run, data)
                checkpoint.save_model(folder / checkpoint.MODEL, run.model, run.normalization, data)
                saved[folder] = run.step

    save()
    start = time.perf_counter()
    # Products this small are fastest on one thread, which other programs also slow down less.
    threads = 1 if runs[0].options.batch_size < 512 else None
    with (
        threadpool_limits(threads, user_api="blas"),
        _interrupts() as interrupted,
        _Progress(networks, validation) as progress,
    ):
        for _ in train_in_step(runs, every=save_every):
            progress.update()
            step = _step(networks)
            if interrupted or step % save_every == 0:
                save()
            if interrupted:
                click.echo(
                    f"interrupted after step {step} of {runs[0].total_steps}; {_go_on(out)}",
                    err=True,
                )
                sys.exit(128 + interrupted[0])  # as a shell has it
        save()
    if out in networks and runs[0].diverged:
        raise Diverged(f"{runs[0].diverged}; the checkpoint of step {saved[out]} stays in {out}")
    return time.perf_counter() - start


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list to which Ctrl-C and SIGTERM append, so that they end a run between two updates.

    KeyboardInterrupt might leave an array half updated, and that is not for saving. The second
    Ctrl-C is the usual one.
    """
    received: list[int] = []
    kinds = [signal.SIGINT, signal.SIGTERM]
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def receive(kind: int, _frame: Any) -> None:
        received.append(kind)
        signal.signal(kind, before[signal.Signals(kind)])

    kinds = [kind for kind in kinds if before[kind] is not signal.SIG_IGN]
    for kind in kinds:
        signal.signal(kind, receive)
    try:
        yield received
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])


class _Progress(contextlib.AbstractContextManager["_Progress"]):
    """The bar: loss (mean of the last 50 steps), validation accuracy, steps a second, time left.

    Of several networks it is the median loss alone: to evaluate them all would take too long. The
    bar is silent where stderr is no terminal.
    """

    def __init__(self, networks: Networks, validation: mnist.Split) -> None:
        self.networks, (run, *_) = networks, networks.values()
        # Enough for two digits, few enough not to slow the training down.
        self.sample = mnist.Split(validation.images[:2000], validation.labels[:2000])
        self.bar = tqdm(
            total=run.total_steps, initial=_step(networks), unit="step", disable=_no_terminal()
        )
        self.shown = 0.0

    def update(self) -> None:
        self.bar.update(_step(self.networks) - self.bar.n)
        now = time.perf_counter()
        if not self.bar.disable and now - self.shown > 0.2:
            self.bar.set_postfix_str(self._how_it_goes(), refresh=False)
            self.shown = now

    def _how_it_goes(self) -> str:
        runs = [run for run in self.networks.values() if not run.diverged]
        losses = [np.mean(run.losses[-50:]) for run in runs if run.losses]
        if len(self.networks) > 1:
            lost = len(self.networks) - len(runs)
            return f"median loss {np.median(losses):.3f}" + (f", {lost} diverged" if lost else "")
        accuracy = evaluate(runs[0].model, self.sample, runs[0].normalization).accuracy
        return f"loss {losses[0]:.3f}, accuracy {accuracy:.1%}"

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def _no_terminal() -> bool:
    return sys.stderr is None or not sys.stderr.isatty()


def _train_and_finish(
    networks: Networks, splits: mnist.Mnist, out: Path, data: Path | None, save_every: int
) -> None:
    """Train, tell how it went, and write what is for reading: losses, pictures and summaries."""
    runs, begun = [*networks.values()], {folder: run.step for folder, run in networks.items()}
    seconds = _train(networks, splits.validation, out, data, save_every)
    session = {
        "data": None if data is None else str(data),
        "networks": len(runs),
        "seconds": round(seconds, 4),
    }
    found = [results.evaluate(run, splits) for run in runs]
    least = min(begun.values())
    each = "" if out in networks else " each"
    steps = runs[0].total_steps - least
    click.echo(f"{_accuracies(found)}; {steps} steps{each} in {seconds:.2f} s")
    # Four pictures of a network take as long as its training, so several get one of them all.
    pictured = splits.test if out in networks else None
    for (folder, run), result in zip(networks.items(), found, strict=True):
        told = session | {"resumed_at_step": begun[folder]}
        results.write(folder, run, result, pictured, told)
    if out not in networks:
        results.write_seeds(out, runs, found, session | {"resumed_at_step": least})


def _accuracies(found: list[Result | None]) -> str:
    """In words; of several networks the median and the range of those that did not diverge."""
    told = []
    for name, accuracy in results.spread(found).items():
        if name.endswith("accuracy"):
            text = f"{name.replace('_', ' ')} {accuracy['median']:.2%}"
            span = f"({accuracy['lowest']:.2%} to {accuracy['highest']:.2%})"
            told.append(text if len(found) == 1 else f"median {text} {span}")
    return ", ".join(told) or "every network diverged"


@main.command("evaluate")
@click.argument("path", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@_folder_option(
    "--data",
    "Folder with the four IDX files of the images.  [default: those that it was trained on]",
)
@device_option
def evaluate_command(path: Path, data: Path | None, device: str) -> None:
    """Loss and accuracy of a model on the validation and the test images.

    CHECKPOINT is the folder of a run, or a safetensors file with Mnist_NN's parameters, from
    scratchnet or PyTorch.
    """
    saved = _load_model(path, device)
    data = data or saved.data
    splits = mnist.load(data)
    click.echo(f"on {data or 'the bundled MNIST'}")
    for name, split in (("validation", splits.validation), ("test", splits.test)):
        result = evaluate(saved.model, split, saved.normalization)
        click.echo(f"{name:<10}  loss {result.loss:.4f}  accuracy {result.accuracy:.2%}")


def _load_model(path: Path, device: str) -> SavedModel:
    """A model for MNIST's images."""
    saved = checkpoint.load_model(path, _resolve(device))
    (_, inputs), (classes, _) = saved.model.lin1.weight.shape, saved.model.lin2.weight.shape
    if (inputs, classes) != (784, 10):
        raise InputError(
            f"{path}: is of a network with {inputs} inputs and {classes} classes; "
            "expected 784 pixels and 10 digits"
        )
    return saved


@main.command()
@click.argument("path", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path())
@device_option
def predict(path: Path, images: tuple[str, ...], device: str) -> None:
    """Read pictures of single digits, PNG or JPEG, of any size, dark on light or light on dark.

    Prints the class, the confidence, and the 28x28 picture that the network saw.
    """
    from scratchnet import digits

    saved = _load_model(path, device)
    failed = False
    for image in images:
        try:
            digit = digits.read_digit(Path(image))
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            failed = True
            continue
        logits = predict_logits(saved.model, digit.reshape(1, -1), saved.normalization)
        (probabilities,) = functional.softmax_forward(logits)
        best = int(probabilities.argmax())
        click.echo(digits.as_text(digit))
        click.echo(f"{image}: {best}, confidence {probabilities[best]:.1%}")
    sys.exit(1 if failed else 0)


@main.command()
def doctor() -> None:
    """What scratchnet finds on this machine, and what would bring what is missing."""
    from scratchnet.doctor import report

    for name, finding in report():
        click.echo(f"{name:<13} {finding}")


main.add_command(study)
