"""The entry point: the table of commands, and how errors leave the process."""

import io
import logging
import os
import sys
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NoReturn

from . import signals

signals.end_at_once()  # the imports below take most of a start

import typer  # noqa: E402

from sbert_mini import __version__  # noqa: E402
from sbert_mini.errors import EXTRA_OF, MissingExtraError, SbertMiniError  # noqa: E402
from sbert_mini.files import system  # noqa: E402
from sbert_mini.progress import close_bars  # noqa: E402

from . import (  # noqa: E402
    agents,
    bench,
    cluster,
    dedup,
    demo,
    describing,
    doctor,
    encode,
    explain,
    index,
    joining,
    map,
    migrating,
    mine,
    models,
    predict,
    reduce,
    rows,
    search,
    serve,
    sync,
    train,
)
from .notes import ClosedOutput, Interrupted, NoteHandler, in_options  # noqa: E402
from .once import OnceGroup, refuse_repeated_options  # noqa: E402
from .printing import print_error, print_text, set_raw  # noqa: E402

EPILOG = "Documentation: README.md and docs/ of the project. Every command has its own --help with an example."

app = typer.Typer(
    name="sbmini",
    cls=OnceGroup,
    help="Sentence embeddings that are small, fast and offline: encode texts, index them, search them, and "
    "train your own.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("encode", epilog=encode.EXAMPLE)(encode.encode)
for name, command, example in (
    ("list", rows.list_rows, rows.LIST_EXAMPLE),
    ("get", rows.get, rows.GET_EXAMPLE),
    ("export", rows.export, rows.EXPORT_EXAMPLE),
):
    index.app.command(name, epilog=example)(command)
index.app.command("info", epilog=describing.EXAMPLE)(describing.info)
index.app.command("merge", epilog=joining.EXAMPLE)(joining.merge)
index.app.command("migrate", epilog=migrating.EXAMPLE)(migrating.migrate)
index.app.command("sync", epilog=sync.EXAMPLE)(sync.sync)
app.add_typer(index.app, name="index")
app.command("search", epilog=search.EXAMPLE)(search.search)
app.command("serve", epilog=serve.EXAMPLE)(serve.serve)
app.command("mcp", epilog=agents.EXAMPLE)(agents.mcp)
app.command("dedup", epilog=dedup.EXAMPLE)(dedup.dedup)
app.command("cluster", epilog=cluster.EXAMPLE)(cluster.cluster)
app.command("explain", epilog=explain.EXAMPLE)(explain.explain)
app.command("map", epilog=map.EXAMPLE)(map.map_rows)
app.command("mine", epilog=mine.EXAMPLE)(mine.mine)
app.add_typer(reduce.app, name="reduce")
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("soup", epilog=train.SOUP_EXAMPLE)(train.soup)
app.add_typer(train.recipes, name="recipes")
app.command("predict", epilog=predict.EXAMPLE)(predict.predict)
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)
refuse_repeated_options(app)


def _print_version(requested: bool) -> None:
    if requested:
        print_text(f"sbmini {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Print control characters of texts and names as they are, where \\x1b or \\u202e would stand for them.",
        ),
    ] = False,
) -> None:
    set_raw(raw)


def main() -> NoReturn:
    """Run the command line and end the process with its exit code.

    0: done. 1: failed. 2: a usage error. 4: partly done. 128 + the signal's number: ended by Ctrl-C (130), SIGTERM (143) or
    SIGHUP (129), all of which clean up alike. A reader that closes the pipe early is no error: the command ends quietly, with 0.
    Data for a standard output that is closed is an error.
    """
    _prepare()
    code = run()
    signals.end_at_once()
    with suppress(OSError):
        sys.stdout.flush()
    sys.stderr.flush()
    # Every file is closed by now; taking the interpreter and its libraries apart would cost a tenth of a start.
    os._exit(code)


def _prepare() -> None:
    """Make the process' streams fit for data in any language, and send notes to stderr."""
    for descriptor in range(3):  # what the caller closed (>&-): no file that is opened later may take its place
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDONLY)  # gets the lowest free number
    if sys.stdout is None:
        sys.stdout = ClosedOutput()
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.excepthook = _print_traceback
    ours = logging.getLogger("sbert_mini")
    ours.addHandler(NoteHandler())
    ours.propagate = False  # a library may put a handler of its own at the root


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an error that nothing expected; its text may hold a stranger's."""
    print_error("".join(traceback.format_exception(kind, error, trace)).rstrip())


@cache
def _command() -> Any:
    """Return the tree of commands, which takes longer to build than most commands to answer: once a process."""
    return typer.main.get_command(app)


def run() -> int:
    """Run the command line in `sys.argv` and return its exit code."""
    debug = "--debug" in sys.argv[1:]
    set_raw(False)
    signals.raise_interrupts()
    try:
        code = _command()(standalone_mode=False)
        if code == 130:  # typer swallows Ctrl-C and returns this
            raise KeyboardInterrupt
        sys.stdout.flush()
    except SystemExit as end:  # typer turns a broken pipe into this
        if isinstance(end.__context__, BrokenPipeError):
            return _report(end.__context__)
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if signals.came():
            return _report(KeyboardInterrupt())
        if debug or package not in EXTRA_OF:
            raise
        return _report(MissingExtraError("this command", package, EXTRA_OF[package]))
    except (
        SbertMiniError,
        OSError,
        MemoryError,
        typer.TyperException,
        typer.Abort,
        Interrupted,
        KeyboardInterrupt,
    ) as error:
        if debug and not isinstance(error, typer.TyperException):
            print_error(traceback.format_exc().rstrip())
        return _report(error)
    except Exception:
        if debug or not signals.came():
            raise
        return _report(KeyboardInterrupt())
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Print one line for the error and return the exit code."""
    close_bars()
    if isinstance(error, BrokenPipeError):
        if not system.reader_left(1):
            print_error("sbmini: error: what the command writes to was closed by its reader")
            return 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the exit's own flush is silent
        return 0
    if isinstance(error, (KeyboardInterrupt, typer.Abort, Interrupted)):
        from sbert_mini.files.durable import remove_own_parts

        signals.end_at_once()
        remove_own_parts()
        with suppress(OSError):  # the terminal may be gone
            print_error(f"sbmini: interrupted; {str(error) or 'nothing of this run was kept'}")
        return signals.exit_code()
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        text = error.format_message()
        if text.startswith("Usage:"):  # a command group without a command: its help
            print_error(text)
        else:
            print_error(f"sbmini: error: {text} (see '{context.command_path if context else 'sbmini'} --help')")
        return error.exit_code
    text = in_options(" ".join(_text_of(error).split()), getattr(error, "parameter", None)) or type(error).__name__
    print_error(f"sbmini: error: {text}")
    return error.exit_code if isinstance(error, SbertMiniError) else 1


def _text_of(error: BaseException) -> str:
    """Return an error's text; of one of the system without its number, which says nothing to most people."""
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, (str, bytes)):
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    main()
