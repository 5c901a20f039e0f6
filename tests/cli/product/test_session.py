"""What commands settle for a user: kinds, the lead in 16 bits, how a text's loss begins."""

from types import SimpleNamespace

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.train.config import TEXT_SHARPENING_SHARE, lead_in
from promptlimits.cli.product import session
from promptlimits.nets.decoder import rate
from promptlimits.nets.decoder.rate import ProductRates
from promptlimits.nets.protocol import PromptKind


def settings(dtype="float32"):
    return session.Training(max_steps=9, patience=9).config(1, seed=0, dtype=dtype)


def requested(training, pairs="random:8"):
    return training.request(
        session.Asked(pairs=pairs).read(),
        settings(),
        training.budgets(default_seconds=1.0),
        prompt_tokens=(1,),
        kinds=("soft",),
        order="given",
        in_context_tokens=0,
    )


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("soft", ("soft",)),
        ("prefix", ("prefix",)),
        ("soft,prefix", ("soft", "prefix")),
        (" prefix , soft ", ("soft", "prefix")),
    ],
)
def test_kinds_are_read_in_any_order(text, kinds):
    assert session.prompt_kinds(text) == kinds


@pytest.mark.parametrize("text", ["", "lora", "soft,", "soft,soft", "Soft", "soft prefix", "\x1b"])
def test_what_is_no_kind_is_refused(text):
    with pytest.raises(UserError, match="--kind must be soft or prefix or both"):
        session.prompt_kinds(text)


def test_the_kinds_are_those_of_the_models():
    assert tuple(kind.value for kind in PromptKind) == session.KINDS


def test_in_16_bits_a_token_must_lead_by_more():
    leads = [settings(dtype).relative_lead for dtype in ("float64", "float32", "float16")]
    assert leads == [1e-3, 1e-3, 2**-9]
    assert settings("bfloat16").relative_lead == lead_in("bfloat16") == 2**-6


def test_a_text_begins_with_a_share_of_the_sharpening_and_a_list_with_all_of_it(tmp_path):
    (tmp_path / "poem.txt").write_text("So much depends", encoding="utf-8")
    shares = []
    for pairs in (f"text:{tmp_path / 'poem.txt'}", "random:8", "capitals"):
        request = requested(session.Training(), pairs=pairs)
        shares.append(request.search.training.first_sharpening_share)
    assert shares == [TEXT_SHARPENING_SHARE, 1.0, 1.0]
    assert 0 < TEXT_SHARPENING_SHARE < 1


class Found:
    """A model as far as a search's dtype depends on it."""

    def __init__(self, *, twin):
        self.narrow = object() if twin else None
        self.can_narrow, self.device = twin, "cpu"
        self.card = SimpleNamespace(name="some", dim=64)


@pytest.mark.parametrize(
    ("asked", "twin", "ratio", "settled"),
    [
        ("auto", True, 7.0, "bfloat16"),
        ("auto", True, 0.04, None),
        ("auto", False, 7.0, None),
        ("same", True, 7.0, None),
        ("bfloat16", True, 0.04, "bfloat16"),
    ],
)
def test_the_dtype_of_a_search_is_measured_unless_it_is_given(
    asked, twin, ratio, settled, monkeypatch
):
    rates = ProductRates(float32_gflops=1.0, bfloat16_gflops=ratio)
    monkeypatch.setattr(rate, "product_rates", lambda _width, _device: rates)
    training, model = session.Training(search_dtype=asked), Found(twin=twin)
    request = training.on(model, requested(training))
    assert request.search.training.search_dtype == settled
    assert request.search_dtype(SimpleNamespace(card=SimpleNamespace(compute_dtype="own"))) == (
        settled or "own"
    )


def test_a_dtype_that_a_model_cannot_be_searched_in_is_refused():
    training = session.Training(search_dtype="bfloat16")
    with pytest.raises(UserError, match="--search-dtype must be left out for model some"):
        training.on(Found(twin=False), requested(training))
