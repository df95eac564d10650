"""The command line: typer commands over the Python API."""

import io
import os
import signal
import sys

from ..errors import MemoryFullError, RelaxError
from ..families.heap import keep_steady
from . import exchange, farm, films, measure, takes
from .app import MEMORY_FULL, STOPPED, app, errors, processes

__all__ = ["app", "exchange", "farm", "films", "main", "measure", "takes"]


def main() -> None:
    """Entry point: what a user can mend is printed without a traceback, exit code 2, or 3 where memory is full."""
    keep_steady()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a console or a log cannot show is shown by its number
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        if processes() > 1:  # rank 0 is the command; the others serve it, and end with it
            if int(os.environ["RANK"]):
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            from ..families.ranks import join

            join()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # stops a render as Ctrl-C does
        app()
    except RelaxError as error:
        errors.aside(str(error))
        sys.exit(MEMORY_FULL if isinstance(error, MemoryFullError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        try:
            print(flush=True)  # shows whether it is standard output that takes nothing
        except OSError:
            errors.aside(f"standard output: cannot be written ({error.strerror}); make room or send it elsewhere")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in its buffer
            sys.exit(2)
        if not error.filename:
            raise
        errors.aside(f"{error.filename}: {error.strerror}; mend that and run the same command again")
        sys.exit(2)
