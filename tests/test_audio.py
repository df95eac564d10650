"""A film's sound: in time, as long as the film, part of the film's key and of no section's."""

import json
import shutil
import wave

import av
import numpy as np
import pytest
from exchanged import DAMAGED, damaged
from faults import here, packets, sections

import framepack_relax as fr
from framepack_relax.errors import FilmError
from framepack_relax.video.reader import read_frames
from framepack_relax.video.sound import read_sound

BOARD = """\
model: fake
scenes:
- {id: calm, prompt: a man stands, seconds: 2.4}
- {id: next, prompt: a dog, seconds: 1.2, transition: cut}
"""
RATE, CLICK = 44_100, 1.0  # of the track; seconds at which it clicks
MARGIN = 0.002  # seconds


def track(path, seconds=3.0, click=CLICK, rate=RATE):
    samples = np.zeros(round(seconds * rate), np.int16)
    samples[round(click * rate) : round(click * rate) + 40] = 20_000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def heard(film):
    """The film's sound as a player gives it, mono, and its rate."""
    with av.open(str(film)) as container:
        frames = list(container.decode(audio=0))
        begins = float(frames[0].pts * frames[0].time_base)
    samples = np.concatenate([frame.to_ndarray() for frame in frames], axis=1).mean(0)
    return np.concatenate([np.zeros(round(begins * frames[0].sample_rate)), samples]), frames[0].sample_rate


@pytest.fixture
def place(tmp_path):
    (tmp_path / "story.yaml").write_text(BOARD)
    (tmp_path / "loud.yaml").write_text("audio: track.wav\n" + BOARD)
    track(tmp_path / "track.wav")
    return tmp_path


@pytest.mark.parametrize(("seconds", "fact"), [(3.0, "the rest is silent"), (9.0, "its end is cut"), (110 / 30, "")])
def test_sound_is_in_time_and_as_long_as_the_film(place, seconds, fact):
    track(place / "track.wav", seconds)
    done = here("render", "loud.yaml", "--out", "loud", cwd=place)
    assert done.returncode == 0, done.stderr
    assert (fact in done.stdout + done.stderr) and ("lasts" in done.stdout + done.stderr) == bool(fact)
    samples, rate = heard(place / "loud/video.mp4")
    frames = sum(1 for _ in read_frames(place / "loud/video.mp4"))
    assert abs(len(samples) / rate - frames / 30) < 1024 / rate + MARGIN
    assert abs(np.abs(samples).argmax() / rate - CLICK) < MARGIN
    assert np.abs(samples).max() > 0.3 and np.abs(samples[round(1.2 * rate) :]).max() < 0.01


def test_pictures_and_sections_are_those_of_the_silent_film(place):
    silent = fr.render(place / "story.yaml", out=place / "silent")
    loud = fr.render(place / "loud.yaml", out=place / "loud")
    assert packets(loud.path) == packets(silent.path) and sections(loud.folder) == sections(silent.folder)
    with av.open(str(loud.path)) as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"] and film.streams.video[0].start_time == 0
    assert loud.report["audio"]["seconds"] == pytest.approx(3.0) and "audio" not in silent.report


def test_a_track_is_put_to_a_film_that_is_there_and_taken_away(place):
    fr.render(place / "story.yaml", out=place / "out")
    silent = (place / "out/video.mp4").read_bytes()
    done = here("render", "story.yaml", "--out", "out", "--audio", "track.wav", cwd=place)
    assert done.returncode == 0, done.stderr
    loud = (place / "out/video.mp4").read_bytes()
    report = json.loads((place / "out/report.json").read_text())
    assert loud != silent and all(row["reused"] for row in report["sections"])
    assert here("render", "story.yaml", "--out", "out", "--audio", "track.wav", cwd=place).returncode == 0
    assert (place / "out/video.mp4").read_bytes() == loud, "and is not made again"
    track(place / "track.wav", click=2.0)
    here("render", "story.yaml", "--out", "out", "--audio", "track.wav", cwd=place)
    samples, rate = heard(place / "out/video.mp4")
    assert abs(np.abs(samples).argmax() / rate - 2.0) < MARGIN, "another track is another film"
    assert here("render", "story.yaml", "--out", "out", cwd=place).returncode == 0
    assert (place / "out/video.mp4").read_bytes() == silent


def test_a_film_is_the_same_every_time_also_from_shots_from_its_folder_and_from_itself(place):
    loud = fr.render(place / "loud.yaml", out=place / "a").path.read_bytes()
    for shot in (1, 0):
        assert here("render", "loud.yaml", "--out", "b", "--shot", shot, cwd=place).returncode == 0
    assert here("rerun", "a/video.mp4", "--out", "c", cwd=place).returncode == 0
    shutil.copytree(place / "a", place / "moved")
    for name in ("shots", "video.mp4"):
        shutil.rmtree(place / "moved" / name, ignore_errors=True)
    (place / "moved/video.mp4").unlink(missing_ok=True)
    assert here("render", "moved/story.yaml", "--out", "moved", cwd=place).returncode == 0
    for name in ("b", "c", "moved"):
        assert (place / name / "video.mp4").read_bytes() == loud, name


def test_a_film_whose_sound_is_damaged_is_made_again(place):
    film = fr.render(place / "loud.yaml", out=place / "out").path
    whole = film.read_bytes()
    with av.open(str(film)) as container:
        spots = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    at, size = spots[len(spots) // 2]
    film.write_bytes(whole[: at + size // 2] + bytes([whole[at + size // 2] ^ 0xFF]) + whole[at + size // 2 + 1 :])
    assert fr.status(place / "out").film is None
    assert here("render", "loud.yaml", "--out", "out", cwd=place).returncode == 0
    assert film.read_bytes() == whole


def broken(place):
    """Files that are no track, by what is wrong with them."""
    silent = fr.render(place / "story.yaml", out=place / "silent").path
    (place / "silent.mp4").write_bytes(silent.read_bytes())
    (place / "text.wav").write_text("no sound")
    (place / "cut.wav").write_bytes((place / "track.wav").read_bytes()[:44])
    (place / "head.wav").write_bytes((place / "track.wav").read_bytes()[:20])
    return {
        "silent.mp4": "holds no sound",
        "text.wav": "cannot be read",
        "cut.wav": "",
        "head.wav": "",
        "none.wav": "no such file",
    }


def test_what_is_no_track_is_one_located_message_before_anything_is_rendered(place):
    for name, fact in broken(place).items():
        (place / "bad.yaml").write_text(f"title: Bad\naudio: {name}\n{BOARD}")
        for words in (("render", "bad.yaml", "--out", "bad"), ("render", "bad.yaml", "--out", "bad", "--dry-run")):
            done = here(*words, cwd=place)
            assert done.returncode == 2 and done.stderr.startswith("bad.yaml:2:8: audio: "), done.stderr
            assert fact in done.stderr and len(done.stderr.splitlines()) == 1 and not (place / "bad").exists()
        done = here("render", "story.yaml", "--out", "bad", "--audio", name, cwd=place)
        assert done.returncode == 2 and name in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (place / "bad").exists()


@pytest.mark.parametrize("suffix", ["flac", "m4a"])
def test_damage_is_a_track_or_one_message(place, suffix):
    track(place / "track.wav", 1.0)
    file = place / f"track.{suffix}"
    with av.open(str(place / "track.wav")) as old, av.open(str(file), "w") as new:
        stream = new.add_stream("aac" if suffix == "m4a" else suffix, rate=RATE)
        for frame in old.decode(audio=0):
            frame.pts = None
            new.mux(stream.encode(frame))
        new.mux(stream.encode(None))
    assert read_sound(file).seconds == pytest.approx(1.0, abs=0.05)
    said = []
    for copy in damaged(file.read_bytes()):
        file.write_bytes(copy)
        try:
            read_sound(file)
        except FilmError as error:
            said.append(str(error))
    assert 0 < len(said) < DAMAGED and all(line.startswith(f"{file}: ") and "\n" not in line for line in said)


def test_a_board_names_no_track_outside_of_its_folder(place):
    (place / "in").mkdir()
    (place / "in/story.yaml").write_text("audio: ../track.wav\n" + BOARD)
    done = here("plan", "in/story.yaml", cwd=place)
    assert done.returncode == 2 and "audio: ../track.wav leaves the storyboard's folder" in done.stderr
