"""The check of the committed evidence (make evidence) notices what is not as it was."""

import claims
import evidence
import numpy as np
import pytest
import results

HERE = {"torch": "2.13.0", "processor": "one", "kernels": "AVX2"}


def test_latents_that_differ_are_named():
    made = {name: np.random.default_rng(0).normal(size=(1, 2, 3, 4, 4)).astype(np.float32) for name in ("000", "001")}
    facts, kept = {**HERE, "sha256": evidence.hashes(made)}, evidence.last(made)
    assert list(evidence.differences(made, facts, kept, HERE)) == []
    other = {**made, "001": made["001"] * np.float32(1 + 2e-7)}
    assert "section 001" in " ".join(evidence.differences(other, facts, kept, HERE)), "to the bit on the same machine"
    elsewhere = {**HERE, "processor": "another"}
    assert list(evidence.differences(other, facts, kept, elsewhere)) == [], "rounding on another"
    for wrong in (made["001"] + 1e-3, made["001"] * np.float32("nan")):
        assert "section 001" in " ".join(evidence.differences({**made, "001": wrong}, facts, kept, elsewhere))
    assert "has sections 000" in next(evidence.differences({"000": made["000"]}, facts, kept, HERE))


def test_a_sentence_that_is_not_borne_out_is_told_wherever_it_stands(tmp_path):
    claim = claims.Claim(figure="target", arm="context")
    found = claims.Decided(claim=claim, gap=0.6, low=0.4, high=0.8, p=0.3, verdict="not decided")
    page = tmp_path / "page.md"
    page.write_text(f"On this model:\n\n- {found.sentence}\n", encoding="utf8")
    assert list(evidence.of_sentences([page], [found])) == []
    said = claim.sentence("more")
    page.write_text(f"All is well.  {said.replace(' surely', chr(10) + 'surely')} And so on.", encoding="utf8")
    told = list(evidence.of_sentences([page], [found]))
    assert len(told) == 1 and "page.md" in told[0] and said in told[0] and "not borne out" in told[0]


@pytest.mark.slow
def test_every_page_says_what_the_films_say_and_one_that_was_changed_is_told(monkeypatch, tmp_path):
    assert list(evidence.of_films()) == []
    for name in ("RESULTS.md", "docs/results-appendix.md", *results.PAGES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (results.ROOT / name).read_text(encoding="utf8")
        (tmp_path / name).write_text(text.replace("| loosened context |", "| loosened past |"), encoding="utf8")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    told = [line.partition(":")[0] for line in evidence.of_films()]
    assert told == ["RESULTS.md", *results.PAGES]
