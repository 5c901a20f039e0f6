"""How much a prompt can hold: what was found, what is proved, and what lies between.

The whole public API is what this module exports; everything else may change without notice.
Names are looked up on first use, so that `import promptlimits` never imports torch.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The public names. This is their only list: `__all__` and the lookup are read from it.
    from promptlimits.base.bound import Assumption as Assumption
    from promptlimits.base.bound import LogBound as LogBound
    from promptlimits.base.bound import Source as Source
    from promptlimits.base.errors import PromptLimitsError as PromptLimitsError
    from promptlimits.base.errors import PromptLimitsWarning as PromptLimitsWarning
    from promptlimits.base.errors import RunFailed as RunFailed
    from promptlimits.base.errors import UserError as UserError
    from promptlimits.bounds.context.last_tokens import LastTokensCapacity as LastTokensCapacity
    from promptlimits.bounds.context.layers import LayerConstants as LayerConstants
    from promptlimits.bounds.context.layers import Washout as Washout
    from promptlimits.bounds.context.layers import washed_out_from as washed_out_from
    from promptlimits.bounds.context.whole_output import ShortPromptCapacity as ShortPromptCapacity
    from promptlimits.bounds.context.whole_output import WholeOutputCapacity as WholeOutputCapacity
    from promptlimits.bounds.core import Theorem as Theorem
    from promptlimits.bounds.counting import Counting as Counting
    from promptlimits.bounds.counting import VectorCounting as VectorCounting
    from promptlimits.bounds.counting import shortest_prompt as shortest_prompt
    from promptlimits.bounds.covering import BallCovering as BallCovering
    from promptlimits.bounds.covering import CoveringBounds as CoveringBounds
    from promptlimits.bounds.covering import EllipsoidCovering as EllipsoidCovering
    from promptlimits.bounds.covering import VolumeCovering as VolumeCovering
    from promptlimits.bounds.covering import greedy_packing as greedy_packing
    from promptlimits.bounds.prompt_capacity import PromptCapacity as PromptCapacity
    from promptlimits.bounds.prompt_capacity import (
        published_capacity as published_capacity,
    )
    from promptlimits.bounds.prompt_plan import Plan as Plan
    from promptlimits.capacity.measure import measure as measure
    from promptlimits.capacity.search.ordering import Order as Order
    from promptlimits.capacity.search.request import Request as Request
    from promptlimits.capacity.search.search import SearchConfig as SearchConfig
    from promptlimits.capacity.store import RunRecord as RunRecord
    from promptlimits.capacity.store import Store as Store
    from promptlimits.capacity.tables.form import Asking as Asking
    from promptlimits.capacity.tables.reading import Reading as Reading
    from promptlimits.capacity.task.encoded import EncodedTask as EncodedTask
    from promptlimits.capacity.task.encoded import encode as encode
    from promptlimits.capacity.task.pairs import Pair as Pair
    from promptlimits.capacity.task.pairs import PairTask as PairTask
    from promptlimits.capacity.task.pairs import read_pairs as read_pairs
    from promptlimits.capacity.task.random_tokens import random_pairs as random_pairs
    from promptlimits.capacity.task.resolve import capitals as capitals
    from promptlimits.capacity.task.resolve import load_task as load_task
    from promptlimits.capacity.train.config import Objective as Objective
    from promptlimits.capacity.train.config import TrainingConfig as TrainingConfig
    from promptlimits.capacity.train.engine import train as train
    from promptlimits.capacity.train.engine import train_many as train_many
    from promptlimits.capacity.train.problem import Fit as Fit
    from promptlimits.capacity.train.problem import Outcome as Outcome
    from promptlimits.capacity.train.problem import Problem as Problem
    from promptlimits.capacity.train.problem import StepReport as StepReport
    from promptlimits.capacity.train.state import TrainingState as TrainingState
    from promptlimits.capacity.train.state import from_vocabulary as from_vocabulary
    from promptlimits.capacity.witness.format import Witness as Witness
    from promptlimits.capacity.witness.format import read_witness as read_witness
    from promptlimits.capacity.witness.format import save_witness as save_witness
    from promptlimits.capacity.witness.fresh_process import (
        verify_in_fresh_process as verify_in_fresh_process,
    )
    from promptlimits.capacity.witness.verification import Verification as Verification
    from promptlimits.certificates import check_certificate as check_certificate
    from promptlimits.lab.errata.statements import Erratum as Erratum
    from promptlimits.lab.errata.statements import erratum as erratum
    from promptlimits.lab.inverse import Inverse as Inverse
    from promptlimits.lab.inverse import invert as invert
    from promptlimits.lab.one_layer.error_floor import ErrorFloor as ErrorFloor
    from promptlimits.lab.one_layer.error_floor import error_floor as error_floor
    from promptlimits.lab.one_layer.oracle.certificate import OracleCertificate as OracleCertificate
    from promptlimits.lab.one_layer.oracle.value import OracleValue as OracleValue
    from promptlimits.lab.one_layer.oracle.value import certify_value as certify_value
    from promptlimits.lab.one_layer.oracle.value import oracle_value as oracle_value
    from promptlimits.lab.one_layer.reachable import Reach as Reach
    from promptlimits.lab.one_layer.reachable import reach as reach
    from promptlimits.lab.one_layer.realise import realise as realise
    from promptlimits.lab.one_layer.setting import SharedQuery as SharedQuery
    from promptlimits.lab.one_layer.setting import shared_query as shared_query
    from promptlimits.lab.regression.levenberg_marquardt import (
        LevenbergMarquardt as LevenbergMarquardt,
    )
    from promptlimits.lab.regression.levenberg_marquardt import Solutions as Solutions
    from promptlimits.lab.regression.regression import PlantedControl as PlantedControl
    from promptlimits.lab.regression.regression import RegressionProblems as RegressionProblems
    from promptlimits.lab.regression.regression import planted_control as planted_control
    from promptlimits.lab.regression.regression import solve_regression as solve_regression
    from promptlimits.lab.universal.universal import RealMap as RealMap
    from promptlimits.lab.universal.universal import universal_prompt as universal_prompt
    from promptlimits.lab.universal.universal_bound import FunctionClass as FunctionClass
    from promptlimits.lab.universal.universal_bound import UniversalBound as UniversalBound
    from promptlimits.lab.universal.universal_bound import universal_bound as universal_bound
    from promptlimits.lipschitz.balls.spectral import spectral_norm as spectral_norm
    from promptlimits.lipschitz.ellipsoid.certificate import EllipsoidBound as EllipsoidBound
    from promptlimits.lipschitz.ellipsoid.certificate import ellipsoid_bound as ellipsoid_bound
    from promptlimits.lipschitz.estimate import JacobianEstimate as JacobianEstimate
    from promptlimits.lipschitz.estimate import (
        largest_jacobian_norm as largest_jacobian_norm,
    )
    from promptlimits.lipschitz.estimate import (
        states_behind as states_behind,
    )
    from promptlimits.lipschitz.paper.compose import LipschitzBound as LipschitzBound
    from promptlimits.lipschitz.paper.compose import composed_bound as composed_bound
    from promptlimits.lipschitz.paper.compose import tightest_bound as tightest_bound
    from promptlimits.lipschitz.paper.invertibility import Invertibility as Invertibility
    from promptlimits.lipschitz.paper.invertibility import certify_invertible as certify_invertible
    from promptlimits.nets.load.load import load_parts as load_parts
    from promptlimits.nets.paper.accessible import distribution_distance as distribution_distance
    from promptlimits.nets.paper.accessible import measure_distance as measure_distance
    from promptlimits.nets.paper.accessible import output_distance as output_distance
    from promptlimits.nets.paper.accessible import sequence_distance as sequence_distance
    from promptlimits.nets.paper.mean_field import TokenMeasure as TokenMeasure
    from promptlimits.nets.paper.mean_field import mean_field as mean_field
    from promptlimits.nets.paper.mean_field import token_measure as token_measure
    from promptlimits.nets.paper.transformer import PaperTransformer as PaperTransformer
    from promptlimits.nets.paper.transformer import from_weights as from_weights
    from promptlimits.nets.paper.transport import position_distance as position_distance
    from promptlimits.nets.paper.transport import wasserstein_distance as wasserstein_distance
    from promptlimits.nets.paper.weights import HeadWeights as HeadWeights
    from promptlimits.nets.paper.weights import LayerWeights as LayerWeights
    from promptlimits.nets.paper.weights import TransformerWeights as TransformerWeights
    from promptlimits.nets.paper.weights import random_weights as random_weights
    from promptlimits.nets.protocol import EncodedPair as EncodedPair
    from promptlimits.nets.protocol import FrozenModel as FrozenModel
    from promptlimits.nets.protocol import ModelCard as ModelCard
    from promptlimits.nets.protocol import PackedPairs as PackedPairs
    from promptlimits.nets.protocol import Part as Part
    from promptlimits.nets.protocol import PromptKind as PromptKind
    from promptlimits.nets.protocol import TextCodec as TextCodec
    from promptlimits.nets.protocol import pack as pack
    from promptlimits.nets.routes.causal import HuggingFaceCausalLM as HuggingFaceCausalLM
    from promptlimits.record.record import Record as Record
    from promptlimits.record.record import read_record as read_record
    from promptlimits.report.html import write_report as write_report

__version__ = "0.1.0"


@cache
def _defined_in() -> dict[str, str]:
    """Each public name and the module that defines it, as imported above for type checkers."""
    import ast
    from pathlib import Path

    [block] = [
        node
        for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If)
    ]
    return {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module is not None
        for alias in statement.names
    }


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name == "__all__":
        return __dir__()
    if name not in _defined_in():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_defined_in()[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported yet or not."""
    return sorted([*_defined_in(), "__version__"])
