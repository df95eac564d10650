"""Many cases in processes of their own: one that hangs, takes too much memory or ends its process is counted."""

import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from tally import Tally

LIMIT = 10.0  # seconds of a processor that a case may take
WAIT = 120.0  # seconds after which one that takes none is given up
MOST_BYTES = 3 * 2**30  # of a process
Case = Callable[[int], tuple[str, str]]  # number -> how it ended, what was done


def run_forked(case: Case, inputs: int, start: int = 0, begin: Callable[[], object] = lambda: None) -> Tally:
    """Cases `start` and following; after one that hangs or ends its process the next begins in another.

    `begin` is called in each process before its first case.
    """
    tally, fork, number, end = Tally(), multiprocessing.get_context("fork"), start, start + inputs
    while number < end:
        told, tell = fork.Pipe(duplex=False)
        process = fork.Process(target=_work, args=(case, range(number, end), tell, begin), daemon=True)
        process.start()
        tell.close()
        while number < end:
            try:
                if not told.poll(WAIT):
                    tally.add(f"hangs: {number}")
                    break
                ended, done, seconds = told.recv()
            except EOFError:
                process.join()
                end_of = "hangs" if process.exitcode == -signal.SIGPROF else f"ends its process ({process.exitcode})"
                tally.add(f"{end_of}: {number}")
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


def _work(case: Case, numbers: range, told: Connection, begin: Callable[[], object]) -> None:
    begin()
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    for number in numbers:
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        begun = time.process_time()
        told.send((*case(number), time.process_time() - begun))
