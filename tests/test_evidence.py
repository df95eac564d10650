"""The check of the committed evidence (make evidence) notices what is not as it was."""

import evidence
import numpy as np

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


def test_a_readme_that_says_other_figures_than_the_films_is_told(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("all well", encoding="utf8")
    told = list(evidence.of_page(readme))
    assert len(told) == 5 and all("README.md: does not say" in line for line in told)
