"""Problems for the tests of this folder."""

import torch

from promptlimits.capacity.train.config import TrainingConfig
from promptlimits.capacity.train.problem import Problem
from promptlimits.capacity.train.state import TrainingState, from_vocabulary
from promptlimits.nets.protocol import EncodedPair, pack

IDS = (((5,), (9, 0)), ((6, 7, 8), (12, 0)), ((11, 3), (4, 13, 0)), ((2, 2, 3, 4), (5, 0)))
PAIRS = [EncodedPair(key="", value="", key_ids=key, value_ids=value) for key, value in IDS]
HOPELESS = [
    EncodedPair(key="", value="", key_ids=(5,), value_ids=(9, 0)),
    EncodedPair(key="", value="", key_ids=(5,), value_ids=(10, 0)),
]
"""Two answers to one key: at most one can be held."""


def problem(model, key=0, *, pairs=tuple(PAIRS[:3]), race=None, dtype=torch.float64, **settings):
    """A problem from a vocabulary start, in double precision unless asked for less."""
    chosen = {"prompt_tokens": 4, "learning_rate": 0.3, "max_steps": 80, "patience": 80}
    config = TrainingConfig(**(chosen | settings))
    generator = torch.Generator().manual_seed(config.seed)
    prompt = from_vocabulary(
        model, count=1, prompt_tokens=config.prompt_tokens, generator=generator
    )[0]
    return Problem(
        key=key,
        pairs=pack(pairs),
        config=config,
        state=TrainingState.start(prompt.to(dtype), len(pairs)),
        race=race,
    )
