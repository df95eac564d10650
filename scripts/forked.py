"""Many cases in processes of their own: one that hangs, takes too much memory or ends its process is counted."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from tally import Tally

LIMIT = 10.0  # seconds
MOST_BYTES = 3 * 2**30  # of a process
Case = Callable[[int], tuple[str, str]]  # number -> how it ended, what was done


def run_forked(case: Case, inputs: int, start: int = 0) -> Tally:
    """Cases `start` and following; after one that hangs or ends its process the next begins in another."""
    tally, fork, number, end = Tally(), multiprocessing.get_context("fork"), start, start + inputs
    while number < end:
        told, tell = fork.Pipe(duplex=False)
        process = fork.Process(target=_work, args=(case, range(number, end), tell), daemon=True)
        process.start()
        tell.close()
        while number < end:
            try:
                if not told.poll(LIMIT):
                    tally.add(f"hangs: {number}")
                    break
                ended, done, seconds = told.recv()
            except EOFError:
                process.join()
                tally.add(f"ends its process ({process.exitcode}): {number}")
                break
            tally.add(ended, seconds, f"{number} {done}")
            number += 1
        else:
            process.join()
            continue
        process.kill()
        process.join()
        number += 1
    return tally


def _work(case: Case, numbers: range, told: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    for number in numbers:
        begun = time.perf_counter()
        told.send((*case(number), time.perf_counter() - begun))
