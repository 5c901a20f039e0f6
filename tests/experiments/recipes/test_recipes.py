"""Each recipe at its smallest: cells to findings, with laws that could fail."""

import dataclasses
import json

import numpy as np
import pytest
from tests.experiments.toy_cells import Silent

from promptlimits.base.errors import UserError
from promptlimits.capacity.store.sqlite import Store
from promptlimits.experiments.execute import Done, Here
from promptlimits.experiments.recipe import FORMS, run, write
from promptlimits.experiments.recipes import RECIPES, accessible_share, recipe, scaling
from promptlimits.record.experiment import Experiment

SCALING = dataclasses.replace(
    scaling.RECIPE.specs["quick"],
    networks=(scaling.Network(dim=2, heads=1, layers=1),),
    prompt_tokens=(1, 2),
    problems=3,
    starts=4,
    steps=40,
)
SHARE = dataclasses.replace(
    accessible_share.RECIPE.specs["quick"],
    line=dataclasses.replace(
        accessible_share.RECIPE.specs["quick"].line, pairs=3, prompts=51, draws=400
    ),
    networks=3,
    plane=dataclasses.replace(
        accessible_share.RECIPE.specs["quick"].plane, problems=3, starts=4, steps=20
    ),
    most_pairs=2,
)
SMALL = {"scaling": SCALING, "accessible-share": SHARE}


def small(name):
    return dataclasses.replace(recipe(name), specs={"quick": SMALL[name]})


def test_every_recipe_is_tried_here():
    assert set(SMALL) == set(RECIPES)


def test_an_unknown_recipe_is_named_with_those_that_there_are():
    with pytest.raises(UserError, match=r"scaling, accessible-share.*got nothing"):
        recipe("nothing")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", ["quick", "full"])
def test_specs_have_cells_that_differ_and_keys_that_the_store_takes(name, size):
    cells = RECIPES[name].specs[size].cells()
    assert len(set(cells)) == len(cells) > 10
    keys = {json.dumps(RECIPES[name].work.key(cell), sort_keys=True) for cell in cells}
    assert len(keys) == len(cells)


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_run_says_all_that_a_record_says_twice_the_same(name, tmp_path):
    with Store.open(tmp_path / "store.sqlite") as store:
        record, drawings = run(
            small(name), "quick", store=store, pool=Here(), progress=Silent(), command="again"
        )
        again, _ = run(
            small(name), "quick", store=store, pool=None, progress=Silent(), command="again"
        )
    assert again == record
    write(record, drawings, tmp_path)
    read = Experiment.from_json(json.loads((tmp_path / f"{name}.json").read_text()))
    assert read.to_json() == record.to_json()
    assert record.measured.low <= record.measured.value <= record.measured.high
    assert record.verdict.endswith(".")
    assert record.proved
    assert record.found
    assert record.control.of > 0
    for figure in record.figures:
        assert {(tmp_path / f"{figure.file}.{form}").exists() for form in FORMS} == {True}


def scaled(solving, *, planted=None):
    """A summary of scaling with given solving starts: {(m_p, k): counts of problems}."""
    cells = [
        Done(
            cell=scaling.Cell(
                network=scaling.Network(dim=2, heads=1, layers=1), prompt_tokens=tokens,
                columns=1, pairs=k, planted=which, block=0, problems=4, starts=12, steps=1,
                tolerance=1e-6, seed=0,
            ),
            record={"solving_starts": counts},
        )
        for which, table in ((False, solving), (True, planted or {}))
        for (tokens, k), counts in table.items()
    ]  # fmt: skip
    return scaling.summary(cells)


ALL, NONE = [12] * 4, [0] * 4
LAW = {(m, k): ALL if k <= m else NONE for m in (1, 2, 3) for k in range(1, m + 2)}
PLANTED = {place: ALL for place in LAW if place[1] > 1}


def test_the_law_itself_has_slope_one_and_agrees():
    found = scaled(LAW, planted=PLANTED)
    assert found.slope.value == pytest.approx(1)
    assert [each.curve.k50.value for each in found.lengths] == [1.5, 2.5, 3.5]
    said = scaling.findings(found)
    assert said.agrees is True
    assert said.found[0].count == 0
    assert said.control.share.value == 1


def test_starts_that_agree_count_for_less():
    apart = LAW | {(1, 2): [6, 6, 6, 6], (1, 3): NONE}
    agreeing = apart | {(1, 2): [12, 12, 0, 0]}
    planted = PLANTED | {(1, 3): ALL}
    first, second = (scaled(each, planted=planted).lengths[0] for each in (apart, agreeing))
    assert first.agreement[1].value == 0
    assert second.agreement[1].value > 0.99
    one, other = first.k50_of_a_start, second.k50_of_a_start
    assert one.value == pytest.approx(2, abs=0.01)
    assert other.high - other.low > 2 * (one.high - one.low)


def test_a_weak_control_decides_nothing_and_a_success_beyond_contradicts():
    weak = PLANTED | {(1, 2): [0, 0, 0, 12]}
    assert scaling.findings(scaled(LAW, planted=weak)).agrees is None
    beyond = LAW | {(1, 2): [0, 0, 0, 1]}
    said = scaling.findings(scaled(beyond, planted=PLANTED))
    assert said.agrees is False
    assert said.found[0].count == 1


def test_what_the_data_do_not_tell_between_two_sizes_widens_the_slope():
    found = scaled(LAW, planted=PLANTED)
    # All problems are alike, so that drawing them again alone would give no width at all.
    assert found.slope.low < 0.8 < 1.2 < found.slope.high


def shares(counted, log_bound):
    return accessible_share.OnLine(
        eps=accessible_share.Fraction(1, 10), counted=np.array(counted), draws=1000,
        factor=np.array([1.0, 0.1]), log_bound=np.array(log_bound),
        log_published=np.zeros((2, 2)), log_slope=np.full((2, 2), -2.0),
    )  # fmt: skip


def test_a_share_above_its_bound_is_seen_and_one_below_is_not():
    below = shares([[500, 200], [500, 200]], [[0.1, -3.0], [0.1, -3.0]])
    above = shares([[500, 900], [500, 200]], [[0.1, -3.0], [0.1, -3.0]])
    assert below.checks == (0, 2)
    assert above.checks == (1, 2)
    assert below.slope().value == pytest.approx(np.log(0.02 / 0.5))
