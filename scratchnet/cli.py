"""The commands: train, evaluate, predict, doctor."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import numpy.typing as npt
from click.core import ParameterSource
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import scratchnet
from scratchnet import backend, checkpoint, engines, files, functional, mnist
from scratchnet.checkpoint import SavedModel, SavedRun
from scratchnet.errors import InputError
from scratchnet.training import RECIPES, Diverged, Options, Run, evaluate
from scratchnet.training import predict as predict_logits

DEFAULTS = Options()
SUMMARY = "summary.json"
Command = TypeVar("Command", bound=Callable[..., Any])


class UnusableInput(click.ClickException):
    """What the user gave can't be used."""

    exit_code = 2  # as click has it for wrong options


class OneLineErrors(click.Command):
    """A command that tells the user's errors in one line, and a programmer's in full."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except Diverged as error:
            raise click.ClickException(str(error)) from error
        except InputError as error:
            raise UnusableInput(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise UnusableInput(f"{where}{error.strerror or error}") from error
        except MemoryError as error:
            raise UnusableInput(
                f"not enough memory: {error}; try smaller --hidden, --batch-size or --epochs"
            ) from error


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
@click.option("--limit", type=int, help="Train on the first so many images only.")
@data_option
@device_option
@click.option(
    "--engine",
    type=click.Choice([engines.AUTO, *engines.NAMES]),
    default="layers",
    help="What makes the updates: layers, the readable one; numpy_inplace, the same without new "
    "arrays; native, in C; auto, the fastest that works here. Equal up to rounding.",
)
@_folder_option("--out", "Folder for the results.  [default: the next free of runs/1, runs/2, ...]")
@_folder_option("--resume", "Go on with the run in this folder, whose own options hold.")
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
    **options: Any,
) -> None:
    """Train Mnist_NN, and leave model, losses and pictures in a folder."""
    start = time.perf_counter()
    if resume is None:
        run, splits, out = _new_run(Options(**options), data, device, engine, out)
    else:
        run, splits, data, out = _resumed_run(ctx, resume, data, device)
    click.echo(f"{_describe(run)} -> {out}")
    if _is_complete(run, out):
        click.echo(f"this run is complete: see {out / SUMMARY}")
        return
    try:
        with files.lock(out):
            accuracies = _train_and_finish(run, splits, out, data, save_every)
    except KeyboardInterrupt:
        click.echo(f"interrupted; {_go_on(out)}", err=True)
        sys.exit(128 + signal.SIGINT)
    click.echo(accuracies)
    click.echo(f"the whole command took {time.perf_counter() - start:.1f} s")


def _is_complete(run: Run, out: Path) -> bool:
    """Whether all is done. The summary is written last, and a longer run has more steps."""
    try:
        summary = json.loads((out / SUMMARY).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return bool(run.total_steps == run.step == summary["steps"])


def _go_on(out: Path) -> str:
    return f"go on with: scratchnet train --resume={shlex.quote(str(out))}"


def _new_run(
    options: Options, data: Path | None, device: str, engine: str, out: Path | None
) -> tuple[Run, mnist.Mnist, Path]:
    device = _resolve(device)
    splits = mnist.load(data)
    if engine == engines.AUTO:
        reason = engines.why_not("native")
        if reason and device == "cpu":
            click.echo(f"{reason}; until then it is numpy_inplace", err=True)
    run = Run(options, splits.train, device, engine=engine)
    engines.make(engine, run)  # which says now, and not in the midst of things, if it can't
    return run, splits, _make_folder(out)


def _resumed_run(
    ctx: click.Context, folder: Path, data: Path | None, device: str
) -> tuple[Run, mnist.Mnist, Path | None, Path]:
    given = {name for name in ctx.params if _was_given(ctx, name)}
    fixed = given - {"resume", "epochs", "data", "device", "engine", "save_every"}
    if fixed:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(fixed))
        raise InputError(f"{names}: can't be changed in a resumed run; leave it out")
    saved = SavedRun.read(folder)
    data = data or saved.data
    device = _resolve(device if "device" in given else saved.device)
    splits = mnist.load(data)
    epochs, engine = (ctx.params[name] if name in given else None for name in ("epochs", "engine"))
    run = saved.resume(splits.train, device=device, engine=engine, epochs=epochs)
    return run, splits, data, folder


def _was_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _resolve(device: str) -> str:
    """The device to use. Says why not the GPU, where CuPy is there and one could expect it."""
    reason = backend.why_no_gpu()
    if device == "auto" and reason and reason != backend.NO_CUPY:
        click.echo(f"no GPU: {reason}", err=True)
    return backend.resolve(device)


def _make_folder(out: Path | None) -> Path:
    """The folder for a new run: never one that holds another."""
    if out is None:
        number = 1
        while True:
            with contextlib.suppress(FileExistsError):
                out = Path("runs", str(number))
                out.mkdir(parents=True)
                return out
            number += 1
    if (out / checkpoint.RUN).exists():
        raise InputError(
            f"{out}: holds a run already; expected a new folder: give another --out, or "
            f"{_go_on(out)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _describe(run: Run) -> str:
    options, lin1, lin2 = run.options, run.model.lin1.weight, run.model.lin2.weight
    return (
        f"Mnist_NN {lin1.shape[1]}-{lin1.shape[0]}-{lin2.shape[0]}, recipe {options.recipe}, "
        f"{len(run.labels)} images, {run.total_steps - run.step} steps of {options.batch_size}, "
        f"on {run.device}, engine {run.engine}"
    )


def _train(
    run: Run, validation: mnist.Split, out: Path, data: Path | None, save_every: int
) -> float:
    """Make the updates that are left, saving now and then. Returns the seconds it took."""
    saved = 0

    def save() -> None:
        nonlocal saved
        run.check()
        checkpoint.save_run(out / checkpoint.RUN, run, data)
        checkpoint.save_model(out / checkpoint.MODEL, run.model, run.normalization, data)
        saved = run.step

    save()
    start = time.perf_counter()
    # Products this small are fastest on one thread, which other programs also slow down less.
    threads = 1 if run.options.batch_size < 512 else None
    with (
        threadpool_limits(threads, user_api="blas"),
        _interrupts() as interrupted,
        _Progress(run, validation) as progress,
    ):
        try:
            for updates in run.train(every=save_every):
                progress.update(updates)
                if interrupted:
                    save()
                    click.echo(
                        f"interrupted after step {run.step} of {run.total_steps}; {_go_on(out)}",
                        err=True,
                    )
                    sys.exit(128 + interrupted[0])  # as a shell has it
                if run.step % save_every == 0:
                    save()
            if saved != run.step:
                save()
        except Diverged as error:
            raise Diverged(f"{error}; the checkpoint of step {saved} stays in {out}") from None
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

    It is silent where stderr is no terminal.
    """

    def __init__(self, run: Run, validation: mnist.Split) -> None:
        self.run = run
        # Enough for two digits, few enough not to slow the training down.
        self.sample = mnist.Split(validation.images[:2000], validation.labels[:2000])
        silent = sys.stderr is None or not sys.stderr.isatty()
        self.bar = tqdm(total=run.total_steps, initial=run.step, unit="step", disable=silent)
        self.shown = 0.0

    def update(self, updates: int) -> None:
        self.bar.update(updates)
        now = time.perf_counter()
        if not self.bar.disable and now - self.shown > 0.2:
            loss = np.mean(self.run.losses[-50:])
            accuracy = evaluate(self.run.model, self.sample, self.run.normalization).accuracy
            self.bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.1%}", refresh=False)
            self.shown = now

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def _train_and_finish(
    run: Run, splits: mnist.Mnist, out: Path, data: Path | None, save_every: int
) -> str:
    """Train, and write what is for reading: losses, pictures and summary. Returns how it went."""
    resumed_at = run.step
    seconds = _train(run, splits.validation, out, data, save_every)
    validation = evaluate(run.model, splits.validation, run.normalization)
    test = evaluate(run.model, splits.test, run.normalization)
    files.write(out / "losses.csv", _losses_csv(run).encode())
    _draw(run, splits.test, test.logits, out)
    summary = {
        **dataclasses.asdict(run.options),
        "lr": run.lr,
        "data": None if data is None else str(data),
        "device": run.device,
        "engine": run.engine,
        "normalization": dataclasses.asdict(run.normalization),
        "steps": run.step,
        "resumed_at_step": resumed_at,
        "seconds": round(seconds, 4),
        "validation_loss": validation.loss,
        "validation_accuracy": validation.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "versions": _versions(run.device),
    }
    files.write(out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    return (
        f"validation accuracy {validation.accuracy:.2%}, test accuracy {test.accuracy:.2%}; "
        f"{run.step - resumed_at} steps in {seconds:.2f} s"
    )


def _versions(device: str) -> dict[str, str]:
    versions = {
        "scratchnet": scratchnet.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return versions | ({"cupy": backend.cupy().__version__} if device == "cuda" else {})


def _draw(run: Run, test: mnist.Split, logits: npt.NDArray[np.floating], out: Path) -> None:
    # A notebook names a backend in the environment, which matplotlib may not find from here.
    os.environ["MPLBACKEND"] = "agg"
    from scratchnet import plots  # brings matplotlib, which takes half a second

    plots.losses(out / "losses.png", run.losses, run.lrs, run.steps_per_epoch)
    plots.weights(out / "weights.png", backend.to_numpy(run.model.lin1.weight.data))
    plots.confusion(out / "confusion.png", test.labels, logits.argmax(axis=1))
    probabilities = functional.softmax_forward(logits)
    plots.mistakes(out / "mistakes.png", test.images, test.labels, probabilities)


def _losses_csv(run: Run) -> str:
    lines = ["step,epoch,learning_rate,loss"]
    for step, (lr, loss) in enumerate(zip(run.lrs.tolist(), run.losses, strict=True)):
        lines.append(f"{step + 1},{step // run.steps_per_epoch + 1},{lr!r},{loss!r}")
    return "\n".join(lines) + "\n"


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
