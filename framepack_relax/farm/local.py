"""The executor of one machine: a process for each GPU, or several for its cores, each with a model of its own."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from ..families.heap import keep_steady
from ..rendering.events import Event
from .executor import Models, Told, Unit, Units, perform

TICK = 0.5  # seconds without events after which the run loop looks around
LEAVE = 15.0  # seconds that a worker has to save and leave
WORK = (sys.executable, "-m", "framepack_relax.farm.local")


@dataclass(frozen=True, kw_only=True)
class Local:
    """`gpus` are what CUDA_VISIBLE_DEVICES calls them, one worker each; without, `workers` on the CPU.

    `threads` of PyTorch are each worker's on a CPU. Films do not depend on how many workers there are. What workers
    print, or the system about them, goes to files in the folder `logs`.
    """

    logs: Path

    gpus: tuple[str, ...] = ()
    processes: int = 1
    threads: int = 1

    @property
    def workers(self) -> int:
        return len(self.gpus) or self.processes

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    def run(self, units: Units) -> Generator[Told | None]:
        inbox: SimpleQueue[tuple[_Worker, Event | None]] = SimpleQueue()
        workers = [_Worker(name, more, self.logs, inbox) for name, more in self._places()]
        with closing(_Crew(workers)):
            while True:
                for worker in (worker for worker in workers if worker.unit is None):
                    if (unit := units.take(worker.name)) is None:
                        break
                    worker.begin(unit)
                if units.over and not any(worker.unit for worker in workers):
                    return
                try:
                    worker, event = inbox.get(timeout=TICK)
                except Empty:
                    yield None
                    continue
                unit, event = worker.unit, event or worker.died()
                if event.kind == "ended":
                    worker.unit = None
                if unit is not None:
                    yield Told(worker.name, unit, event)

    def _places(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Name and environment of each worker."""
        threads = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        for number in range(self.workers):
            if self.gpus:
                yield f"gpu {self.gpus[number]}", {"CUDA_VISIBLE_DEVICES": self.gpus[number]}
            else:
                yield f"worker {number}", {"CUDA_VISIBLE_DEVICES": "", **threads}


class _Crew:
    def __init__(self, workers: "list[_Worker]") -> None:
        self.workers = workers

    def close(self) -> None:
        """All are asked first, so that they leave at the same time."""
        for worker in self.workers:
            worker.ask_to_leave()
        for worker in self.workers:
            worker.leave()


class _Worker:
    """A process that is started with its first unit, and anew after its death."""

    def __init__(
        self, name: str, more: Mapping[str, str], logs: Path, inbox: "SimpleQueue[tuple[_Worker, Event | None]]"
    ) -> None:
        self.name, self.environment, self.inbox = name, {**os.environ, **more}, inbox
        self.log = logs / f"{name.replace(' ', '-')}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.unit: Unit | None = None

    def begin(self, unit: Unit) -> None:
        self.unit = unit
        if self.process is None:
            pipe = subprocess.PIPE
            with open(self.log, "ab") as log:
                # a session of its own: Ctrl-C reaches it through the one that has begun it
                self.process = subprocess.Popen(
                    WORK, stdin=pipe, stdout=pipe, stderr=log, env=self.environment, start_new_session=True
                )
            Thread(target=self._listen, args=[self.process], daemon=True).start()
        Thread(target=self._send, args=[self.process, unit], daemon=True).start()

    def _send(self, process: "subprocess.Popen[bytes]", unit: Unit) -> None:
        """Beside all else: a worker reads as soon as it has begun, and not where it hangs."""
        assert process.stdin is not None
        try:
            pickle.dump(unit, process.stdin)
            process.stdin.flush()
        except (OSError, ValueError):  # it has died, which its listener tells, or is asked to leave
            pass
        except Exception:  # of a unit that cannot be sent nobody would hear
            process.kill()
            raise

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        with suppress(Exception):  # cut off by its death, or what it says cannot be understood
            while True:
                self.inbox.put((self, pickle.load(process.stdout)))  # type: ignore[arg-type]
        process.kill()
        self.inbox.put((self, None))

    def died(self) -> Event:
        assert self.process is not None
        code, self.process = self.process.wait(), None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Event(kind="ended", cause="death", text=f"its worker process ended with {how}")

    def ask_to_leave(self) -> None:
        if self.process:
            self.process.terminate()

    def leave(self) -> None:
        if self.process:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(LEAVE)
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


def work(units: BinaryIO, events: BinaryIO) -> None:
    """A worker's life: does each unit that it is sent, and leaves when nobody is there to send more."""
    models: Models = Models()
    sent: SimpleQueue[Unit | None] = SimpleQueue()

    def receive() -> None:
        """Beside the work, so that it ends with who ordered it."""
        try:
            with suppress(EOFError):
                while True:
                    sent.put(pickle.load(units))
        finally:  # also where it is cut off in the midst of a unit, or cannot read one, which its log then shows
            os.kill(os.getpid(), signal.SIGTERM)

    def tell(event: Event) -> None:
        pickle.dump(event, events)
        events.flush()

    Thread(target=receive, daemon=True).start()
    while True:
        unit: Any = sent.get()
        perform(unit, models, tell)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keep_steady()
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no event
    with suppress(BrokenPipeError, SystemExit):
        work(sys.stdin.buffer, events)
    os._exit(0)  # the thread that waits for its input would not let it go
