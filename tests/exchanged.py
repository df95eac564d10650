"""What the tests of importers share: files, damage, and the command seen from outside."""

import io
import json
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path

from faults import here
from PIL import Image

from framepack_relax.errors import StoryboardError
from framepack_relax.exchange import import_board
from framepack_relax.storyboard import Storyboard, dump_storyboard, parse_storyboard, read_storyboard

DAMAGED = 300  # inputs of each kind


@dataclass(frozen=True)
class Seen:
    """What an import did: its exit code, what it said on standard error, the board if one was written."""

    code: int
    said: str
    story: Storyboard | None

    @property
    def scenes(self):
        return [(scene.prompt, scene.seconds, scene.transition) for scene in self.story.scenes]


def imported(folder: Path, name: str, data: bytes | str | dict | list, *words: object) -> Seen:
    """Writes a file and imports it by the command; of text, JSON or bytes."""
    data = json.dumps(data) if isinstance(data, (dict, list)) else data
    (folder / name).write_bytes(data.encode("utf8") if isinstance(data, str) else data)
    out = folder / "story.yaml"
    out.unlink(missing_ok=True)
    done = here("import", name, "-o", out.name, *words, cwd=folder)
    assert "Traceback" not in done.stderr, done.stderr
    return Seen(done.returncode, done.stderr, read_storyboard(out) if out.exists() else None)


def png(colour: str = "red", size: tuple[int, int] = (40, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def zipped(files: dict[str, bytes | str | dict | list], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, json.dumps(data) if isinstance(data, (dict, list)) else data)
    return buffer.getvalue()


def damaged(data: bytes, seed: int = 7):
    """Many copies of a file, each cut, with bytes changed, with parts twice, or with odd words in it."""
    draw = random.Random(seed)
    words = [b"null", b"-1", b"1e999", b"[[[[", b"{}", b'""', b"\xff\xfe", b"\\ud800", b"\x00", b"9" * 400, b"--f nan"]
    for _ in range(DAMAGED):
        made = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            at, how = draw.randrange(len(made) + 1), draw.randrange(5)
            end = min(len(made), at + draw.randint(1, 20))
            if how == 0:
                del made[at:end]
            elif how == 1:
                made[at:end] = draw.choice(words)
            elif how == 2:
                made[at:at] = made[at:end] * draw.randint(1, 3)
            elif how == 3:
                made[at:end] = bytes(draw.randrange(256) for _ in range(end - at))
            else:
                del made[at + draw.randrange(len(made) - at + 1) :]
        yield bytes(made)


def survives(folder: Path, name: str, data: bytes | str) -> None:
    """Every damaged copy is a board that is read, or messages that name the file."""
    codes, file = set(), folder / name
    for copy in damaged(data.encode("utf8") if isinstance(data, str) else data):
        file.write_bytes(copy)
        try:
            made = import_board(file, folder / "story.yaml")
            assert parse_storyboard(dump_storyboard(made.story, brief=True)) == made.story, copy
            lines = made.told
        except StoryboardError as error:
            lines = str(error).splitlines()
        codes.add(isinstance(lines, list))
        assert all(line.startswith(str(file)) for line in lines), (copy, lines)
    assert codes == {True, False}, "some damage does no harm, and some does"
