"""The run folder: latents of finished sections under their keys, texts, pictures; a mark, leases. No torch.

A file is a render's only as a render last wrote it, by its hash in the mark or, of sections, by its own seal. What else
lies under its name is the maker's, or damaged: it is put aside under a free name, and that is said.

Two leases say who writes: the folder's, for what the mark knows of, and a shot's, for the files of its sections.

A section is taken up again only if it is whole, bears the key that it would have now, and was rendered after the very
section that stands before it. Otherwise the folder says what changed.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import CancelledError, RenderError
from ..files import digest_of, digest_of_file, make_folder, read_file, settle, sync, write_file
from ..planning.renderplan import SectionPlan
from .keys import SectionKey, difference
from .lease import LEASE, Lease
from .mark import (
    CANCELLED,
    MARK,
    SHOT,
    START_FILE,
    Mark,
    Note,
    free_name,
    read_mark,
    section_file,
    settle_owner,
    unreadable,
)
from .stored import Latents, Stored, pack, unpack

MEND = "what is finished is kept: mend that and run the same command again"
FOLLOWS = "it follows a section that is rendered anew"
NOT_THERE = "it is not there yet"  # why a section is rendered that never was
BROKEN = "its file is broken"
FRESH = "fresh was asked for"
T = TypeVar("T")


class Verdict(NamedTuple):
    """Why a section must be rendered, None if it is kept; and how what is kept was made otherwise, if it was."""

    section: SectionPlan
    why: str | None
    note: str = ""


class RunFolder:
    """The folder `path`, which is made when it is `held`; before, nothing is written. `mark` is whose it is to be.

    `store` is a folder of sections under their keys that many renders share: each takes from it and adds to it. `note`
    hears what is put aside.
    """

    def __init__(self, path: Path, mark: Mark, *, store: Path | None = None, note: Note = lambda note: None) -> None:
        self.path, self.mark, self.store, self.note = path, mark, store, note
        self.lease: Lease | None = None

    @contextmanager
    def held(self, patience: float = 0.0) -> Iterator["RunFolder"]:
        """Holds the folder for this process alone, but for its shots. Raises RenderError for one that is not this
        storyboard's, or that another holds for `patience` seconds."""
        settle_owner(self.path, self.mark)
        with writing(self.path, "cannot be made a folder for the render", "choose another folder"):
            make_folder(self.path)
        with self._leased(self.path, patience):
            self.mark = settle_owner(self.path, self.mark)
            yield self

    @contextmanager
    def shot_held(self, shot: int) -> Iterator[None]:
        """Holds a shot for this process alone. Raises RenderError."""
        place = self.path / SHOT.format(shot)
        with writing(place):
            make_folder(place)
        with self._leased(place):
            yield

    @contextmanager
    def _leased(self, place: Path, patience: float = 0.0) -> Iterator[None]:
        with ExitStack() as stack:
            with writing(place / LEASE):
                self.lease = stack.enter_context(Lease(place, patience))
            stack.callback(setattr, self, "lease", None)
            yield

    def look(self, section: SectionPlan, key: SectionKey) -> tuple[Stored | None, str | None]:
        """What is there of a section, in the store too, and why it cannot be kept."""
        self.share(section, key)
        data = self._ask(read_file, section_file(section))
        if data is None:
            return None, NOT_THERE
        stored = unpack(data)
        if stored is None:
            return None, BROKEN
        return stored, None if stored.key == key.key else difference(stored.inputs, key.inputs) or FOLLOWS

    def _ask(self, read: Callable[[Path], T], name: str) -> T | None:
        """What `read` gives of a file; None where there is none. Raises RenderError where it cannot be read."""
        try:
            return read(self.path / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(self.path / name, error) from error

    def begin(self, names: Iterable[str], files: Mapping[str, bytes]) -> None:
        """Writes the mark and `files`. Raises RenderError where one of them, or of `names`, is there and is no file."""
        for name in sorted({MARK, *names, *files}):
            with writing(self.path / name), suppress(FileNotFoundError):
                if not stat.S_ISREG(os.lstat(self.path / name).st_mode):
                    raise OSError(None, "it is a folder, a link or a pipe, and no render makes one there")
                if not os.access(self.path / name, os.R_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if (self.path / MARK).exists() and read_mark(self.path) is None:
            self.put_aside(MARK)
        self.write(files)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Writes files that appear whole or not at all; one that is there as it is to be stays."""
        for name in self.claim({name: digest_of(data) for name, data in files.items()}):
            self._write(name, files[name])

    def settle(self, part: Path, file: Path) -> None:
        """Gives a finished file its name, as `files.settle` does. Raises OSError too."""
        self.claim({file.name: digest_of_file(part)})
        settle(part, file)

    def claim(self, digests: Mapping[str, str]) -> list[str]:
        """Says in the mark what is to be written under which name; gives the names of what is not there yet.

        The mark knows the old contents and the new until these are replaced in their turn, so that a stop at any moment
        leaves no file that it does not know.
        """
        contents, new = dict(self.mark.contents), []
        for name, wanted in digests.items():
            there = self._ask(digest_of_file, name) or ""
            if there not in ("", wanted, *contents.get(name, ())):
                self.put_aside(name)
                there = ""
            if there != wanted:
                new.append(name)
            contents[name] = tuple(dict.fromkeys(digest for digest in (there, wanted) if digest))
        self.mark = self.mark.model_copy(update={"contents": contents})
        if self.lease and self.mark != read_mark(self.path):
            self._write(MARK, self.mark.model_dump_json(indent=1).encode("utf8"))
        return new if self.lease else []

    def recall(self, name: str) -> bytes | None:
        """The contents of a file; None if it is not there, or not as a render wrote it."""
        data = self._ask(read_file, name)
        return data if data is not None and digest_of(data) in self.mark.contents.get(name, ()) else None

    def put_aside(self, name: str) -> None:
        """Gives what lies under a name another one and says so; of a folder that is not held, says that it would."""
        file = self.path / name
        aside = free_name(file)
        if self.lease:
            self.check_there()
            with writing(file):
                os.rename(file, aside)
                sync(file.parent)
        kept = "is kept as {}" if self.lease else "would be kept as {}, unless the new one is the same"
        self.note(f"{file}: is not as a render wrote it, and {kept.format(aside.name)}")

    def load_section(self, section: SectionPlan, key: SectionKey) -> Stored:
        """A section that is on disk by its verdict, or was saved."""
        name = section_file(section)
        self.check_there()
        if (stored := unpack(self._ask(read_file, name) or b"")) is None or stored.key != key.key:
            fact = "was removed or damaged during the render"
            raise RenderError(f"{self.path / name}: {fact}; run the same command again")
        return stored

    def save_section(
        self,
        section: SectionPlan,
        latents: Latents,
        key: SectionKey,
        *,
        seed: int,
        after: str,
        made: Mapping[str, Any],
        tries: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Gives the digest of the latents."""
        data, digest = pack(latents, key=key.key, seed=seed, after=after, inputs=key.inputs, made=made, tries=tries)
        self._write_sealed(section_file(section), data)
        self.share(section, key)
        return digest

    def copy(self, section: SectionPlan) -> None:
        """Puts what lies with its shot of a section where it lies as a take."""
        data = self._ask(read_file, section_file(replace(section, file="")))
        self._write_sealed(section_file(section), data or b"")

    def load_start(self, shot: int, key: str) -> Latents | None:
        """A shot's start latent, if it is there and was made from what it would be made from now."""
        stored = unpack(self._ask(read_file, START_FILE.format(shot)) or b"")
        return stored.latents if stored and stored.key == key else None

    def save_start(self, shot: int, latents: Latents, key: str, made: Mapping[str, Any]) -> None:
        self._write_sealed(START_FILE.format(shot), pack(latents, key=key, made=made)[0])

    def _write_sealed(self, name: str, data: bytes) -> None:
        self.put_aside_broken(name)
        self._write(name, data)

    def put_aside_broken(self, name: str) -> None:
        """Puts aside what lies under the name of sealed latents and is none, or damaged."""
        there = self._ask(read_file, name)
        if there is not None and unpack(there) is None:
            self.put_aside(name)

    def _write(self, name: str, data: bytes) -> None:
        file = self.path / name
        self.check_there()
        with writing(file):
            make_folder(file.parent)
            write_file(file, data)

    def check_there(self) -> None:
        """Raises RenderError if the folder is no longer the one that is held, or its film was called off."""
        if os.path.lexists(self.path / CANCELLED):
            raise CancelledError(f"{self.path}: the film was called off; what is finished is kept")
        try:
            if self.lease and self.lease.is_held():
                return
        except OSError as error:
            raise unreadable(self.path, error) from error
        raise self.gone()

    def gone(self) -> RenderError:
        """That the folder is no longer there, or another's."""
        return RenderError(
            f"{self.path}: was moved or removed during the render, or another took it over; what is finished lies "
            "where the folder is now: give that as `out`, or move it back, and run the same command again"
        )

    def share(self, section: SectionPlan, key: SectionKey) -> None:
        """A section that the store has and the folder has not, and the reverse, gets a second name.

        Where the disk cannot, or the name is taken, it goes without.
        """
        if self.store and self.lease:
            shared, own = self.store / f"{key.key}.safetensors", section_file(section)
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
