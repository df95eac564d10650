"""The correction of drift: off is off, full strength is the reference's statistics, resume keeps the bits."""

import pytest
import torch

import framepack_relax as fr
from framepack_relax.relax.latents import match_statistics
from framepack_relax.storyboard import parse_storyboard

LATENTS = torch.randn(1, 4, 9, 6, 6, generator=torch.Generator().manual_seed(0))
REFERENCE = 3 * torch.randn(1, 4, 9, 6, 6, generator=torch.Generator().manual_seed(1)) + 2
SCENES = "  - {id: a, prompt: a red figure walks, seconds: 4.8}\n"


def moments(x):
    return torch.cat([x.mean((2, 3, 4)), x.std((2, 3, 4))])


def test_limits():
    assert match_statistics(LATENTS, REFERENCE, 0) is LATENTS
    torch.testing.assert_close(moments(match_statistics(LATENTS, REFERENCE, 1)), moments(REFERENCE))
    torch.testing.assert_close(match_statistics(LATENTS, LATENTS, 0.5), LATENTS)
    half = (moments(LATENTS) + moments(REFERENCE)) / 2
    torch.testing.assert_close(moments(match_statistics(LATENTS, REFERENCE, 0.5))[0], half[0])


def test_the_first_section_is_not_touched_and_a_resumed_film_has_the_same_bits(board, model, tmp_path):
    plain = list(fr.stream(board(SCENES), out=tmp_path / "plain", model=model))
    on = list(fr.stream(board(SCENES, "framepack: {drift: adain 0.5}"), out=tmp_path / "on", model=model))
    assert torch.equal(plain[0].latents, on[0].latents) and not torch.equal(plain[1].latents, on[1].latents)
    wide = [(moments(film[-1].latents) - moments(film[0].latents)).abs().max() for film in (plain, on)]
    assert wide[1] < wide[0]
    (tmp_path / "on/shots/00/002.safetensors").unlink()
    again = list(fr.stream(board(SCENES, "framepack: {drift: adain 0.5}"), out=tmp_path / "on", model=model))
    assert [done.report["reused"] for done in again] == [True, True, False, False]
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(on, again, strict=True))
    off = list(fr.stream(board(SCENES, "framepack: {drift: adain 0}"), out=tmp_path / "plain", model=model))
    assert all(done.report["reused"] for done in off)


@pytest.mark.parametrize("text", ["adain", "adain 2", "adain -1", "on", "adain nan", "0.25"])
def test_other_words_are_refused(text):
    with pytest.raises(fr.StoryboardError, match=r"write `adain 0\.25`"):
        parse_storyboard(f"framepack: {{drift: {text}}}\nscenes: [{{id: a, prompt: x, seconds: 1.2}}]")
