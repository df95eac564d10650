"""The faults of test_resume.py in numbers, at random moments; run by scripts/soak."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import failing, make_film, nan, on_a_disk_of, out_of_memory, packets, same, sections, start
from PIL import Image

import framepack_relax as fr
from framepack_relax.rendering.mark import PICTURES
from framepack_relax.video.reader import read_frames

pytestmark = pytest.mark.soak

FILM = """
  - {id: calm, prompt: a red figure stands still, seconds: 7.2}
  - {id: flip, prompt: a red figure does a backflip, seconds: 7.2, intensity: 0.9, relax: {target: [context]}}
  - {id: next, prompt: a blue figure walks, seconds: 7.2, transition: cut}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny, model):
    return make_film(tmp_path_factory.mktemp("whole"), tiny, model, FILM, steps=6)


@pytest.fixture
def place(whole, tmp_path):
    """The storyboard and its image, and nothing rendered yet."""
    return shutil.copytree(whole, tmp_path / "place", ignore=shutil.ignore_patterns("out"))


def test_thirty_stops_over_one_film(place, whole):
    rng = random.Random(1)
    truth, stops, playable, lost, whole_runs = sections(whole / "out"), 0, 0, 0, 0
    kept: dict[str, bytes] = {}
    while stops < 30:
        process = start(place)
        time.sleep(rng.uniform(0, 9))
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        _, told = process.communicate(timeout=120)
        assert "Traceback" not in told or not (place / "out/plan.json").exists(), told
        if process.returncode == 0:
            whole_runs += 1
            continue
        stops += 1
        there = sections(place / "out")
        lost += len(set(kept) - set(there)) + sum(truth[name] != bits for name, bits in there.items())
        kept = there
        part = place / "out/video.part.mp4"
        if part.exists() and part.stat().st_size > 4_000:
            playable += len(list(read_frames(part))) > 0
    process = start(place)
    process.communicate()
    assert lost == 0 and same(place / "out", whole / "out")
    print(f"\nstops {stops} ({whole_runs} came too late), parts played {playable}, sections lost {lost}, bits equal")


def test_full_disks_of_every_size(place, whole, model):
    rng = random.Random(2)
    full, lost = 0, 0
    for _ in range(30):
        before = len(sections(place / "out"))
        done = on_a_disk_of(int(10 ** rng.uniform(1.5, 5.3)), place)
        assert done.returncode in (0, 2) and "Traceback" not in done.stderr, done.stderr
        full += done.returncode == 2
        lost += max(0, before - len(sections(place / "out")))
        if done.returncode == 0:
            assert same(place / "out", whole / "out")
            shutil.rmtree(place / "out")
    fr.render(place / "story.yaml", out=place / "out", model=model)
    assert lost == 0 and full > 15 and same(place / "out", whole / "out")
    print(f"\nfull disks {full} of 30, sections lost {lost}, bits equal")


def test_full_gpus_and_nan_at_random_calls(place, whole, model):
    rng = random.Random(3)
    parts = {
        "transformer": (model.transformer, 140),
        "decoder": (model.vae.decoder, 18),
        "encoder": (model.vae.encoder, 2),
    }
    faults = 0
    for _ in range(60):
        module, calls = parts[rng.choice(list(parts))]
        fail = rng.choice([out_of_memory, nan]) if module is model.transformer else out_of_memory
        try:
            with failing(module, {rng.randrange(calls)}, fail):
                fr.render(place / "story.yaml", out=place / "out", model=model)
        except fr.RenderError as error:
            assert "what is finished is kept" in str(error).lower()
            faults += 1
        if rng.random() < 0.2:
            fr.render(place / "story.yaml", out=place / "out", model=model)
            assert same(place / "out", whole / "out")
            shutil.rmtree(place / "out")
    assert faults > 20
    print(f"\nfull GPUs and NaN {faults} of 60, bits equal")


def test_damage_to_any_file_of_a_folder(place, whole, model):
    rng = random.Random(4)
    for _ in range(60):
        shutil.rmtree(place / "out", ignore_errors=True)
        shutil.copytree(whole / "out", place / "out")
        files = sorted(file for file in (place / "out").rglob("*") if file.is_file() and file.stat().st_size)
        for file in rng.sample(files, rng.randint(1, 4)):
            data = bytearray(file.read_bytes())
            if rng.random() < 0.5:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        film = fr.render(place / "story.yaml", out=place / "out", model=model).path
        assert packets(film) == packets(whole / "out/video.mp4")
        film.unlink()  # else sections are mended when they are needed
        fr.render(place / "story.yaml", out=place / "out", model=model)
        assert same(place / "out", whole / "out")
    print("\ndamaged folders 60, bits equal")


@pytest.fixture
def disk(tmp_path):
    """A disk of its own that can be copied while it is written to: (its image, where it is mounted)."""
    image, mounted = tmp_path / "disk.img", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    made = [["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(mounted)]]
    if os.geteuid() != 0 or any(subprocess.run(words, capture_output=True).returncode for words in made):
        pytest.skip("mounting a disk needs root and loop devices")
    yield image, mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_power_cuts_lose_no_finished_section(place, whole, disk, tmp_path):
    """A copy of the disk is what a power cut leaves of it; what was finished before the copy must be there, whole."""
    image, mounted = disk
    truth, taken = sections(whole / "out"), []
    process = start(place, mounted / "o")
    while process.poll() is None or len(taken) < 3 or taken[-1][2]:
        over = process.poll() is not None
        done = set(str(f.relative_to(mounted / "o")) for f in mounted.glob("o/shots/*/0*.safetensors"))
        copy = tmp_path / f"{len(taken)}.img"
        subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
        taken.append((copy, done, not over))
        time.sleep(1)
    assert process.communicate() and process.returncode == 0
    (tmp_path / "copied").mkdir()
    for copy, done, under_way in taken:
        subprocess.run(["fsck.ext4", "-fy", str(copy)], capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(copy), str(tmp_path / "copied")], check=True)
        try:
            there = sections(tmp_path / "copied/o")
            assert done <= set(there) and all(truth[name] == bits for name, bits in there.items())
            assert under_way or (fr.status(tmp_path / "copied/o").film and same(tmp_path / "copied/o", whole / "out"))
            assert under_way or all((tmp_path / f"copied/o/{name}").stat().st_size for name in PICTURES)
        finally:
            subprocess.run(["umount", str(tmp_path / "copied")], check=True)
    print(f"\npower cuts {len(taken)}, with {len(truth)} sections at the end; finished sections lost 0, bits equal")


def test_a_disk_that_turns_read_only_is_one_message(place, whole, disk, model):
    """ext4 does so by itself when it finds an error; the kernel has a switch that makes it find one."""
    mounted = disk[1]
    words = ["findmnt", "-no", "SOURCE", str(mounted)]
    device = Path(subprocess.run(words, capture_output=True, text=True).stdout.strip()).name
    subprocess.run(["mount", "-o", "remount,errors=remount-ro", str(mounted)], check=True)

    def fail(section, seed):
        if section.index == 3:
            Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    with pytest.raises(
        fr.RenderError, match=r"cannot be written \(Read-only file system\).*run the same command again"
    ):
        fr.render(place / "story.yaml", out=mounted / "o", model=model, on_section=fail)
    truth = sections(whole / "out")
    assert all(truth[name] == bits for name, bits in sections(mounted / "o").items()) and sections(mounted / "o")
    print(f"\ndisk turned read-only: one message, {len(sections(mounted / 'o'))} sections there, bits equal")


GROWING = """
import resource, sys
import framepack_relax as fr

peaks = []
told = lambda section, seed: peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
film = fr.render(sys.argv[1], out=sys.argv[2], on_section=told)
assert film.report["totals"]["sections"] == len(peaks) == 100
print(peaks[9], film.report["totals"]["peak_bytes"] // 1024)
"""


def test_memory_does_not_grow_with_the_film(tmp_path):
    """The peak of 100 sections against that of the first ten, in one process: processes differ by more (LOG.md)."""
    Image.new("RGB", (96, 96), "red").save(tmp_path / "hero.png")
    scene = "{id: a, prompt: a red figure walks, seconds: 120}"
    (tmp_path / "story.yaml").write_text(f"image: hero.png\nsteps: 1\nscenes: [{scene}]\n")
    words = [sys.executable, "-c", GROWING, str(tmp_path / "story.yaml"), str(tmp_path / "out")]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    ten, hundred = (int(kibibytes) for kibibytes in said.split())
    print(f"\npeak memory: 10 sections {ten >> 10} MiB, 100 sections {hundred >> 10} MiB")
    assert len(list(tmp_path.glob("out/shots/00/0*.safetensors"))) == 100
    assert hundred <= 1.05 * ten
