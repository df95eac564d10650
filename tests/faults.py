"""What the tests of stopped renders share: how to start one, how to make it fail, how to compare folders."""

import io
import resource
import signal
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import framepack_relax as fr
from framepack_relax.cli import main

TOOL = str(Path(sys.executable).parent / "framepack-relax")


def here(
    *words: object, cwd: Path | None = None, encoding: str = "utf-8", environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """The command in this process, which has torch already: what it prints, and its exit code."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    before, code = signal.getsignal(signal.SIGTERM), 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"COLUMNS": "160", **environment}.items():
            patch.setenv(name, value)
        for name, what in {"argv": ["framepack-relax", *map(str, words)], "stdout": out, "stderr": err}.items():
            patch.setattr(sys, name, what)
        patch.chdir(cwd or Path.cwd())
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            signal.signal(signal.SIGTERM, before)
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode(encoding))
    return subprocess.CompletedProcess(words, code, *said)


def sections(out: Path) -> dict[str, bytes]:
    """The latents on disk, by the names of their files."""
    return {
        str(file.relative_to(out)): load_file(file)["latents"].numpy().tobytes()
        for file in sorted(out.glob("shots/*/???.safetensors"))
    }


def packets(film: Path) -> list[bytes]:
    with av.open(str(film)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def same(out: Path, whole: Path) -> bool:
    """Latents, and frames by their packets."""
    return sections(out) == sections(whole) and packets(out / "video.mp4") == packets(whole / "video.mp4")


def make_film(place: Path, tiny: Path, model, scenes: str, steps: int = 2) -> Path:
    """Writes a storyboard with its image and renders it in one go."""
    Image.radial_gradient("L").resize((40, 32)).convert("RGB").save(place / "hero.png")
    (place / "story.yaml").write_text(f"model: {tiny}\nimage: hero.png\nsteps: {steps}\nscenes:{scenes}")
    fr.render(place / "story.yaml", out=place / "out", model=model)
    return place


def command(place: Path, out: Path | None = None) -> list[str]:
    return [TOOL, "render", str(place / "story.yaml"), "--out", str(out or place / "out")]


def start(place: Path, out: Path | None = None) -> subprocess.Popen[str]:
    """The command in a process that takes Ctrl-C, whatever started the tests."""
    return subprocess.Popen(
        command(place, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def on_a_disk_of(limit: int, place: Path) -> subprocess.CompletedProcess[str]:
    """The command where no file may grow over `limit` bytes."""
    return subprocess.run(
        command(place), capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


@contextmanager
def failing(module: torch.nn.Module, calls: Container[int], fail) -> Iterator[None]:
    """`fail(output)` in place of the output of these calls of a module."""
    count = -1

    def hook(module, inputs, output):
        nonlocal count
        count += 1
        return fail(output) if count in calls else output

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def nan(output):
    return (output[0] * float("nan"),)


def out_of_memory(output):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4 GiB")
