"""Films from anywhere: what is none is one message, what is odd is read, what is long stays out of memory."""

import json
import os
import subprocess
import sys
from fractions import Fraction

import av
import fuzz_films
import numpy as np
import pytest
from av.stream import Disposition
from faults import TOOL, here
from test_evaluation import brightness, moving_square, write

import framepack_relax as fr
from framepack_relax.evaluate.film import read_film
from framepack_relax.evaluate.flow import measure_motion
from framepack_relax.evaluate.frames import BLOCK, Frames, Kept
from framepack_relax.video.reader import read_frames, read_header, read_metadata


def encode(path, frames, *, rate=30, times=None, format=None, tags=None):
    """Frames [N, H, W, 3] as a film; `times` in units of 1/600 s."""
    options = {"movflags": "use_metadata_tags"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", format=format, options=options) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 600)
        container.start_encoding()
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound(path, picture=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        if picture:
            cover = container.add_stream("mjpeg", rate=1)
            cover.width = cover.height = 32
            cover.pix_fmt, cover.disposition = "yuvj420p", Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux([*cover.encode(frame), *cover.encode(None)])
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def levels(path):
    """The grey of every frame, where all of a frame is one grey."""
    return [round(float(frame.mean())) for frame in read_frames(path)]


def greys(values, size=32):
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, size, size, 3), np.uint8)


# --- refused ----------------------------------------------------------------------------------------------------------

PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfilm.mp4\n#EXT-X-ENDLIST\n",
    "a.ffconcat": "ffconcat version 1.0\nfile film.mp4\n",
    "a.mp4": "ffconcat version 1.0\nfile film.mp4\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "a.mpd": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>film.mp4</BaseURL></MPD>",
    "a%d.png": "",
    "text.mp4": "hello",
    "empty.mp4": "",
}


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """Things that are no films, by name, beside a film that all of them might lead to."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "film.mp4", moving_square(5))
    for name, text in PLAYLISTS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    sound(tmp_path / "sound.m4a")
    sound(tmp_path / "cover.mp4", picture=True)
    encode(tmp_path / "none.mp4", greys([]))
    stream = encode(tmp_path / "none.h264", greys([9]), format="h264")
    stream.write_bytes(stream.read_bytes().partition(b"\0\0\1\x65")[0])
    (tmp_path / "half.mp4").write_bytes((tmp_path / "film.mp4").read_bytes()[:700])
    encode(tmp_path / "thin.mp4", np.zeros((2, 16, 272, 3), np.uint8))
    local = ["concat:film.mp4|film.mp4", "file:film.mp4", "subfile,,start,0,end,0,,:film.mp4", "pipe:0", "-", "x\0y"]
    return [path.name for path in tmp_path.iterdir() if path.name != "film.mp4"] + [
        "missing.mp4", "http://127.0.0.1:9/a.mp4", "tcp://127.0.0.1:9", "data:video/mp4;base64,AAAA", *local
    ]  # fmt: skip


def test_what_is_no_film_is_one_message_each_and_nothing_else_is_opened(bad, tmp_path):
    with pytest.raises(fr.EvaluationError) as told:
        fr.evaluate(bad)
    lines = str(told.value).splitlines()
    assert len(lines) == len(bad)
    said = dict(zip(bad, lines, strict=True))
    for name, line in said.items():
        assert line.startswith(str(os.path.normpath(name)).replace("//", "/")) or "\0" in name, line
    assert "that is an address: download the file first" in said["http://127.0.0.1:9/a.mp4"]
    assert "holds no video" in said["sound.m4a"] and "holds no video" in said["cover.mp4"]
    assert "holds no video" in said["none.mp4"] and "Invalid data" in said["none.h264"]
    assert "is not a regular file" in said["fifo.mp4"] and "is a folder; name a file" in said["folder.mp4"]
    assert "is none of mp4" in said["a.m3u8"] and "is none of mp4" in said["a.mp4"]
    assert "272x16" in said["thin.mp4"]
    for name in bad:
        with pytest.raises(fr.RenderError):
            fr.restore(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_tells_bad_films_without_a_traceback(bad):
    names = [name for name in bad if "\0" not in name and name != "-"]
    done = subprocess.run([TOOL, "eval", *names], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == len(names)
    done = here("rerun", "fifo.mp4")
    assert done.returncode == 2 and "is not a regular file" in done.stderr


@pytest.mark.parametrize(
    "facts",
    [
        "[" * 100_000,
        '{"scenes": [{"id": "a", "prompt": "x", "frames": [0, 1e999]}]}',
        '{"scenes": {"a": 1}}',
        '{"scenes": [[]]}',
        '{"scenes": 5, "model": ["a"]}',
        "null",
        '{"model": ["a"]}',
    ],
)
def test_tags_that_somebody_else_wrote_are_no_scenes(tmp_path, facts):
    film = read_film(write(tmp_path / "f.mp4", moving_square(5), tags={"framepack_relax": facts}))
    assert (film.judges, film.scenes) == (None, ())


def test_scenes_that_overlap_or_hold_signs_that_steer_a_terminal(tmp_path):
    rows = [{"id": "\x1b[2Jx", "prompt": "\ud800 y", "frames": [0, 3]}]
    rows += [{"id": "b", "prompt": "x", "frames": place} for place in ([2, 5], [3, 5], [3, 5], [-4, 2], [5, 99])]
    tags = {"framepack_relax": json.dumps({"model": "puppet", "scenes": rows})}
    film = read_film(write(tmp_path / "f.mp4", moving_square(5), tags=tags))
    assert [scene.frames for scene in film.scenes] == [(0, 3), (3, 5)]
    assert film.scenes[0].id.isprintable() and film.scenes[0].prompt == "? y"


# --- odd --------------------------------------------------------------------------------------------------------------


def test_metadata_that_is_not_utf8_is_read(tmp_path):
    file = write(tmp_path / "f.mp4", moving_square(5), tags={"title": "QQQQ"})
    file.write_bytes(file.read_bytes().replace(b"QQQQ", b"caf\xe9"))
    assert read_metadata(file)["title"] == "caf\ufffd"
    rows, _ = fr.evaluate([file], action="packaged", text="packaged")
    assert len(rows) == 1


def test_a_film_that_changes_its_size_is_brought_to_its_first(tmp_path):
    small = encode(tmp_path / "a.h264", moving_square(10, size=64), format="h264")
    large = encode(tmp_path / "b.h264", moving_square(10, size=96), format="h264")
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    film = read_film(both)
    assert film.frames.shape == (20, 64, 64, 3)
    assert [frame.shape[0] for frame in read_frames(both)] == 10 * [64] + 10 * [96]


def test_variable_rates_are_read_by_their_times(tmp_path):
    times = [0, 20, 40, 60, 260, 280, 300, 320, 340]  # at 30 a second, with a third of a second of a still
    film = encode(tmp_path / "f.mp4", greys(range(20, 200, 20)), times=times)
    rate, seen = read_header(film)[1], levels(film)
    assert len(seen) == round(340 / 600 * rate) + 1, "as long as the film"
    still = max(seen.count(level) for level in seen)
    assert still / rate == pytest.approx(200 / 600, abs=1.5 / rate) and seen == sorted(seen)
    even = encode(tmp_path / "g.mkv", greys(range(20, 200, 20)), rate=Fraction(30000, 1001))
    assert np.abs(np.array(levels(even)) - range(20, 200, 20)).max() <= 2, "a constant rate: each frame once"


@pytest.mark.parametrize(("matrix", "turned"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_a_turned_film_stands_upright(tmp_path, matrix, turned):
    frames = np.zeros((3, 48, 96, 3), np.uint8)
    frames[:, :24, :24] = 255
    file = encode(tmp_path / "f.mp4", frames)
    a, b, c, d = (int(value * 65536).to_bytes(4, "big", signed=True) for value in matrix)
    zero, plain = bytes(4), b"\0\1\0\0"
    identity = plain + zero + zero + zero + plain
    head, track, rest = file.read_bytes().partition(b"tkhd")
    assert identity in rest
    file.write_bytes(head + track + rest.replace(identity, a + b + zero + c + d, 1))
    upright = next(iter(read_frames(file)))
    expected = np.rot90(frames[0], turned)
    assert upright.shape == expected.shape and np.abs(upright.astype(int) - expected).mean() < 5


def test_very_wide_films_are_read(tmp_path):
    film = read_film(encode(tmp_path / "f.mp4", np.full((2, 512, 8192, 3), 90, np.uint8)))
    assert film.frames.shape == (2, 256, 4096, 3)


# --- long -------------------------------------------------------------------------------------------------------------


def test_frames_are_the_same_whether_they_are_kept_or_decoded_again(tmp_path):
    path = write(tmp_path / "f.mp4", moving_square(5 * BLOCK + 7, speed=0))
    block = BLOCK * 96 * 96 * 3
    kept = Kept(2 * block)
    film = read_film(path, kept)
    assert len(kept.blocks) == 2 and isinstance(film.frames, Frames)
    truth = np.stack(list(read_frames(path)))
    assert np.array_equal(film.frames, truth) and np.array_equal(film.frames[3:90:7][2:], truth[3:90:7][2:])
    assert np.array_equal(film.frames[[150, 3, -1]], truth[[150, 3, -1]])
    assert sum(held.nbytes for held in kept.blocks.values()) <= 2 * block


def test_every_figure_is_the_same_of_a_film_that_is_not_in_memory(tmp_path):
    scenes = [{"id": "a", "prompt": "x", "frames": [0, 37]}, {"id": "b", "prompt": "y", "frames": [37, 109]}]
    tags = {"framepack_relax": json.dumps({"scenes": [scenes[0], {**scenes[1], "follows": True}]})}
    frames = np.random.default_rng(0).integers(0, 40, (109, 96, 96, 3), dtype=np.uint8) + moving_square(109, speed=0)
    path = write(tmp_path / "f.mp4", frames, tags=tags)
    judges = {"action": "packaged", "text": "packaged", "distance": brightness}
    said = [fr.evaluate([path], **judges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["framepack_relax.evaluate.film"], "Kept", lambda: Kept(1))
        said.append(fr.evaluate([path], **judges))
    assert said[0] == said[1]
    film = read_film(path)
    assert measure_motion(film.frames, 30) == measure_motion(np.asarray(film.frames), 30)


LONG = """
import resource, sys
import framepack_relax as fr
from framepack_relax.evaluate import film
from framepack_relax.evaluate.frames import Kept
film.Kept = lambda: Kept(2**25)
for path in sys.argv[1:]:
    rows, _ = fr.evaluate([path], prompt="x", action="packaged", text="packaged")
    print(rows[0]["seconds"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@pytest.mark.soak
def test_a_film_of_20000_frames_takes_no_more_memory_than_one_of_2000(tmp_path):
    """A thousand frames a second, so that few are looked at of the many that are decoded."""
    for count in (2_000, 20_000):
        levels = (np.arange(count) * 37 % 256).astype(np.uint8)[:, None, None, None]
        encode(tmp_path / f"{count}.mp4", levels * np.ones((1, 48, 48, 3), np.uint8), rate=1000)
    command = [sys.executable, "-c", LONG, tmp_path / "2000.mp4", tmp_path / "20000.mp4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (short, before), (long, after) = (map(float, line.split()) for line in done.stdout.splitlines())
    assert (short, long) == (2, 20) and after - before < 80, "MiB, and the frames are 132"


def test_a_film_that_is_changed_meanwhile_is_told(tmp_path):
    path = write(tmp_path / "f.mp4", moving_square(3 * BLOCK, speed=0))
    film = read_film(path, Kept(1))
    write(path, moving_square(5))
    with pytest.raises(fr.FilmError, match="changed while it was measured"):
        list(film.frames)


@pytest.mark.slow
def test_damaged_films_are_read_or_told_in_one_message():
    tally = fuzz_films.run(200)
    assert tally.inputs == 200 and tally.wrong == 0, tally.ends
