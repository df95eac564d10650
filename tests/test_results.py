"""What RESULTS.md is made from: enough films, claims that name their arms, verdicts that need seeds to agree."""

from collections import Counter

import pytest
import results

from framepack_relax.evaluate.rows import read_rows
from framepack_relax.evaluate.spec import jobs, read_sweep


@pytest.fixture(scope="module")
def rows():
    return read_rows(results.FILMS)


@pytest.mark.parametrize("name", ["ablation", "calibration", "paper-table-1", "paper-table-2"])
def test_every_arm_has_each_of_its_films_once(rows, name):
    found = Counter((row["arm"], row["scene"], row["seed"]) for row in results.of_sweep(rows, name))
    assert found == Counter((job.arm.id, job.event.id, job.seed) for job in jobs(read_sweep(name)))


def test_claims_and_knobs_name_arms_of_the_sweeps():
    arms = {
        name: {cell.id for arm in read_sweep(name).arms for cell in arm.cells()} for name in ("ablation", "calibration")
    }
    assert {name for claim in results.CLAIMS for name in (claim.arm, claim.other)} <= arms["ablation"]
    assert {arm for values in results.KNOBS.values() for arm in values.values()} <= arms["ablation"] | arms[
        "calibration"
    ]


def test_a_verdict_needs_an_interval_on_one_side_of_zero_and_seeds_that_agree():
    def film(arm, seed, target):
        return {"arm": arm, "scene": "jump", "seed": seed, "target": target}

    rows = [film("vanilla", k, 0.5) for k in range(8)] + [film("up", k, 0.6 + k / 100) for k in range(8)]
    rows += [film("both", k, 0.5 + (-1) ** k / 2) for k in range(8)]
    rows += [film("same", k, 0.5 + (-1) ** k / 50) for k in range(8)]
    rows += [film("half", k, 0.9 if k < 4 else 0.5) for k in range(8)]
    claims = [
        results.Claim(said="", figure="target", arm=arm, other=other)
        for arm, other in (
            ("up", "vanilla"),
            ("vanilla", "up"),
            ("both", "vanilla"),
            ("same", "vanilla"),
            ("half", "vanilla"),
        )
    ]
    verdicts = [results.verdict(rows, claim).split(" | ")[1] for claim in claims]
    assert verdicts == ["holds", "the opposite holds", "not decided", "no difference of 0.1", "not decided"]
