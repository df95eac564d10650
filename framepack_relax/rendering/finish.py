"""What a maker's own commands make of a film, shot by shot: `rife`, an upscaler; joined to finish/film.mp4.

A command gets each shot as an mp4 and writes another one. It is a list of words, run as they are, by no shell. The film
itself, video.mp4, stays. What a command made lies in finish/ under the key of what it was made from, and is not made
again.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ..errors import RenderError
from ..files import make_folder, settle
from ..storyboard.messages import printable
from ..storyboard.schema import Finish
from .carry import story_tags
from .events import Event, Hear
from .films import is_whole
from .folder import writing
from .keys import hash_of
from .mark import FACTS_TAG, FILM, FINISHED
from .session import Session

MADE = re.compile(r"[0-9a-f]{32}\.mp4")
BLOCK = 32  # frames that are encoded at a time
CRF = 1  # of what a command is given
SAID = 200  # last characters of what a command printed that are told
Frames = Iterable[NDArray[np.uint8]]


def finish(session: Session, on_event: Hear) -> Path | None:
    """The finished film; None where the board asks for none. Raises RenderError where a command fails."""
    steps, plan, whole = session.story.finish, session.plan, session.out / FINISHED
    if not steps or is_finished(session):
        return whole if steps else None
    from ..video.reader import read_frames  # needs PyAV

    frames, shots, kept, place = read_frames(session.out / FILM), list[Path](), set[Path](), whole.parent
    with writing(place):
        make_folder(place)
        for rest in place.glob(".*"):  # of one that was killed
            shutil.rmtree(rest, ignore_errors=True)
        with TemporaryDirectory(prefix=".", dir=place) as scratch:
            for shot in plan.shots:
                made_from = [[session.keys[i].key for i in shot.sections], plan.decode, plan.fps, session.story.crf]
                names = [hash_of([made_from, [step.run for step in steps[: n + 1]]]) for n in range(len(steps))]
                files = [place / f"{name}.mp4" for name in names]
                done = max((n for n, file in enumerate(files) if file.exists()), default=-1)
                source, clip = Path(scratch, "shot.mp4"), islice(frames, shot.frames[1] - shot.frames[0])
                if done < 0:
                    _encode(source, clip, plan.rate, CRF)
                else:
                    source = files[done]
                    deque(clip, maxlen=0)  # its frames are passed over
                for number in range(done + 1, len(files)):
                    where = f"finish[{number}], shot {shot.index}"
                    on_event(Event(kind="note", text=f"{where}: {_named(steps[number])}"))
                    source = _run(where, steps[number], source, files[number], Path(scratch))
                shots.append(source)
                kept |= {*files}
            _join(session, shots, whole)
        for file in place.iterdir():
            if MADE.fullmatch(file.name) and file not in kept:
                file.unlink()
    return whole


def is_finished(session: Session) -> bool:
    """Whether all that the board's commands make of the film is there. Raises RenderError for an error of the disk."""
    return not session.story.finish or is_whole(session.out / FINISHED, _key(session))


def _key(session: Session) -> str:
    return hash_of([session.mark.film, [step.run for step in session.story.finish or ()]])


def _named(step: Finish) -> str:
    return printable(" ".join(step.run), 200)


def _encode(path: Path, frames: Frames, rate: Fraction, crf: int, session: Session | None = None) -> None:
    """Writes frames, of which all must have one size; with a session its film, with its sound."""
    from ..video.sound import encode_sound
    from ..video.writer import Mp4Writer, WriteError

    all_frames = iter(frames)
    first = next(all_frames)
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise RenderError(f"{path}: frames of {width}x{height} px cannot be H.264; let the command make even sides")
    tags = {"title": session.plan.title, **story_tags(session, lambda note: None)} if session else {}
    with writing(path, kind=WriteError):
        with Mp4Writer(path, fps=rate, size=(width, height), crf=crf, metadata=tags) as writer:
            rest = chain([first], all_frames)
            while block := list(islice(rest, BLOCK)):
                if {frame.shape for frame in block} != {first.shape}:
                    raise RenderError(f"{path}: the shots that the commands made have different sizes")
                writer.write(np.stack(block))
            if session and session.sound:
                writer.sound = encode_sound(session.sound, writer.frames / rate)
            if session:
                facts = {"film": _key(session), "of": session.mark.film, "packets": writer.digest}
                writer.metadata[FACTS_TAG] = json.dumps(facts)


def _run(where: str, step: Finish, source: Path, target: Path, scratch: Path) -> Path:
    """Runs a command on a shot; gives the `target`, which appears whole or not at all. Raises RenderError."""
    from ..video.reader import read_frames

    made, log, kept = scratch / "made.mp4", scratch / "log.txt", "what is finished is kept"
    made.unlink(missing_ok=True)
    places = {"{input}": str(source.absolute()), "{output}": str(made.absolute())}
    words = [re.sub(r"\{(?:in|out)put\}", lambda found: places[found[0]], word) for word in step.run]
    try:
        with (
            log.open("wb") as said,
            subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            ) as process,
        ):
            try:
                code = process.wait(step.timeout)
            finally:
                if process.poll() is None:  # also at Ctrl-C: with all that it has started
                    process.kill() if os.name == "nt" else os.killpg(process.pid, signal.SIGKILL)
    except subprocess.TimeoutExpired as error:
        fact = f"has run for {step.timeout:g} s and was stopped; give it more `timeout`"
        raise RenderError(f"{where}: {_named(step)}: {fact}; {kept}") from error
    except OSError as error:
        raise RenderError(f"{where}: {_named(step)}: cannot be run ({error.strerror}); {kept}") from error
    told = printable(log.read_bytes()[-SAID:].decode("utf8", "replace").strip(), SAID)
    if code:
        raise RenderError(f"{where}: {_named(step)}: ended with code {code} ({told}); {kept}")
    try:
        next(read_frames(made))
    except RenderError as error:
        raise RenderError(f"{where}: {_named(step)}: has made no film ({told or error}); {kept}") from error
    settle(made, target)
    return target


def _join(session: Session, shots: Sequence[Path], target: Path) -> None:
    """One film of the finished shots, with the sound, that carries what the film carries."""
    from ..video.reader import read_frames, read_header

    rates = {read_header(shot)[1] for shot in shots}
    if len(rates) > 1:
        told = ", ".join(f"{rate:g}" for rate in sorted(rates))
        raise RenderError(f"{target}: the shots that the commands made have different rates ({told} frames a second)")
    rate = Fraction(rates.pop()).limit_denominator(1001)
    _encode(target, chain.from_iterable(map(read_frames, shots)), rate, session.story.crf, session)
