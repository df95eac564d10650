"""What RESULTS.md is made from: enough films, claims that name their arms, verdicts that select the words."""

from collections import Counter

import claims
import numpy as np
import pytest
import results
from training.world import FIRST, PLACE_WORDS

from framepack_relax.evaluate.rows import read_rows
from framepack_relax.evaluate.spec import jobs, read_sweep
from framepack_relax.evaluate.statistics import holm


@pytest.fixture(scope="module")
def rows():
    return read_rows(results.FILMS)


@pytest.mark.parametrize("name", ["ablation", "calibration", "paper-table-1", "paper-table-2"])
def test_every_arm_has_each_of_its_films_once(rows, name):
    found = Counter((row["arm"], row["scene"], row["seed"]) for row in results.of_sweep(rows, name))
    assert found == Counter((job.arm.id, job.event.id, job.seed) for job in jobs(read_sweep(name)))


def test_the_headline_sweep_has_48_films_an_arm_and_action_of_figures_that_were_held_out(rows):
    sweep = read_sweep("headline")
    begun, others = sweep.starts[: sweep.seeds], sweep.starts[sweep.seeds :]
    assert sweep.seeds >= 48 and len({start.image for start in begun}) == sweep.seeds, "a start for each seed"
    every = {(f"{colour} figure", PLACE_WORDS[place]) for colour in FIRST.colours for place in FIRST.places}
    held_out = {(f"{colour} figure", PLACE_WORDS[place]) for colour, place in FIRST.held_out}
    pairs, rivals = ([(start.who.partition(" ")[2], start.where) for start in each] for each in (begun, others))
    assert {*pairs} == held_out and {*pairs, *rivals} == every, "told from all figures and places, not from one"
    assert len(jobs(sweep.model_copy(update={"seeds": 1}))[0].calms) == len(every)
    others = [read_sweep(name) for name in ("ablation", "calibration", "paper-table-1", "paper-table-2")]
    assert all(other.first_seed + other.seeds <= sweep.first_seed for other in others), "fresh seeds"
    found = results.of_sweep(rows, "headline")
    arms, seeds = {row["arm"] for row in found}, {row["seed"] for row in found}
    assert seeds == {*range(sweep.first_seed, sweep.first_seed + len(seeds))}, "the first ones, none left out"
    assert len(found) == len(arms) * len(sweep.scenes) * len(seeds), "whole seeds"


def test_claims_name_arms_of_the_sweeps_in_words():
    arms = {cell.id for arm in read_sweep(results.LEADING[0]).arms for cell in arm.cells()}
    named = {name for claim in claims.CLAIMS for name in (claim.arm, claim.other)}
    assert named <= arms and named | {*results.LEAD} <= {*claims.CALLED} and {*results.LEAD} <= arms


def films(gaps_by_arm, seeds=24):
    """Films of one scene: of each arm so much more of the action than vanilla in each seed."""
    rows = [{"arm": "vanilla", "scene": "jump", "seed": k, "target": 0.5} for k in range(seeds)]
    return rows + [{**row, "arm": arm, "target": 0.5 + gap(row["seed"])} for arm, gap in gaps_by_arm for row in rows]


ARMS = {
    "more": ("paper", lambda k: 0.2 + k / 100),
    "less": ("context", lambda k: -0.2 - k / 100),
    "alike": ("text", lambda k: (-1) ** k / 50),
    "not decided": ("boost", lambda k: (-1) ** k / 2),
}


def decided(rows, arms=ARMS):
    return claims.decide(rows, [claims.Claim(figure="target", arm=arm) for arm, _ in arms.values()])


def test_verdicts_are_those_of_the_differences_and_each_has_its_own_words():
    found = decided(films(ARMS.values()))
    assert [one.verdict for one in found] == [*ARMS]
    sentences = [one.claim.sentence(verdict) for one in found for verdict in ARMS]
    assert len({*sentences}) == len(sentences) and all(a == b or a not in b for a in sentences for b in sentences)
    assert all(one.p <= claims.DOUBT for one in found[:3]) and found[3].p > claims.DOUBT


def test_a_claim_that_holds_alone_is_not_decided_among_too_many():
    surely = {"more": ("paper", lambda k: 0.3 + k / 100)}
    assert decided(films(surely.values(), seeds=8), surely)[0].verdict == "more"
    many = [claims.Claim(figure="target", arm=arm) for arm in ("paper", "text", "context", "boost")]
    others = [(claim.arm, ARMS["not decided"][1]) for claim in many[1:]]
    assert claims.decide(films([surely["more"], *others], seeds=8), many)[0].verdict == "not decided"


def test_a_claim_without_films_is_left_out_and_the_headline_sweep_leads_where_it_is_rendered(rows):
    asked = [claims.Claim(figure="target", arm=arm) for arm in ("paper", "ALG")]
    assert [one.claim.arm for one in claims.decide(films([ARMS["more"]]), asked)] == ["paper"]
    assert results.leading(rows) == next(filter(None, (results.of_sweep(rows, name) for name in results.LEADING)))
    rows = results.of_sweep(rows, "ablation")
    fresh = [
        {**row, "seed": row["seed"] + read_sweep("headline").first_seed} for row in rows if row["arm"] == "context"
    ]
    assert results.leading(rows) == rows
    assert results.leading([*rows, *fresh]) == [row for row in fresh if row in results.of_sweep(fresh, "headline")]


def test_a_page_counts_the_films_that_there_are_and_says_what_the_rows_say(rows):
    lead = results.leading(rows)
    fewer = [row for row in lead if row["arm"] != "context" or row["seed"] > lead[0]["seed"]]
    counts = sorted({Counter(row["arm"] for row in fewer)[arm] for arm in ("vanilla", "context")})
    assert f"{counts[0]} to {counts[1]} films a row" in results.block(fewer, [], "")
    swapped = [{**row, "arm": {"vanilla": "context", "context": "vanilla"}.get(row["arm"], row["arm"])} for row in lead]
    verdicts = [{(one.claim.figure, one.claim.arm): one for one in claims.decide(each)} for each in (lead, swapped)]
    for figure, said in (("target", "more surely"), ("motion", "moves more"), ("border", "jumps more")):
        before, after = (each[figure, "context"] for each in verdicts)
        assert said in before.sentence and said.replace("more", "less") in after.sentence
        assert list(after.not_borne_out(results.text(lead, [before])))


def test_the_films_that_lead_are_in_the_appendix_every_arm_of_them(rows):
    lead = results.leading(rows)
    page = results.written(rows, [])["docs/results-appendix.md"].partition("## The ablation")[0]
    assert {line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if " (" in line} >= {
        row["arm"] for row in lead
    }


def test_holm_corrects_as_published_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # p.adjust of R
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.2]) == [0.2] and holm([]) == []
    values = np.random.default_rng(0).uniform(size=20)
    made = np.array(holm(values))
    assert (made >= values).all() and (made <= np.minimum(1, 20 * values) + 1e-12).all()
    assert (made[np.argsort(values)] == np.sort(made)).all()
