"""Which model a witness is decoded with.

A witness may come from anybody. What it calls its model is a catalog name or a hub id, never a
path: a path would lead to whatever lies there on the reader's machine. And one that calls its
model by a catalog name must have been found with the weights of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from promptlimits.base.errors import UserError
from promptlimits.capacity.witness.format import Witness
from promptlimits.nets.files.cache import built
from promptlimits.nets.files.catalog import CatalogEntry, find_entry
from promptlimits.nets.files.folder import weight_files
from promptlimits.nets.files.hashing import model_hash

if TYPE_CHECKING:
    from promptlimits.nets.load.stock import StockModel


def load_model_of(
    witness: Witness,
    model_path: str | None,
    *,
    any_weights: bool,
    device: str,
    allow_hub: bool,
) -> StockModel:
    """Load the model of a witness with stock tools, and refuse one that is not its own."""
    stock = _load(witness, model_path, device=device, allow_hub=allow_hub)
    if any_weights:
        return stock
    for entry in filter(None, map(find_entry, {witness.model.reference, witness.model.name})):
        _require_catalog_weights(witness, entry, stock)
    if stock.model_hash != witness.model.model_hash:
        raise UserError(
            "model",
            f"have the weights of the witness ({_short(witness.model.model_hash)})",
            got=_short(stock.model_hash),
            remedy="give the model it was found with, or allow any weights (--any-weights)",
        )
    return stock


def _load(witness: Witness, model_path: str | None, *, device: str, allow_hub: bool) -> StockModel:
    from promptlimits.nets.load.locate import is_hub_id
    from promptlimits.nets.load.stock import load_stock

    dtype = getattr(torch, witness.model.compute_dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(
            "compute_dtype of the witness",
            "be a dtype of torch",
            got=witness.model.compute_dtype,
            remedy="make the witness again with promptlimits bracket",
        )
    if model_path is not None:
        return load_stock(model_path, dtype=dtype, device=device, allow_hub=allow_hub)
    reference = witness.model.reference
    if find_entry(reference) is None and not is_hub_id(reference):
        raise UserError(
            "model of the witness",
            "be a catalog name or a hub id (org/name) where --model is not given",
            got=repr(reference),
            remedy="say where the model is with --model PATH",
        )
    try:
        return load_stock(
            reference, dtype=dtype, device=device, allow_hub=allow_hub, allow_local=False
        )
    except UserError as error:
        raise UserError(
            "model of the witness",
            "be within reach",
            got=f"{reference!r}, which is not ({error})",
            remedy="say where it is with --model PATH",
        ) from error


def _require_catalog_weights(witness: Witness, entry: CatalogEntry, stock: StockModel) -> None:
    """Refuse a witness that gives other weights the name of a catalog model."""
    if (stock.name, stock.source) == (entry.name, "catalog"):
        known = stock.model_hash
    else:
        ready = built(entry.cache_name)
        if ready is None:
            raise UserError(
                f"catalog model {entry.name}, which the witness names,",
                "be on this machine, to be compared",
                got="none",
                remedy=f"run `promptlimits models get {entry.name}`, or allow any weights "
                "(--any-weights)",
            )
        known = model_hash(weight_files(ready))
    if known != witness.model.model_hash:
        raise UserError(
            f"witness that names the catalog's {entry.name}",
            f"be found with its weights ({_short(known)})",
            got=_short(witness.model.model_hash),
            remedy="ask its maker for the model, or see what any model answers (--any-weights)",
        )


def _short(digest: str) -> str:
    return f"{digest[:12]}..."
