"""What the commands settle for a user: the lead in 16 bits, and how the loss begins for a text."""

from __future__ import annotations

from pathlib import Path

from promptlimits.capacity.train.config import TEXT_SHARPENING_SHARE, TrainingConfig, lead_in
from promptlimits.cli.product import session


def settings(dtype: str = "float32") -> TrainingConfig:
    return session.training_config(
        prompt_tokens=1, learning_rate=1.0, max_steps=9, patience=9, seed=0, dtype=dtype
    )


def test_in_16_bits_a_token_must_lead_by_more() -> None:
    leads = [settings(dtype).relative_lead for dtype in ("float64", "float32", "float16")]
    assert leads == [1e-3, 1e-3, 2**-9]
    assert settings("bfloat16").relative_lead == lead_in("bfloat16") == 2**-6


def test_a_text_begins_with_a_share_of_the_sharpening_and_a_list_with_all_of_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "poem.txt").write_text("So much depends", encoding="utf-8")
    shares = []
    for pairs in (f"text:{tmp_path / 'poem.txt'}", "random:8", "capitals"):
        source = session.read_pairs(pairs, template="{key}:", seed=0, limit=None)
        shares.append(session.suited_to(source, settings()).first_sharpening_share)
    assert shares == [TEXT_SHARPENING_SHARE, 1.0, 1.0]
    assert 0 < TEXT_SHARPENING_SHARE < 1
