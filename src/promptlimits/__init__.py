"""How much a prompt can hold: what was found, what is proved, and what lies between.

The whole public API is what this module exports; everything else may change without notice.
Names are looked up on first use, so that `import promptlimits` never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptlimits.base.bound import Assumption, Certificate, LogBound, Source
    from promptlimits.base.errors import (
        PromptLimitsError,
        PromptLimitsWarning,
        RunFailed,
        UserError,
    )
    from promptlimits.capacity.measure import measure
    from promptlimits.capacity.search.ordering import Order
    from promptlimits.capacity.search.request import Request
    from promptlimits.capacity.search.search import SearchConfig
    from promptlimits.capacity.store import RunRecord, Store
    from promptlimits.capacity.tables.form import Asking
    from promptlimits.capacity.tables.reading import Reading
    from promptlimits.capacity.task.builtin import capitals
    from promptlimits.capacity.task.encoded import EncodedTask, encode
    from promptlimits.capacity.task.pairs import Pair, PairTask, read_pairs
    from promptlimits.capacity.task.random_tokens import random_pairs
    from promptlimits.capacity.task.resolve import load_task
    from promptlimits.capacity.train.config import Objective, TrainingConfig
    from promptlimits.capacity.train.engine import train, train_many
    from promptlimits.capacity.train.outcome import Outcome
    from promptlimits.capacity.train.problem import Fit, Problem, StepReport
    from promptlimits.capacity.train.prompts import from_vocabulary
    from promptlimits.capacity.train.state import TrainingState
    from promptlimits.capacity.witness.format import Witness, read_witness, save_witness
    from promptlimits.capacity.witness.fresh_process import verify_in_fresh_process
    from promptlimits.capacity.witness.verification import Verification
    from promptlimits.checking.counting import check_counting
    from promptlimits.checking.dispatch import check_certificate
    from promptlimits.lab.errata.statements import Erratum, erratum
    from promptlimits.lab.inverse.inverse import Inverse, invert
    from promptlimits.lab.one_layer.error_floor import ErrorFloor, error_floor
    from promptlimits.lab.one_layer.oracle.certificate import OracleCertificate
    from promptlimits.lab.one_layer.oracle.value import OracleValue, certify_value, oracle_value
    from promptlimits.lab.one_layer.reachable import Reach, reach
    from promptlimits.lab.one_layer.realise import realise
    from promptlimits.lab.one_layer.setting import SharedQuery, shared_query
    from promptlimits.lab.regression.levenberg_marquardt import LevenbergMarquardt, Solutions
    from promptlimits.lab.regression.regression import RegressionProblems, solve_regression
    from promptlimits.lab.regression.regression_control import PlantedControl, planted_control
    from promptlimits.lab.universal.universal import RealMap, universal_prompt
    from promptlimits.lab.universal.universal_bound import (
        FunctionClass,
        UniversalBound,
        universal_bound,
    )
    from promptlimits.lipschitz.attack.estimate import JacobianEstimate, largest_jacobian_norm
    from promptlimits.lipschitz.balls.spectral import spectral_norm
    from promptlimits.lipschitz.ellipsoid.certificate import EllipsoidBound, ellipsoid_bound
    from promptlimits.lipschitz.paper.compose import LipschitzBound, composed_bound, tightest_bound
    from promptlimits.lipschitz.paper.invertibility import Invertibility, certify_invertible
    from promptlimits.nets.load.load import load_parts
    from promptlimits.nets.paper.transformer import PaperTransformer, from_weights
    from promptlimits.nets.paper.transport import wasserstein_distance
    from promptlimits.nets.paper.weights import (
        HeadWeights,
        LayerWeights,
        TransformerWeights,
        random_weights,
    )
    from promptlimits.nets.protocol import (
        EncodedPair,
        FrozenModel,
        ModelCard,
        PackedPairs,
        Part,
        PromptKind,
        TextCodec,
        pack,
    )
    from promptlimits.nets.routes.causal import HuggingFaceCausalLM
    from promptlimits.report.html import write_report
    from promptlimits.theory.last_tokens_capacity import LastTokensCapacity, last_tokens_capacity
    from promptlimits.theory.layer_constants import LayerConstants
    from promptlimits.theory.number_formats import NumberFormat, number_format
    from promptlimits.theory.prompt_capacity import (
        CapacityThreshold,
        ShareReached,
        capacity_threshold,
        share_reached,
    )
    from promptlimits.theory.prompt_capacity_published import published_capacity
    from promptlimits.theory.prompt_setting import PromptSetting
    from promptlimits.theory.token_capacity import (
        CountingCeiling,
        counting_ceiling,
        shortest_prompt,
    )
    from promptlimits.theory.washout import Washout, washout
    from promptlimits.theory.whole_output_capacity import (
        WholeOutputCapacity,
        short_prompt_capacity,
        whole_output_capacity,
    )

__version__ = "0.1.0"

# Public name -> the module that defines it.
_DEFINED_IN = {
    "Asking": "promptlimits.capacity.tables.form",
    "Assumption": "promptlimits.base.bound",
    "CapacityThreshold": "promptlimits.theory.prompt_capacity",
    "Certificate": "promptlimits.base.bound",
    "CountingCeiling": "promptlimits.theory.token_capacity",
    "EllipsoidBound": "promptlimits.lipschitz.ellipsoid.certificate",
    "EncodedPair": "promptlimits.nets.protocol",
    "EncodedTask": "promptlimits.capacity.task.encoded",
    "Erratum": "promptlimits.lab.errata.statements",
    "ErrorFloor": "promptlimits.lab.one_layer.error_floor",
    "Fit": "promptlimits.capacity.train.problem",
    "FrozenModel": "promptlimits.nets.protocol",
    "FunctionClass": "promptlimits.lab.universal.universal_bound",
    "HeadWeights": "promptlimits.nets.paper.weights",
    "HuggingFaceCausalLM": "promptlimits.nets.routes.causal",
    "Inverse": "promptlimits.lab.inverse.inverse",
    "Invertibility": "promptlimits.lipschitz.paper.invertibility",
    "JacobianEstimate": "promptlimits.lipschitz.attack.estimate",
    "LastTokensCapacity": "promptlimits.theory.last_tokens_capacity",
    "LayerConstants": "promptlimits.theory.layer_constants",
    "LayerWeights": "promptlimits.nets.paper.weights",
    "LevenbergMarquardt": "promptlimits.lab.regression.levenberg_marquardt",
    "LipschitzBound": "promptlimits.lipschitz.paper.compose",
    "LogBound": "promptlimits.base.bound",
    "ModelCard": "promptlimits.nets.protocol",
    "NumberFormat": "promptlimits.theory.number_formats",
    "Objective": "promptlimits.capacity.train.config",
    "OracleCertificate": "promptlimits.lab.one_layer.oracle.certificate",
    "OracleValue": "promptlimits.lab.one_layer.oracle.value",
    "Order": "promptlimits.capacity.search.ordering",
    "Outcome": "promptlimits.capacity.train.outcome",
    "PackedPairs": "promptlimits.nets.protocol",
    "Pair": "promptlimits.capacity.task.pairs",
    "PairTask": "promptlimits.capacity.task.pairs",
    "PaperTransformer": "promptlimits.nets.paper.transformer",
    "Part": "promptlimits.nets.protocol",
    "PlantedControl": "promptlimits.lab.regression.regression_control",
    "Problem": "promptlimits.capacity.train.problem",
    "PromptKind": "promptlimits.nets.protocol",
    "PromptLimitsError": "promptlimits.base.errors",
    "PromptLimitsWarning": "promptlimits.base.errors",
    "PromptSetting": "promptlimits.theory.prompt_setting",
    "Reach": "promptlimits.lab.one_layer.reachable",
    "Reading": "promptlimits.capacity.tables.reading",
    "RealMap": "promptlimits.lab.universal.universal",
    "RegressionProblems": "promptlimits.lab.regression.regression",
    "Request": "promptlimits.capacity.search.request",
    "RunFailed": "promptlimits.base.errors",
    "RunRecord": "promptlimits.capacity.store",
    "SearchConfig": "promptlimits.capacity.search.search",
    "ShareReached": "promptlimits.theory.prompt_capacity",
    "SharedQuery": "promptlimits.lab.one_layer.setting",
    "Solutions": "promptlimits.lab.regression.levenberg_marquardt",
    "Source": "promptlimits.base.bound",
    "StepReport": "promptlimits.capacity.train.problem",
    "Store": "promptlimits.capacity.store",
    "TextCodec": "promptlimits.nets.protocol",
    "TrainingConfig": "promptlimits.capacity.train.config",
    "TrainingState": "promptlimits.capacity.train.state",
    "TransformerWeights": "promptlimits.nets.paper.weights",
    "UniversalBound": "promptlimits.lab.universal.universal_bound",
    "UserError": "promptlimits.base.errors",
    "Verification": "promptlimits.capacity.witness.verification",
    "Washout": "promptlimits.theory.washout",
    "WholeOutputCapacity": "promptlimits.theory.whole_output_capacity",
    "Witness": "promptlimits.capacity.witness.format",
    "capacity_threshold": "promptlimits.theory.prompt_capacity",
    "capitals": "promptlimits.capacity.task.builtin",
    "certify_invertible": "promptlimits.lipschitz.paper.invertibility",
    "certify_value": "promptlimits.lab.one_layer.oracle.value",
    "check_certificate": "promptlimits.checking.dispatch",
    "check_counting": "promptlimits.checking.counting",
    "composed_bound": "promptlimits.lipschitz.paper.compose",
    "counting_ceiling": "promptlimits.theory.token_capacity",
    "ellipsoid_bound": "promptlimits.lipschitz.ellipsoid.certificate",
    "encode": "promptlimits.capacity.task.encoded",
    "erratum": "promptlimits.lab.errata.statements",
    "error_floor": "promptlimits.lab.one_layer.error_floor",
    "from_vocabulary": "promptlimits.capacity.train.prompts",
    "from_weights": "promptlimits.nets.paper.transformer",
    "invert": "promptlimits.lab.inverse.inverse",
    "largest_jacobian_norm": "promptlimits.lipschitz.attack.estimate",
    "last_tokens_capacity": "promptlimits.theory.last_tokens_capacity",
    "load_parts": "promptlimits.nets.load.load",
    "load_task": "promptlimits.capacity.task.resolve",
    "measure": "promptlimits.capacity.measure",
    "number_format": "promptlimits.theory.number_formats",
    "oracle_value": "promptlimits.lab.one_layer.oracle.value",
    "pack": "promptlimits.nets.protocol",
    "planted_control": "promptlimits.lab.regression.regression_control",
    "published_capacity": "promptlimits.theory.prompt_capacity_published",
    "random_pairs": "promptlimits.capacity.task.random_tokens",
    "random_weights": "promptlimits.nets.paper.weights",
    "reach": "promptlimits.lab.one_layer.reachable",
    "read_pairs": "promptlimits.capacity.task.pairs",
    "read_witness": "promptlimits.capacity.witness.format",
    "realise": "promptlimits.lab.one_layer.realise",
    "save_witness": "promptlimits.capacity.witness.format",
    "share_reached": "promptlimits.theory.prompt_capacity",
    "shared_query": "promptlimits.lab.one_layer.setting",
    "short_prompt_capacity": "promptlimits.theory.whole_output_capacity",
    "shortest_prompt": "promptlimits.theory.token_capacity",
    "solve_regression": "promptlimits.lab.regression.regression",
    "spectral_norm": "promptlimits.lipschitz.balls.spectral",
    "tightest_bound": "promptlimits.lipschitz.paper.compose",
    "train": "promptlimits.capacity.train.engine",
    "train_many": "promptlimits.capacity.train.engine",
    "universal_bound": "promptlimits.lab.universal.universal_bound",
    "universal_prompt": "promptlimits.lab.universal.universal",
    "verify_in_fresh_process": "promptlimits.capacity.witness.fresh_process",
    "washout": "promptlimits.theory.washout",
    "wasserstein_distance": "promptlimits.nets.paper.transport",
    "whole_output_capacity": "promptlimits.theory.whole_output_capacity",
    "write_report": "promptlimits.report.html",
}

__all__ = [
    "Asking",
    "Assumption",
    "CapacityThreshold",
    "Certificate",
    "CountingCeiling",
    "EllipsoidBound",
    "EncodedPair",
    "EncodedTask",
    "Erratum",
    "ErrorFloor",
    "Fit",
    "FrozenModel",
    "FunctionClass",
    "HeadWeights",
    "HuggingFaceCausalLM",
    "Inverse",
    "Invertibility",
    "JacobianEstimate",
    "LastTokensCapacity",
    "LayerConstants",
    "LayerWeights",
    "LevenbergMarquardt",
    "LipschitzBound",
    "LogBound",
    "ModelCard",
    "NumberFormat",
    "Objective",
    "OracleCertificate",
    "OracleValue",
    "Order",
    "Outcome",
    "PackedPairs",
    "Pair",
    "PairTask",
    "PaperTransformer",
    "Part",
    "PlantedControl",
    "Problem",
    "PromptKind",
    "PromptLimitsError",
    "PromptLimitsWarning",
    "PromptSetting",
    "Reach",
    "Reading",
    "RealMap",
    "RegressionProblems",
    "Request",
    "RunFailed",
    "RunRecord",
    "SearchConfig",
    "ShareReached",
    "SharedQuery",
    "Solutions",
    "Source",
    "StepReport",
    "Store",
    "TextCodec",
    "TrainingConfig",
    "TrainingState",
    "TransformerWeights",
    "UniversalBound",
    "UserError",
    "Verification",
    "Washout",
    "WholeOutputCapacity",
    "Witness",
    "__version__",
    "capacity_threshold",
    "capitals",
    "certify_invertible",
    "certify_value",
    "check_certificate",
    "check_counting",
    "composed_bound",
    "counting_ceiling",
    "ellipsoid_bound",
    "encode",
    "erratum",
    "error_floor",
    "from_vocabulary",
    "from_weights",
    "invert",
    "largest_jacobian_norm",
    "last_tokens_capacity",
    "load_parts",
    "load_task",
    "measure",
    "number_format",
    "oracle_value",
    "pack",
    "planted_control",
    "published_capacity",
    "random_pairs",
    "random_weights",
    "reach",
    "read_pairs",
    "read_witness",
    "realise",
    "save_witness",
    "share_reached",
    "shared_query",
    "short_prompt_capacity",
    "shortest_prompt",
    "solve_regression",
    "spectral_norm",
    "tightest_bound",
    "train",
    "train_many",
    "universal_bound",
    "universal_prompt",
    "verify_in_fresh_process",
    "washout",
    "wasserstein_distance",
    "whole_output_capacity",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_DEFINED_IN[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported yet or not."""
    return sorted(__all__)
