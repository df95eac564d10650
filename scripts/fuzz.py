"""Throws inputs of every kind at what reads them: each is taken or refused in one message, soon.

python scripts/fuzz.py                          # all kinds, as many inputs of each as KINDS says
python scripts/fuzz.py films --inputs 1000      # one kind

Storyboards are a plan or located errors; half are mappings of the schema's own words with values of every kind, half
are true storyboards with damage.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from tally import Tally

import framepack_relax as fr
from framepack_relax.storyboard.schema import Experimental, FramePackBlock, Relax, Scene, Storyboard

BOARDS = Path(__file__).resolve().parents[1] / "storyboards"
FIELDS = sorted(
    {name for model in (Storyboard, FramePackBlock, Scene, Relax, Experimental) for name in model.model_fields}
)
WORDS = ["auto", "cut", "continue", "puppet", "hero.png", "../x.png", "1e-3", "010", "No", "~", ".inf", "paper", "text"]

MARKS = ["&x ", "*x", "!!set ", "{", "[", "- ", ": ", "\t", "'", "|\n", "<<: ", "---\n", "\x85", "9" * 50]
MARKS += [" #7 ", '"', "\\U", "\uff1a", "\u00a0", "\u3000", "duration: 3\n", "cfg: 7\n", "fps: 29.97\n", "~/", "? "]

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=40) | st.dates()
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=25,
)
fine: dict[str, st.SearchStrategy[Any]] = {
    "intensity": st.floats(0, 1),
    "transition": st.sampled_from(["cut", "continue"]),
    "seed": st.integers(0, 2**63 - 1),
    "steps": st.integers(1, 50),
    "negative_prompt": st.text("abc [/]", max_size=20),
    "guidance": st.fixed_dictionaries({}, optional={"text": st.floats(1, 100), "embedded": st.floats(0, 100)}),
    "relax": st.fixed_dictionaries(
        {}, optional={"beta": st.floats(-1, 1), "p": st.sampled_from(["rapid", 0.7]), "target": st.just(["context"])}
    ),
}
needed: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text("abcdefgh", min_size=1, max_size=9),
    "prompt": st.text("words [/x] {y} \u05d0", min_size=1, max_size=30),
    "seconds": st.floats(0.7, 20),
}
wild = {name: junk | values for name, values in {**dict.fromkeys(Scene.model_fields, junk), **fine}.items()}
board_fields = {name: junk for name in FIELDS if name not in ("scenes", "image")}


def boards(scene: st.SearchStrategy[Any], others: dict[str, Any]) -> st.SearchStrategy[Any]:
    scenes = st.lists(scene, min_size=1, max_size=6)
    return st.fixed_dictionaries({"scenes": scenes, "image": st.just("hero.png")}, optional=others)


mappings = st.one_of(
    boards(st.fixed_dictionaries(needed, optional=fine), {"steps": st.integers(1, 50), "title": st.text(max_size=9)}),
    boards(st.fixed_dictionaries(needed, optional={n: s for n, s in wild.items() if n not in needed}), {}),
    boards(st.fixed_dictionaries({}, optional=wild) | junk, board_fields),
    st.dictionaries(st.sampled_from(FIELDS), junk),
).map(lambda data: yaml.safe_dump(data, allow_unicode=True))


def damaged(text: str, seed: int) -> str:
    """A few characters, lines or words of a storyboard changed, doubled, moved or gone."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 5)):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        b = min(b, a + rng.choice((1, 3, 40)))
        text = rng.choice(
            (
                text[:a] + text[b:],
                text[:b] + text[a:],
                text[:a] + rng.choice(MARKS) + text[a:],
                text[:a] + rng.choice(FIELDS) + text[b:],
                text[:a] + chr(rng.randrange(0xD7FF)) + text[b:],
            )
        )
    return text


shipped = [file.read_text(encoding="utf8") for file in sorted(BOARDS.glob("*.yaml"))]
damages = st.builds(damaged, st.sampled_from(shipped), st.integers(0, 2**64))
texts = mappings | damages | st.text(max_size=200)


def check(text: str, folder: Path, tally: Tally) -> None:
    """One input, as the command line takes it; anything but a plan or located errors is raised."""
    file = folder / "story.yaml"
    file.write_text(text, encoding="utf8", newline="")
    begun = time.process_time()
    try:
        fr.plan(file)
        end = "plans"
    except fr.StoryboardError as error:
        assert error.problems and all(problem.message for problem in error.problems)
        assert all(line.startswith(f"{file}") for line in str(error).splitlines()), str(error)
        end = "located errors"
    except fr.ModelError:
        end = "no such model"
    tally.add(end, time.process_time() - begun, text)


def make_folder(folder: Path) -> Path:
    """A folder with the start images that storyboards name."""
    for image in BOARDS.glob("*.png"):
        (folder / image.name).write_bytes(image.read_bytes())
    Image.new("RGB", (96, 96), "red").save(folder / "hero.png")
    return folder


def run(inputs: int, start: int = 0) -> Tally:
    """Tries `inputs` inputs."""
    tally = Tally()
    options: dict[str, Any] = {"database": None, "deadline": None, "phases": [Phase.generate]}
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name))
        check(shipped[0], folder, Tally())  # imports what is imported late
        batch = 2_000  # hypothesis keeps all inputs of a run
        for number in range(-(-inputs // batch)):
            most = min(batch, inputs - number * batch)

            @seed(start + number)
            @settings(max_examples=most, suppress_health_check=list(HealthCheck), **options)
            @given(texts)
            def one(text: str) -> None:
                check(text, folder, tally)

            one()
    return tally


KINDS: dict[str, tuple[Callable[[int, int], Tally], int]] = {  # how inputs of each kind are tried, and how many
    "boards": (run, 100_000),
    "films": (lambda inputs, start: import_module("fuzz_films").run(inputs, start), 5_000),
    "folders": (lambda inputs, start: import_module("fuzz_folders").run(inputs, start), 2_000),
    "models": (lambda inputs, start: import_module("fuzz_models").run(inputs, start), 20_000),
    "sweeps": (lambda inputs, start: import_module("fuzz_sweeps").run(inputs, start), 2_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--inputs", type=int, help="default: as many as the kind's own")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    if unknown := set(words.kinds) - set(KINDS):
        parser.error(f"{', '.join(sorted(unknown))}: no such kind")
    wrong = 0
    for kind in words.kinds or KINDS:
        attempt, usual = KINDS[kind]
        tally = attempt(words.inputs or usual, words.seed)
        users = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
        peak = max(resource.getrusage(user).ru_maxrss for user in users) / 1024
        print(f"{kind}: {tally.inputs} inputs, {tally.wrong} tracebacks, hangs and their like, {dict(tally.ends)}")
        print(f"slowest {tally.slowest:.2f} s ({tally.slowest_text[:80]!r}), peak memory {peak:.0f} MiB in all")
        wrong += tally.wrong
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
