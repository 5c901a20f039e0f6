"""What commands settle for a user: kinds, the lead in 16 bits, how a text's loss begins."""

import pytest

from promptlimits.base.errors import UserError
from promptlimits.capacity.train.config import TEXT_SHARPENING_SHARE, lead_in
from promptlimits.cli.product import session
from promptlimits.nets.protocol import PromptKind


def settings(dtype="float32"):
    return session.Training(max_steps=9, patience=9).config(1, seed=0, dtype=dtype)


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
        training = session.Training()
        request = training.request(
            session.Asked(pairs=pairs).read(),
            settings(),
            training.budgets(default_seconds=1.0),
            prompt_tokens=(1,),
            kinds=("soft",),
            order="given",
            in_context_tokens=0,
        )
        shares.append(request.search.training.first_sharpening_share)
    assert shares == [TEXT_SHARPENING_SHARE, 1.0, 1.0]
    assert 0 < TEXT_SHARPENING_SHARE < 1
