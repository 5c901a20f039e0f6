"""How much a prompt can hold: what was found, what is proved, and what lies between.

The whole public API is what this module exports; everything else may change without notice.
Names are looked up on first use, so that `import promptlimits` never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptlimits.bound import Assumption, Certificate, LogBound, Source
    from promptlimits.capacity.fresh_process import verify_in_fresh_process
    from promptlimits.capacity.measure import measure
    from promptlimits.capacity.ordering import Order
    from promptlimits.capacity.request import Request
    from promptlimits.capacity.search import SearchConfig
    from promptlimits.capacity.verification import Verification
    from promptlimits.capacity.witness_format import Witness, read_witness, save_witness
    from promptlimits.checking.counting import check_counting
    from promptlimits.checking.dispatch import check_certificate
    from promptlimits.constructions.universal import RealMap, universal_prompt
    from promptlimits.constructions.universal_bound import (
        FunctionClass,
        UniversalBound,
        universal_bound,
    )
    from promptlimits.errata.statements import Erratum, erratum
    from promptlimits.errors import PromptLimitsError, PromptLimitsWarning, RunFailed, UserError
    from promptlimits.lipschitz.compose import LipschitzBound, composed_bound, tightest_bound
    from promptlimits.lipschitz.ellipsoid_certificate import EllipsoidBound, ellipsoid_bound
    from promptlimits.lipschitz.estimate import JacobianEstimate, largest_jacobian_norm
    from promptlimits.lipschitz.invertibility import Invertibility, certify_invertible
    from promptlimits.lipschitz.spectral import spectral_norm
    from promptlimits.lipschitz.weights import (
        HeadWeights,
        LayerWeights,
        TransformerWeights,
        random_weights,
    )
    from promptlimits.models.huggingface.causal import HuggingFaceCausalLM
    from promptlimits.models.huggingface.load import load_parts
    from promptlimits.models.inverse import Inverse, invert
    from promptlimits.models.protocol import (
        EncodedPair,
        FrozenModel,
        ModelCard,
        PackedPairs,
        Part,
        PromptKind,
        TextCodec,
        pack,
    )
    from promptlimits.models.transformer import PaperTransformer, from_weights
    from promptlimits.models.transport import wasserstein_distance
    from promptlimits.report.html import write_report
    from promptlimits.single_layer.error_floor import ErrorFloor, error_floor
    from promptlimits.single_layer.oracle_certificate import OracleCertificate
    from promptlimits.single_layer.oracle_value import OracleValue, certify_value, oracle_value
    from promptlimits.single_layer.reachable import Reach, reach
    from promptlimits.single_layer.realise import realise
    from promptlimits.single_layer.setting import SharedQuery, shared_query
    from promptlimits.store import RunRecord, Store
    from promptlimits.tasks.builtin import capitals
    from promptlimits.tasks.encoded import EncodedTask, encode
    from promptlimits.tasks.form import Asking
    from promptlimits.tasks.pairs import Pair, PairTask, read_pairs
    from promptlimits.tasks.random_tokens import random_pairs
    from promptlimits.tasks.reading import Reading
    from promptlimits.tasks.resolve import load_task
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
    from promptlimits.tuning.config import Objective, TrainingConfig
    from promptlimits.tuning.engine import train_many
    from promptlimits.tuning.levenberg_marquardt import LevenbergMarquardt, Solutions
    from promptlimits.tuning.loop import train
    from promptlimits.tuning.outcome import Outcome
    from promptlimits.tuning.problem import Problem
    from promptlimits.tuning.progress import Fit, StepReport
    from promptlimits.tuning.prompts import from_vocabulary
    from promptlimits.tuning.regression import RegressionProblems, solve_regression
    from promptlimits.tuning.regression_control import PlantedControl, planted_control
    from promptlimits.tuning.state import TrainingState

__version__ = "0.1.0"

# Public name -> the module that defines it.
_DEFINED_IN = {
    "Asking": "promptlimits.tasks.form",
    "Assumption": "promptlimits.bound",
    "CapacityThreshold": "promptlimits.theory.prompt_capacity",
    "Certificate": "promptlimits.bound",
    "CountingCeiling": "promptlimits.theory.token_capacity",
    "EllipsoidBound": "promptlimits.lipschitz.ellipsoid_certificate",
    "EncodedPair": "promptlimits.models.protocol",
    "EncodedTask": "promptlimits.tasks.encoded",
    "Erratum": "promptlimits.errata.statements",
    "ErrorFloor": "promptlimits.single_layer.error_floor",
    "Fit": "promptlimits.tuning.progress",
    "FrozenModel": "promptlimits.models.protocol",
    "FunctionClass": "promptlimits.constructions.universal_bound",
    "HeadWeights": "promptlimits.lipschitz.weights",
    "HuggingFaceCausalLM": "promptlimits.models.huggingface.causal",
    "Inverse": "promptlimits.models.inverse",
    "Invertibility": "promptlimits.lipschitz.invertibility",
    "JacobianEstimate": "promptlimits.lipschitz.estimate",
    "LastTokensCapacity": "promptlimits.theory.last_tokens_capacity",
    "LayerConstants": "promptlimits.theory.layer_constants",
    "LayerWeights": "promptlimits.lipschitz.weights",
    "LevenbergMarquardt": "promptlimits.tuning.levenberg_marquardt",
    "LipschitzBound": "promptlimits.lipschitz.compose",
    "LogBound": "promptlimits.bound",
    "ModelCard": "promptlimits.models.protocol",
    "NumberFormat": "promptlimits.theory.number_formats",
    "Objective": "promptlimits.tuning.config",
    "OracleCertificate": "promptlimits.single_layer.oracle_certificate",
    "OracleValue": "promptlimits.single_layer.oracle_value",
    "Order": "promptlimits.capacity.ordering",
    "Outcome": "promptlimits.tuning.outcome",
    "PackedPairs": "promptlimits.models.protocol",
    "Pair": "promptlimits.tasks.pairs",
    "PairTask": "promptlimits.tasks.pairs",
    "PaperTransformer": "promptlimits.models.transformer",
    "Part": "promptlimits.models.protocol",
    "PlantedControl": "promptlimits.tuning.regression_control",
    "Problem": "promptlimits.tuning.problem",
    "PromptKind": "promptlimits.models.protocol",
    "PromptLimitsError": "promptlimits.errors",
    "PromptLimitsWarning": "promptlimits.errors",
    "PromptSetting": "promptlimits.theory.prompt_setting",
    "Reach": "promptlimits.single_layer.reachable",
    "Reading": "promptlimits.tasks.reading",
    "RealMap": "promptlimits.constructions.universal",
    "RegressionProblems": "promptlimits.tuning.regression",
    "Request": "promptlimits.capacity.request",
    "RunFailed": "promptlimits.errors",
    "RunRecord": "promptlimits.store",
    "SearchConfig": "promptlimits.capacity.search",
    "ShareReached": "promptlimits.theory.prompt_capacity",
    "SharedQuery": "promptlimits.single_layer.setting",
    "Solutions": "promptlimits.tuning.levenberg_marquardt",
    "Source": "promptlimits.bound",
    "StepReport": "promptlimits.tuning.progress",
    "Store": "promptlimits.store",
    "TextCodec": "promptlimits.models.protocol",
    "TrainingConfig": "promptlimits.tuning.config",
    "TrainingState": "promptlimits.tuning.state",
    "TransformerWeights": "promptlimits.lipschitz.weights",
    "UniversalBound": "promptlimits.constructions.universal_bound",
    "UserError": "promptlimits.errors",
    "Verification": "promptlimits.capacity.verification",
    "Washout": "promptlimits.theory.washout",
    "WholeOutputCapacity": "promptlimits.theory.whole_output_capacity",
    "Witness": "promptlimits.capacity.witness_format",
    "capacity_threshold": "promptlimits.theory.prompt_capacity",
    "capitals": "promptlimits.tasks.builtin",
    "certify_invertible": "promptlimits.lipschitz.invertibility",
    "certify_value": "promptlimits.single_layer.oracle_value",
    "check_certificate": "promptlimits.checking.dispatch",
    "check_counting": "promptlimits.checking.counting",
    "composed_bound": "promptlimits.lipschitz.compose",
    "counting_ceiling": "promptlimits.theory.token_capacity",
    "ellipsoid_bound": "promptlimits.lipschitz.ellipsoid_certificate",
    "encode": "promptlimits.tasks.encoded",
    "erratum": "promptlimits.errata.statements",
    "error_floor": "promptlimits.single_layer.error_floor",
    "from_vocabulary": "promptlimits.tuning.prompts",
    "from_weights": "promptlimits.models.transformer",
    "invert": "promptlimits.models.inverse",
    "largest_jacobian_norm": "promptlimits.lipschitz.estimate",
    "last_tokens_capacity": "promptlimits.theory.last_tokens_capacity",
    "load_parts": "promptlimits.models.huggingface.load",
    "load_task": "promptlimits.tasks.resolve",
    "measure": "promptlimits.capacity.measure",
    "number_format": "promptlimits.theory.number_formats",
    "oracle_value": "promptlimits.single_layer.oracle_value",
    "pack": "promptlimits.models.protocol",
    "planted_control": "promptlimits.tuning.regression_control",
    "published_capacity": "promptlimits.theory.prompt_capacity_published",
    "random_pairs": "promptlimits.tasks.random_tokens",
    "random_weights": "promptlimits.lipschitz.weights",
    "reach": "promptlimits.single_layer.reachable",
    "read_pairs": "promptlimits.tasks.pairs",
    "read_witness": "promptlimits.capacity.witness_format",
    "realise": "promptlimits.single_layer.realise",
    "save_witness": "promptlimits.capacity.witness_format",
    "share_reached": "promptlimits.theory.prompt_capacity",
    "shared_query": "promptlimits.single_layer.setting",
    "short_prompt_capacity": "promptlimits.theory.whole_output_capacity",
    "shortest_prompt": "promptlimits.theory.token_capacity",
    "solve_regression": "promptlimits.tuning.regression",
    "spectral_norm": "promptlimits.lipschitz.spectral",
    "tightest_bound": "promptlimits.lipschitz.compose",
    "train": "promptlimits.tuning.loop",
    "train_many": "promptlimits.tuning.engine",
    "universal_bound": "promptlimits.constructions.universal_bound",
    "universal_prompt": "promptlimits.constructions.universal",
    "verify_in_fresh_process": "promptlimits.capacity.fresh_process",
    "washout": "promptlimits.theory.washout",
    "wasserstein_distance": "promptlimits.models.transport",
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
