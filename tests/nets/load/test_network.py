"""A network is built only where its weights can be there, and fit."""

import json
import logging
import os
import re
import sys
import tracemalloc
import warnings

import pytest
import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from transformers import LlamaConfig
from transformers.utils import logging as transformers_logging

from promptlimits.base.errors import UserError
from promptlimits.nets.load.load import load_parts
from promptlimits.nets.load.network import quiet, readable, require_room, require_size
from promptlimits.nets.load.stock import load_stock

SEVENTY_BILLION = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": None,
}


def edit(checkpoint, **changes):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(autouse=True)
def _never_built(monkeypatch):
    def built(*_, **__):
        raise AssertionError("a network was built")

    monkeypatch.setattr("promptlimits.nets.load.checkpoint.read_network", built)


@pytest.mark.parametrize("load", [load_parts, load_stock])
@pytest.mark.parametrize(
    ("changes", "got"),
    [
        (SEVENTY_BILLION, r"numbers in its files for 6\d,\d+,\d+,\d+ weights"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers in config.json"),
        ({"hidden_size": 0}, "a network without weights"),
        ({"intermediate_size": 10**12}, r"for \d+,\d+,\d+,\d+,\d+ weights"),
        ({"intermediate_size": -1}, "negative dimension -1"),
        ({"hidden_size": 10**30}, "Overflow"),
        ({"head_dim": 0}, "ZeroDivisionError"),
        ({"hidden_act": "nope"}, "KeyError: 'nope'"),
    ],
)
def test_what_the_files_cannot_hold_is_not_built(load, changes, got, checkpoint):
    edit(checkpoint, **changes)
    with pytest.raises(UserError, match=f"config.json.*, got .*{got}"):
        load(str(checkpoint))


def test_folders_without_weights_are_refused_first(checkpoint):
    edit(checkpoint, **SEVENTY_BILLION)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(UserError, match="got a directory without weights"):
        load_parts(str(checkpoint))


def test_a_sparse_file_of_a_terabyte_is_no_small_model(checkpoint):
    numbers = 1 << 38
    entry = {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}
    header = json.dumps({"model.norm.weight": entry}).encode()
    path = checkpoint / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 4 * numbers)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"got 274,877,906,944 numbers in its files for 31,520"):
            load_parts(str(checkpoint))
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_a_model_larger_than_the_memory_is_refused():
    with pytest.raises(UserError, match="got 2000000 GB of weights in bfloat16; use a smaller"):
        require_room(10**15, name="model large", dtype=torch.bfloat16)


def test_packed_weights_are_not_counted():
    config = LlamaConfig(num_hidden_layers=1, hidden_size=64, intermediate_size=64, vocab_size=50)
    with pytest.raises(UserError, match="got 10 numbers in its files"):
        require_size(config, 10, name="model it", dtype=torch.float32)
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    require_size(config, 10, name="model it", dtype=torch.float32)


def test_a_model_that_fits_in_no_memory_is_no_broken_file():
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(MemoryError), readable("model it", "be read", remedy="none"):
            raise error


def test_a_long_message_of_a_library_ends_with_a_word():
    with pytest.raises(UserError) as caught, readable("it", "be read", remedy="none"):
        raise ValueError("many words " * 100)
    assert re.search(r" (many|words) …; none$", str(caught.value))


hub = logging.getLogger("huggingface_hub")


def state():
    return (
        transformers_logging.get_verbosity(),
        hub.level,
        transformers_logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
    )


@pytest.fixture(autouse=True)
def _unusual_levels():
    before = transformers_logging.get_verbosity(), hub.level
    transformers_logging.set_verbosity(logging.INFO)
    hub.setLevel(logging.DEBUG)
    yield
    transformers_logging.set_verbosity(before[0])
    hub.setLevel(before[1])


def test_everything_is_silent_inside(capfd):
    with quiet():
        transformers_logging.get_logger("transformers").error("loud")
        hub.error("loud")
        warnings.warn("loud", stacklevel=1)
        print("loud")
        print("loud", file=sys.stderr)
        assert state() == (logging.CRITICAL, logging.CRITICAL, False, True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bars", [True, False])
def test_all_is_restored_even_after_an_error(bars):
    if not bars:
        transformers_logging.disable_progress_bar()
    before = state()
    with pytest.raises(ValueError, match="inside"), quiet():
        raise ValueError("inside")
    assert state() == before
    assert before[2:] == (bars, not bars)
    transformers_logging.enable_progress_bar()
