"""What is known of a render before it needs torch: its plan, its folder, which sections are kept and why others not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from PIL import Image

from ..errors import RenderError
from ..families.loading import Loading
from ..planning.planner import make_plan
from ..planning.renderplan import RenderPlan
from ..storyboard import Storyboard
from ..storyboard.images import ImageError, fit_image, read_image
from .folder import RunFolder, Verdict
from .keys import SectionKey, film_key, hash_of, picture_digest, section_keys, start_inputs, versions
from .mark import PLAN, SECTION_FILE, START_FILE, STORY, mark_of, settle_owner

if TYPE_CHECKING:
    from ..families.backend import Backend

AnyModel = Union[Loading, "Backend"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to render, besides what: nothing here changes a section whose latents are finite.

    `fresh` renders all sections, `strict` also those that another version or device has made; `on_nan` says what to do
    when latents are not finite: stop, or retry with another seed, at most three times. `store` is a folder in which
    renders share their sections.
    """

    fresh: bool = False
    strict: bool = False
    store: Path | None = None
    on_nan: Literal["stop", "retry"] = "stop"


USUAL = Options()


@dataclass(frozen=True, kw_only=True)
class Session:
    """A render before its first step: the keys of its sections, of its shots' start latents and of its film."""

    story: Storyboard
    plan: RenderPlan
    model: AnyModel
    options: Options
    folder: RunFolder
    images: Mapping[str, Image.Image]  # start images by their path in the storyboard, each of the film's size
    weights: str
    keys: Mapping[int, SectionKey]
    starts: Mapping[int, str]
    film: str
    made: Mapping[str, Any]  # provenance of what is rendered now

    def verdicts(self) -> list[Verdict]:
        """Which sections are kept, and why the others are not."""
        return self.folder.verdicts(
            self.plan, self.keys, self.made, fresh=self.options.fresh, strict=self.options.strict
        )

    def begin(self, names: tuple[str, ...]) -> None:
        """Marks the folder; `names` are files that come besides the plan, the storyboard and the latents."""
        sections = {str(index): key.key for index, key in self.keys.items()}
        files = {SECTION_FILE.format(section.shot, section.place) for section in self.plan.sections}
        files |= {START_FILE.format(shot) for shot in self.starts}
        files |= {PLAN, *names, *self.picture_names.values()}
        self.folder.begin(files | ({STORY} if not self.is_own else set()), sections, self.film)

    @property
    def picture_names(self) -> dict[str, str]:
        """Where the folder's own storyboard has its start images, by their path in this one: named by their content."""
        return {path: f"images/{picture_digest(image)[:12]}.png" for path, image in self.images.items()}

    @property
    def is_own(self) -> bool:
        """The storyboard is the folder's own, which stays as its maker has edited it."""
        file = self.story.file
        return file is not None and (self.folder.path / STORY).exists() and file.samefile(self.folder.path / STORY)


def settle(story: Storyboard, out: Path, model: AnyModel, options: Options) -> Session:
    """Plans, reads the start images, makes the keys; nothing is written. Raises StoryboardError or ModelError."""
    plan = make_plan(story, model.family)
    images = start_images(story, plan)
    made, dtype = provenance(model), model.precision  # slips of device and dtype are told before weights are read
    weights = model.identity
    pictures = {path: picture_digest(image) for path, image in images.items()}
    keys = section_keys(plan, pictures, weights, dtype)
    return Session(
        story=story,
        plan=plan,
        model=model,
        options=options,
        folder=RunFolder(out, mark_of(out, story), store=options.store),
        images=images,
        weights=weights,
        keys=keys,
        starts={s.index: hash_of(start_inputs(s, plan, pictures, weights, dtype)) for s in plan.shots if s.image},
        film=film_key(plan, story, keys),
        made=made,
    )


@contextmanager
def opened(session: Session, names: tuple[str, ...]) -> Iterator[list[Verdict]]:
    """Holds and marks the folder for a render that also writes `names`; gives the verdicts. Raises RenderError."""
    with session.folder.held(key.key for key in session.keys.values()):
        session.begin(names)
        yield session.verdicts()


def preview(story: Storyboard, out: Path, model: AnyModel, options: Options = USUAL) -> list[Verdict]:
    """What a render would keep of the folder `out`, and why not the rest; writes nothing.

    Raises RenderError for a folder that it would refuse.
    """
    session = settle(story, out, model, options)
    settle_owner(out, session.folder.mark, {key.key for key in session.keys.values()})
    return session.verdicts()


def provenance(model: AnyModel) -> dict[str, Any]:
    """What else is told of a section: where it was rendered, by which versions."""
    return {"device": model.hardware, "versions": versions()}


def made_with(model: AnyModel, weights: str) -> dict[str, Any]:
    """What made a film."""
    return {"weights": weights, "dtype": model.precision, **provenance(model)}


def start_images(story: Storyboard, plan: RenderPlan) -> dict[str, Image.Image]:
    """The start images of all shots by their path in the storyboard, each of the film's size."""
    images = {}
    for path in dict.fromkeys(shot.image for shot in plan.shots if shot.image):
        try:
            images[path] = fit_image(read_image(story.resolve(path)), plan.size)
        except (OSError, ImageError) as error:
            raise RenderError(f"{story.resolve(path)}: {error}") from error
    return images
