"""The run folder: latents of finished sections under their keys, texts, pictures; a mark, a lock. No torch.

A section is taken up again only if it is whole, bears the key that it would have now, and was rendered after the very
section that stands before it. Otherwise the folder says what changed.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RenderError
from ..files import make_folder, read_file, write_file
from ..planning.renderplan import RenderPlan, SectionPlan
from .films import is_foreign
from .keys import SectionKey, difference
from .lock import hold
from .mark import FILM, MARK, SECTION_FILE, START_FILE, Mark, free_name, read_mark, settle_owner, unreadable
from .stored import Latents, Stored, pack, unpack

MEND = "what is finished is kept: mend that and run the same command again"
FOLLOWS = "it follows a section that is rendered anew"
NOT_THERE = "it is not there yet"  # why a section is rendered that never was
BROKEN = "its file is broken"
FRESH = "fresh was asked for"


class Verdict(NamedTuple):
    """Why a section must be rendered, None if it is kept; and how what is kept was made otherwise, if it was."""

    section: SectionPlan
    why: str | None
    note: str = ""


class RunFolder:
    """The folder `path`, which is made when it is `held`; `mark` is whose it is to be.

    `store` is a folder of sections under their keys that many renders share: each takes from it and adds to it.
    """

    def __init__(self, path: Path, mark: Mark, *, store: Path | None = None) -> None:
        self.path, self.mark, self.store = path, mark, store
        self.place: tuple[int, int] | None = None  # device and inode of the folder that is held

    @contextmanager
    def held(self, keys: Iterable[str] = ()) -> Iterator["RunFolder"]:
        """Holds the folder for this process alone. Raises RenderError for one that is not this storyboard's."""
        known = set(keys)
        settle_owner(self.path, self.mark, known)
        with writing(self.path, "cannot be made a folder for the render", "choose another folder"):
            make_folder(self.path)
        with hold(self.path):
            self.mark = settle_owner(self.path, self.mark, known)
            self.place = self._inode()
            yield self

    def verdicts(
        self, plan: RenderPlan, keys: Mapping[int, SectionKey], made: Mapping[str, Any], *, fresh: bool, strict: bool
    ) -> list[Verdict]:
        """A verdict per section in rendering order, were it rendered by `made`, whose difference `strict` counts."""
        said = []
        for shot in plan.shots:
            before: Stored | None = None
            follows = False
            for index in shot.sections:
                section, key = plan.sections[index], keys[index]
                self._share(section, key)
                stored, why = self._look(section, key)
                note = difference(stored.made, made) if stored and why is None else ""
                if stored and why is None and before and stored.after != before.digest:
                    why = FOLLOWS
                why = why or (FRESH if fresh else note if strict and note else FOLLOWS if follows else None)
                said.append(Verdict(section, why, "" if why else note))
                before, follows = stored, why is not None
        return said

    def _look(self, section: SectionPlan, key: SectionKey) -> tuple[Stored | None, str | None]:
        """What is there of a section, and why it cannot be kept. Raises RenderError where it cannot be read."""
        file = self.path / SECTION_FILE.format(section.shot, section.place)
        try:
            stored = unpack(read_file(file))
        except (FileNotFoundError, NotADirectoryError):
            return None, NOT_THERE
        except OSError as error:
            raise unreadable(file, error) from error
        if stored is None:
            return None, BROKEN
        return stored, None if stored.key == key.key else difference(stored.inputs, key.inputs) or FOLLOWS

    def begin(self, names: Iterable[str], sections: Mapping[str, str], film: str) -> None:
        """Marks the folder as this film's, and `names` as files that the render may write.

        Raises RenderError where one of them is there that no render wrote, or that is no file.
        """
        names = sorted(names)
        for name in names:
            self._check_free(name)
        files = tuple(sorted({*self.mark.files, *names}))
        self.mark = self.mark.model_copy(update={"files": files, "sections": dict(sections), "film": film})
        if self.mark != read_mark(self.path):
            self.write(MARK, self.mark.model_dump_json(indent=1).encode("utf8"))

    def _check_free(self, name: str) -> None:
        file = self.path / name
        with writing(file), suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISREG(os.lstat(file).st_mode):
                raise OSError(None, "it is a folder, a link or a pipe, and no render makes one there")
            if name not in self.mark.files or (name == FILM and is_foreign(file)):
                cure = f"move it away, or choose another folder, for instance {free_name(self.path)}"
                raise RenderError(f"{file}: no render wrote it, so that it is left as it is; {cure}")

    def load_section(self, section: SectionPlan) -> Stored:
        """A section that is on disk by its verdict, or was saved."""
        file = self.path / SECTION_FILE.format(section.shot, section.place)
        self.check_there()
        try:
            stored = unpack(read_file(file))
        except FileNotFoundError:
            stored = None
        except OSError as error:
            raise unreadable(file, error) from error
        if stored is None:
            raise RenderError(f"{file}: was removed or damaged during the render; run the same command again")
        return stored

    def save_section(
        self, section: SectionPlan, latents: Latents, key: SectionKey, *, seed: int, after: str, made: Mapping[str, Any]
    ) -> str:
        """Gives the digest of the latents."""
        data, digest = pack(latents, key=key.key, seed=seed, after=after, inputs=key.inputs, made=made)
        self.write(SECTION_FILE.format(section.shot, section.place), data)
        self._share(section, key)
        return digest

    def load_start(self, shot: int, key: str) -> Latents | None:
        """A shot's start latent, if it is there and was made from what it would be made from now."""
        file = self.path / START_FILE.format(shot)
        try:
            stored = unpack(read_file(file))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(file, error) from error
        return stored.latents if stored and stored.key == key else None

    def save_start(self, shot: int, latents: Latents, key: str, made: Mapping[str, Any]) -> None:
        self.write(START_FILE.format(shot), pack(latents, key=key, made=made)[0])

    def write(self, name: str, data: bytes) -> None:
        """Writes a file that appears whole or not at all."""
        file = self.path / name
        self.check_there()
        with writing(file):
            make_folder(file.parent)
            write_file(file, data)

    def check_there(self) -> None:
        """Raises RenderError if the folder is no longer the one that is held."""
        if self._inode() != self.place:
            raise RenderError(
                f"{self.path}: was moved or removed during the render; what is finished lies where the folder is now: "
                "give that as `out`, or move it back, and run the same command again"
            )

    def _inode(self) -> tuple[int, int] | None:
        try:
            about = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(self.path, error) from error
        return about.st_dev, about.st_ino

    def _share(self, section: SectionPlan, key: SectionKey) -> None:
        """A section that the store has and the folder has not, and the reverse, gets a second name.

        Where the disk cannot, or the name is taken, it goes without.
        """
        if self.store and self.place:
            shared, own = self.store / f"{key.key}.safetensors", SECTION_FILE.format(section.shot, section.place)
            for there, here in ((shared, self.path / own), (self.path / own, shared)):
                with suppress(OSError):
                    here.parent.mkdir(parents=True, exist_ok=True)
                    os.link(there, here)


@contextmanager
def writing(
    place: Path, what: str = "cannot be written", cure: str = MEND, kind: type[OSError] = OSError
) -> Iterator[None]:
    """Turns a full disk and its like into one message."""
    try:
        yield
    except kind as error:
        raise RenderError(f"{place}: {what} ({error.strerror or error}); {cure}") from error
