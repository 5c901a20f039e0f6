"""Which tensors a family's checkpoint may hold, and under which names: no others are passed over.

A tensor that the model does not load may still be found by a reader that looks for several
names, and shadow the one that is loaded. So every name must be one that the family writes, all
with its prefix or all without, and each part of the model must be there once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from promptlimits.checking.model_files import unusable

_KINDS: Final = r"(?:weight|bias)"
_LLAMA: Final = rf"""
    (?:embed_tokens|norm)\.weight
  | layers\.N\.(?:input|post_attention)_layernorm\.weight
  | layers\.N\.self_attn\.(?:rotary_emb\.inv_freq|[qkvo]_proj\.{_KINDS})
  | layers\.N\.mlp\.(?:gate|up|down)_proj\.{_KINDS}
"""
_INSIDE: Final = {
    "bert": rf"""
        embeddings\.(?:word|position|token_type)_embeddings\.weight
      | embeddings\.(?:position|token_type)_ids
      | embeddings\.LayerNorm\.(?:weight|bias|gamma|beta)
      | pooler\.dense\.{_KINDS}
      | encoder\.layer\.N\.attention\.self\.(?:query|key|value)\.{_KINDS}
      | encoder\.layer\.N\.(?:attention\.output|intermediate|output)\.dense\.{_KINDS}
      | encoder\.layer\.N\.(?:attention\.)?output\.LayerNorm\.(?:weight|bias|gamma|beta)
    """,
    "gemma3_text": r"""
        (?:embed_tokens|norm)\.weight
      | layers\.N\.(?:input|post_attention|pre_feedforward|post_feedforward)_layernorm\.weight
      | layers\.N\.self_attn\.(?:[qkvo]_proj|[qk]_norm)\.weight
      | layers\.N\.mlp\.(?:gate|up|down)_proj\.weight
    """,
    "gpt2": rf"""
        w[tp]e\.weight | ln_f\.{_KINDS}
      | h\.N\.(?:ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.{_KINDS}
      | h\.N\.attn\.(?:bias|masked_bias)
    """,
    "gpt_neox": rf"""
        embed_in\.weight | final_layer_norm\.{_KINDS}
      | layers\.N\.(?:input|post_attention)_layernorm\.{_KINDS}
      | layers\.N\.attention\.(?:query_key_value|dense)\.{_KINDS}
      | layers\.N\.attention\.(?:bias|masked_bias|rotary_emb\.inv_freq)
      | layers\.N\.mlp\.dense_(?:h_to_4h|4h_to_h)\.{_KINDS}
    """,
    "llama": _LLAMA,
    "qwen2": _LLAMA,
}
_PATTERNS: Final = {
    family: re.compile(inside.replace(r"\.N\.", r"\.(?:0|[1-9][0-9]*)\."), re.VERBOSE)
    for family, inside in _INSIDE.items()
}
_PREFIXES: Final = {
    "bert": "bert.",
    "gemma3_text": "model.",
    "gpt2": "transformer.",
    "gpt_neox": "gpt_neox.",
    "llama": "model.",
    "qwen2": "model.",
}
_HEADS: Final = re.compile(
    r"(?:lm_head|embed_out)\.weight"
    r"|cls\.(?:seq_relationship|predictions(?:\.decoder|\.transform\.(?:dense|LayerNorm))?)"
    r"\.(?:weight|bias|gamma|beta)"
)
_BLOCK: Final = re.compile(r"(?:layers|layer|h)\.([0-9]+)\.")
_OLDER: Final = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

FAMILIES: Final = tuple(_INSIDE)
"""The families whose blocks are known."""


def stored_names(names: Iterable[str], *, family: str, layers: int) -> dict[str, str]:
    """The name under which each part of a model is stored."""
    found: dict[str, str] = {}
    prefixed = set()
    for name in sorted(names):
        if _HEADS.fullmatch(name):
            continue
        bare = name.removeprefix(_PREFIXES[family])
        block = _BLOCK.search(bare)
        if not _PATTERNS[family].fullmatch(bare) or (block and int(block[1]) >= layers):
            rule = f"hold only tensors of a {family} model of {layers} blocks"
            raise unusable(rule, f"an unknown tensor {name}")
        prefixed.add(bare != name)
        part = bare
        for older, today in _OLDER.items():
            part = part.replace(older, today)
        if part in found:
            raise unusable("hold each tensor once", f"{name} beside {found[part]}")
        found[part] = name
    if len(prefixed) > 1:
        rule = f"name all tensors with {_PREFIXES[family]} in front, or none"
        raise unusable(rule, "some of each")
    return found
