"""Damages small films in every way and gives them to rerun and eval: each is read, or told in one message, soon.

Run by scripts/fuzz.py films.
"""

import base64
import io
import json
import random
import shutil
import tempfile
import traceback
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from forked import run_forked
from PIL import Image
from tally import Tally

import framepack_relax as fr
from framepack_relax.evaluate.detectors import find_failures
from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.flow import measure_motion
from framepack_relax.evaluate.frames import Kept
from framepack_relax.rendering.carry import FACTS_TAG, IMAGES_TAG, STORYBOARD_TAG, provenance
from framepack_relax.rendering.folder import difference
from framepack_relax.video.reader import read_metadata
from framepack_relax.video.writer import Mp4Writer

BOXES = (
    *(b"ftyp moov mvhd trak tkhd edts elst mdia mdhd hdlr minf stbl stsd avc1 avcC stts stss stsc stsz stco ctts udta "
      b"meta keys ilst data mdat mvex trex moof mfhd traf tfhd tfdt trun mfra free").split(),
    b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75",
    b"\x12\x54\xc3\x67", b"\x1c\x53\xbb\x6b", b"RIFF", b"LIST", b"movi", b"strf", b"avih", b"idx1",
)  # fmt: skip
NUMBERS = (0, 1, 2, 7, 8, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
STORY = "image: images/0.png\nscenes: [{id: a, prompt: a red figure walks, seconds: 1.2}]\n"


def tags() -> dict[str, str]:
    """What a film of ours carries."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(picture, "PNG")
    scenes = [{"id": "a", "prompt": "x", "frames": [0, 10]}, {"id": "b", "prompt": "y", "frames": [10, 24]}]
    facts = {"model": "puppet", "dtype": "torch.float32", "versions": {"torch": "2"}, "scenes": scenes}
    images = {"images/0.png": base64.b64encode(picture.getvalue()).decode("ascii")}
    return {"title": "x", FACTS_TAG: json.dumps(facts), STORYBOARD_TAG: STORY, IMAGES_TAG: json.dumps(images)}


def make_films(folder: Path) -> list[bytes]:
    """Small films of our own making: whole, under way, in other containers, at a variable rate."""
    frames = np.random.default_rng(0).integers(0, 60, (24, 48, 64, 3), dtype=np.uint8)
    for number in range(24):
        frames[number, 10:30, 2 * number : 2 * number + 12] = (240, 200, 60)
    with Mp4Writer(folder / "whole.mp4", fps=30, size=(64, 48), crf=20, metadata=tags()) as writer:
        writer.write(frames[:12])
        writer.write(frames[12:])
        shutil.copy(writer.growing, folder / "part.mp4")
    for name in ("a.mkv", "a.avi", "a.ts", "variable.mp4"):
        with av.open(str(folder / name), "w") as container:
            container.metadata.update(tags())
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 90)
            for number, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = 3 * number + 30 * (name > "v" and number > 9), Fraction(1, 90)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return [file.read_bytes() for file in sorted(folder.iterdir())]


def damaged(film: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The film with one to six damages, and their names."""
    data, done = bytearray(film), []
    for _ in range(rng.randint(1, 6)):
        kind = rng.choice(("bits", "bytes", "box", "number", "cut", "swap", "double", "zeros"))
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        b = min(b, a + rng.choice((4, 64, 1000)))
        if kind == "bits":
            for _ in range(rng.randint(1, 40)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == "bytes":
            data[a:b] = rng.randbytes(b - a)
        elif kind in ("box", "number"):
            places = [at for box in BOXES if (at := data.find(box)) >= 0]
            at = max(0, (rng.choice(places) if places and kind == "box" else a) + rng.choice((-4, 4, 8, 12, 16, 20)))
            data[at : at + 4] = rng.choice(NUMBERS).to_bytes(4, rng.choice(("big", "little")))
        elif kind == "cut":
            del data[rng.choice((a, len(data) - rng.randrange(200))) :]
        elif kind == "swap":
            data[a:b], data[-(b - a) :] = data[-(b - a) :], data[a:b]
        elif kind == "double":
            data[a:a] = data[a:b] * rng.choice((1, 2, 50))
        else:
            data[a:b] = bytes(b - a)
        done.append(kind)
        if not data:
            break
    return bytes(data), " ".join(done)


def walk(file: Path, out: Path) -> bool:
    """All that is done with a film; whether all of it could be."""
    told = 0
    for work in (lambda: read_metadata(file), lambda: fr.restore(file, out), lambda: measure(file)):
        try:
            work()
        except (fr.FilmError, fr.RenderError, fr.StoryboardError) as error:
            assert str(file) in str(error) and "\x1b" not in str(error), str(error)
            told += 1
    difference(provenance(file), {"weights": "x", "versions": {"torch": "3"}})
    return not told


def measure(file: Path) -> None:
    film = read_film(file, Kept(2**20))
    for scene in film.scenes:
        len(film.cut(scene).frames)
    few = film.frames[:4]
    measure_motion(few, film.fps)
    if len(few) > 1:
        find_failures(few, film.fps)
    for _ in film.frames:
        pass


def run(inputs: int, start: int = 0) -> Tally:
    """Tries `inputs` damaged films."""
    cv2.setNumThreads(1)  # its threads do not survive a fork
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "films")
        place.mkdir()
        films = make_films(place)
        file, out = Path(name, "film.mp4"), Path(name, "out")

        def case(number: int) -> tuple[str, str]:
            rng = random.Random(number)
            film = rng.randrange(len(films))
            data, done = damaged(films[film], rng)
            file.write_bytes(data)
            shutil.rmtree(out, ignore_errors=True)
            try:
                end = "works" if walk(file, out) else "located errors"
            except Exception as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                end = f"traceback: {type(error).__name__}: {str(error)[:200]} at {Path(at.filename).name}:{at.lineno}"
            return end, f"film {film}: {done}"

        assert all(case_of(film, file, out) for film in films), "every film is read as long as it is whole"
        return run_forked(case, inputs, start)


def case_of(film: bytes, file: Path, out: Path) -> bool:
    """A film that is whole: whether it is measured, and carried where it can be."""
    file.write_bytes(film)
    measure(file)
    return len(read_film(file).frames) >= 20
