"""A fingerprint sees every byte; what it remembers of large files saves time and is never believed of another file."""

import os
import shutil
import threading
from pathlib import Path

import pytest
from PIL import Image

from framepack_relax.errors import ModelError
from framepack_relax.families import fingerprint as module
from framepack_relax.families.catalog import find
from framepack_relax.families.fingerprint import CACHE_VARIABLE, fingerprint, in_background
from framepack_relax.families.loader import load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A part with a small and a large file; every file counts as large from 1 KiB, and no clock is coarse."""
    monkeypatch.setattr(module, "LARGE", 1 << 10)
    monkeypatch.setattr(module, "SETTLED", 0.0)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    part = tmp_path / "vae"
    part.mkdir()
    (part / "config.json").write_text("{}")
    (part / "model.safetensors").write_bytes(bytes(100_000))
    return part


def flip(file: Path, place: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ 1]))


def remembered(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache/hashes").iterdir())


def test_any_byte_of_any_file_changes_it(folder):
    seen = {fingerprint({"vae": folder})}
    for place in (0, 3_999, 4_000, 51_234, 99_999):
        flip(folder / "model.safetensors", place)
        seen.add(fingerprint({"vae": folder}))
    (folder / "config.json").write_text("{ }")
    seen.add(fingerprint({"vae": folder}))
    assert len(seen) == 7
    (folder / "figures.json").write_text("{}")
    assert fingerprint({"vae": folder}) in seen, "what is said about a model does not count"


def test_it_is_the_same_from_memory_and_without_one(folder, monkeypatch):
    first = fingerprint({"vae": folder})
    assert len(remembered(folder)) == 1
    opened = []
    monkeypatch.setattr(module, "READERS", _Counting(opened))
    assert fingerprint({"vae": folder}) == first and not opened, "the large file was not read again"
    shutil.rmtree(folder.parent / "cache")
    assert fingerprint({"vae": folder}) == first and len(opened) == 1


class _Counting:
    def __init__(self, opened):
        self.opened = opened

    def __enter__(self):
        self.opened.append(1)

    def __exit__(self, *error):
        pass


def test_a_change_behind_a_restored_time_is_seen(folder):
    file = folder / "model.safetensors"
    before, stat = fingerprint({"vae": folder}), file.stat()
    flip(file, 50_000)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_mtime_ns == stat.st_mtime_ns and file.stat().st_size == stat.st_size
    assert fingerprint({"vae": folder}) != before


@pytest.mark.parametrize("text", ["", "not a hash", "00", "\u00e9"])
def test_a_broken_memory_costs_time_only(folder, text):
    before = fingerprint({"vae": folder})
    remembered(folder)[0].write_text(text, encoding="utf8")
    assert fingerprint({"vae": folder}) == before
    assert remembered(folder)[0].read_text() != text, "it is mended"


@pytest.mark.parametrize("make", [lambda cache: cache.write_text(""), lambda cache: cache.symlink_to(cache)])
def test_a_cache_that_cannot_be_written_costs_time_only(folder, make):
    make(folder.parent / "cache")
    assert fingerprint({"vae": folder}) == fingerprint({"vae": folder})


def test_a_file_that_was_written_just_now_is_not_remembered(folder, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 60.0)
    fingerprint({"vae": folder})
    assert not (folder.parent / "cache").exists()


def test_without_a_variable_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.cache_folder() == tmp_path / "framepack-relax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module.cache_folder() == tmp_path / ".cache/framepack-relax"


def test_a_model_is_told_by_its_fingerprint_and_a_file_that_goes_meanwhile_is_named(tiny, tmp_path):
    assert load(str(tiny), device="cpu").weights == find(str(tiny)).fingerprint()
    copy = shutil.copytree(tiny, tmp_path / "copy")
    source = find(str(copy))
    (copy / "vae/config.json").write_text((copy / "vae/config.json").read_text() + " ")
    with pytest.raises(ModelError, match="its files have changed since it was loaded"):
        source.check()
    with pytest.raises(ModelError, match="its files have changed since it was loaded"):
        source.fingerprint()


@pytest.mark.parametrize("gone", ["tokenizer", "image_encoder", "vae", ""])
def test_what_goes_after_a_model_was_loaded_is_named(tiny, tmp_path, gone):
    """Encoders are read when a film needs them."""
    copy = shutil.copytree(tiny, tmp_path / "copy")
    model = load(str(copy), device="cpu")
    assert len(model.weights) == 32
    shutil.rmtree(copy / gone)
    image = {0: (Image.new("RGB", (32, 32)), 7)}
    for use in (model.source.fingerprint, lambda: model.encode_prompts(["a"]), lambda: model.encode_starts(image)):
        with pytest.raises(ModelError, match=f"^{copy / gone}"):
            use()


def test_what_the_background_raises_is_raised_where_it_is_wanted():
    started = threading.Event()

    def work():
        started.set()
        raise ModelError("gone")

    future = in_background(work)
    assert started.wait(10)
    with pytest.raises(ModelError, match="gone"):
        future.result()
