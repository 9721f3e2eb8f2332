"""`scratchnet study` on the command line. What it needs is imported when it is called."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from scratchnet.study.course import Course
    from scratchnet.study.session import Session

Command = TypeVar("Command", bound=Callable[..., Any])
ELSEWHERE = {"page": "scratchnet.study.page_command"}  # a command of that name, in that module
SETTINGS = "scratchnet.study"  # key of ctx.meta


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep an option, which may stand before the command's name or behind it."""
    settings, name = ctx.meta.setdefault(SETTINGS, {}), parameter.name or ""
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        settings[name] = value
    elif value is not None:  # from the environment
        settings.setdefault(name, value)


def _setting(*names: str, **attributes: Any) -> Callable[[Command], Command]:
    return click.option(*names, expose_value=False, callback=_remember, **attributes)


seconds_option = _setting(
    "--seconds",
    type=click.FloatRange(min=0.1),
    envvar="SCRATCHNET_STUDY_SECONDS",
    show_envvar=True,
    help="How long a check may take.  [default: 10]",
)


def in_folder(command: Command) -> Command:
    """Give a command the options that all of them have."""
    folder = _setting(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of your files.  [default: the current one]",
    )
    exercises = _setting(
        "--course",
        type=click.Path(file_okay=False, exists=True, path_type=Path),
        hidden=True,
        help="Folder of other exercises than those that come with scratchnet.",
    )
    return folder(exercises(command))


class Study(click.Group):
    """The group, in which a number is a command too: the check of that exercise."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name."""
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name in ELSEWHERE:
            command: click.Command = getattr(importlib.import_module(ELSEWHERE[cmd_name]), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name."""
        if args[0].isdecimal():
            return args[0], check, args
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.format_message()} {_how(ctx, args[0])}", ctx) from error


def _how(ctx: click.Context, word: str) -> str:
    """How an exercise is called, to somebody who tried a word, such as the name of its file."""
    from scratchnet.study import terminal

    numbers = [exercise.number for exercise in _course(ctx)]
    first = re.match(r"\d+", Path(word).name)
    meant = int(first[0]) if first else None
    how = f"An exercise goes by its number, {numbers[0]} to {numbers[-1]}"
    if meant not in numbers:
        return f"{how}."
    return f"{how}: did you mean {terminal.command(_folder(ctx), str(meant))}?"


watch_option = click.option(
    "--watch", is_flag=True, show_default=False, help="Check at each save, and go on to the next."
)
number_argument = click.argument("number", metavar="[N]", required=False, type=int)


@click.group(
    cls=Study,
    invoke_without_command=True,
    subcommand_metavar="[N | COMMAND] [ARGS]...",
    context_settings={"show_default": True, "max_content_width": 100},
)
@watch_option
@seconds_option
@in_folder
@click.pass_context
def study(ctx: click.Context, /, watch: bool) -> None:
    """Backprop by doing it: exercises, each a Python file that you complete.

    Without a command it begins in the current folder, or goes on there: it checks the first
    exercise that is not solved yet. With a number it checks that exercise, and makes its file if it
    isn't there. Neither PyTorch nor a GPU nor a network is needed.
    """
    from scratchnet.study import terminal

    ctx.color = terminal.wants_colour()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without the mathematical signs
            stream.reconfigure(errors="replace")
    if ctx.invoked_subcommand is None:
        _study(ctx, None, watch)
    elif watch:
        raise click.UsageError("--watch stands behind the number: scratchnet study 3 --watch")


@click.command(hidden=True)
@click.argument("number", metavar="N", type=int)
@watch_option
@seconds_option
@in_folder
@click.pass_context
def check(ctx: click.Context, /, number: int, watch: bool) -> None:
    """Check exercise N."""
    _study(ctx, number, watch)


def _folder(ctx: click.Context) -> Path:
    folder: Path = ctx.meta[SETTINGS].get("folder", Path())
    return folder


def _course(ctx: click.Context) -> Course:
    from scratchnet.study import course

    return course.load(ctx.meta[SETTINGS].get("course", course.BUNDLED))


def _session(ctx: click.Context) -> Session:
    from scratchnet.study.sandbox import Limits
    from scratchnet.study.session import Session

    settings = ctx.meta[SETTINGS]
    given = {key: settings[key] for key in ("seconds",) if key in settings}
    if not all(map(math.isfinite, given.values())):
        raise click.BadParameter("expected a number, such as 30", ctx, param_hint="--seconds")
    return Session(_folder(ctx), _course(ctx), Limits(**given))


def _study(ctx: click.Context, number: int | None, watch: bool) -> None:
    """Begin, or go on; the exit status is 1 if the exercise that was checked is not right."""
    with _politely(ctx, watch):
        session = _session(ctx)
        is_new = session.begin(number)
        if number is None and session.next() is None:
            status = session.command("status")
            click.echo(f"All {len(session.course)} exercises are solved: {status}")
        elif watch:
            session.watch(session.find(number))
        elif not is_new:
            right = session.go_on_with(session.find(number))
            sys.exit(0 if right else 1)


@contextlib.contextmanager
def _politely(ctx: click.Context, watch: bool) -> Iterator[None]:
    """End on Ctrl-C, and say how to go on."""
    from scratchnet.study import terminal

    try:
        yield
    except KeyboardInterrupt:
        again = terminal.command(_folder(ctx), "--watch" if watch else "")
        click.echo(f"\nstopped; go on with: {again}")
        sys.exit(128 + signal.SIGINT)


def _begun(ctx: click.Context) -> Session:
    session = _session(ctx)
    session.must_have_begun()
    return session


@study.command()
@number_argument
@in_folder
@click.pass_context
def hint(ctx: click.Context, /, number: int | None) -> None:
    """Help with an exercise, a little more each time, three times.

    Without a number it is the first exercise that is not solved yet.
    """
    session = _begun(ctx)
    session.hint(session.find(number))


@study.command()
@number_argument
@in_folder
@click.pass_context
def why(ctx: click.Context, /, number: int | None) -> None:
    """Derive an exercise's formula, step by step."""
    session = _begun(ctx)
    session.why(session.find(number))


@study.command()
@click.argument("number", metavar="N", type=int)
@in_folder
@click.pass_context
def explain(ctx: click.Context, /, number: int) -> None:
    """Say what to take along from an exercise that is solved."""
    session = _begun(ctx)
    session.explain(session.find(number))


@study.command()
@click.argument("number", metavar="N", type=int)
@in_folder
@click.pass_context
def reset(ctx: click.Context, /, number: int) -> None:
    """Make an exercise's file anew; yours is kept beside it."""
    session = _begun(ctx)
    session.reset(session.find(number))


@study.command()
@in_folder
@click.pass_context
def status(ctx: click.Context, /) -> None:
    """Show which exercises are solved, with how many tries and hints."""
    _begun(ctx).status()


@study.command()
@click.option("--digit", type=click.IntRange(0, 9), default=3, help="Of the first image.")
@click.option("--batch", type=click.IntRange(1, 1000), default=4, help="Images.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    help="Of the weights and of the choice of images.",
)
def trace(digit: int, batch: int, seed: int) -> None:
    """Show a forward and a backward pass, number by number.

    Where PyTorch is installed its values are compared.
    """
    from scratchnet.study import trace

    click.echo(trace.text(digit, batch, seed))
