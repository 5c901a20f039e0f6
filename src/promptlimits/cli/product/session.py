"""What the commands on a model share: the list, the model, the settings of training, the store."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from promptlimits.base.errors import RunFailed, UserError, command, quoted, require_positive
from promptlimits.capacity.tables.files import shown
from promptlimits.capacity.tables.form import asking_of
from promptlimits.capacity.tables.formats import ENDINGS
from promptlimits.capacity.tables.reading import Reading, parse_choices
from promptlimits.capacity.task.resolve import Source, encode_source, read_source
from promptlimits.capacity.task.text import TextSpec
from promptlimits.capacity.train.config import (
    SEARCH_DTYPE,
    TEXT_SHARPENING_SHARE,
    TrainingConfig,
    lead_in,
)
from promptlimits.cli import options
from promptlimits.cli.options import named_as_typed, parsed
from promptlimits.cli.output import say
from promptlimits.nets.files.catalog import find_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptlimits.capacity.search.request import Request
    from promptlimits.capacity.task.encoded import EncodedTask
    from promptlimits.cli.live import LiveListener
    from promptlimits.nets.protocol import TextCodec
    from promptlimits.nets.routes.causal import HuggingFaceCausalLM
    from promptlimits.record.record import Fit, Record

STORE_FILE = "store.sqlite"
NOT_SEARCHED: Final = 3
"""Exit code: the budget was used up before a prompt was searched for."""

KINDS: Final = ("soft", "prefix")
"""What a prompt can be, as `--kind` calls it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The pairs or the text that a model is asked for, and how a list of them is read."""

    pairs: Annotated[
        str,
        typer.Option(
            "--pairs",
            help="`capitals`, `random:COUNT[,KEY_TOKENS[,VALUE_TOKENS]]`, `text:FILE[,TOKENS]`, "
            f"or a file: {ENDINGS}.",
        ),
    ] = "capitals"
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Columns of a file: KEY=VALUE, such as question=answer. By default key=value.",
        ),
    ] = None
    answer: Annotated[
        str | None,
        typer.Option(
            "--answer",
            help="The value's column alone, with --choices, or where the template names the "
            "others.",
        ),
    ] = None
    choices: Annotated[
        str | None,
        typer.Option(
            "--choices",
            help="Columns of the choices, such as A,B,C,D, or one that holds a list. The key "
            "shows them, the value is the letter of the right one.",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="How a pair of a list is asked: {key}, or columns, such as "
            "'{instruction}\\n{input}'. By default `{key}:`, and with --chat `{key}`.",
        ),
    ] = None
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Write a key as a user's message, by the tokenizer's chat template."
        ),
    ] = False
    joiner: Annotated[
        str,
        typer.Option(
            "--joiner",
            help="What stands between key and value: auto, none, or a text such as ' ' or "
            "'\\n'. auto: a space where words of a spaced script meet; nothing behind or before "
            "white space, special tokens, Chinese, Japanese, Thai and the like.",
        ),
    ] = "auto"
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Keep so many of the pairs.")
    ] = None
    seed: options.Seed = 0

    def read(self) -> Source:
        """Read them: all that can be done before a model is loaded."""
        with named_as_typed():
            choices = parse_choices(self.choices)
            return read_source(
                self.pairs,
                asking=asking_of(
                    self.template, chat=self.chat, joiner=self.joiner, choices=bool(choices)
                ),
                reading=Reading(columns=self.columns, answer=self.answer, choices=choices),
                seed=self.seed,
                limit=self.limit,
            )


Model = Annotated[
    str,
    typer.Option(
        "--model", help="Catalog name, directory, .gguf file or hub id. See `promptlimits models`."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a model comes from and what it computes with."""

    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"],
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="What the model computes with: float32, float64, bfloat16 or float16.",
        ),
    ] = "float32"
    device: options.Device = "cpu"
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            max=options.MOST_THREADS,
            help="CPU threads; PyTorch's choice if not given.",
        ),
    ] = None
    offline: options.Offline = False

    def load(
        self, model: str, source: Source, listener: LiveListener
    ) -> tuple[HuggingFaceCausalLM, EncodedTask]:
        """Load the model and encode the pairs for it, with progress."""
        listener.stage(f"loading {model}")
        import torch

        from promptlimits.nets.load.load import load_parts
        from promptlimits.nets.routes.causal import HuggingFaceCausalLM

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with named_as_typed():
            parts = load_parts(
                model,
                dtype=getattr(torch, self.dtype),
                device=self.device,
                allow_hub=not self.offline,
                on_progress=listener.found,
            )
        frozen = HuggingFaceCausalLM(parts.model, card=parts.card, codec=parts.codec)
        task = encode_pairs(source, frozen.codec)
        for note in task.notes:
            listener.found(f"note: {note}")
        return frozen, task


def _gigabytes(option: str, text: str) -> int:
    try:
        number = float(text)
    except ValueError as error:
        rule = "be a number above 0"
        raise UserError(option, rule, got=shown(text), remedy="leave it out") from error
    return int(1e9 * require_positive(option, number))


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long a command trains, and how; the defaults are those of `fit`."""

    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            metavar="SECONDS",
            help="Seconds for the whole command once the model is loaded, over all resumes; 240 "
            "(fit: 600) if --steps is not given either.",
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Training steps for the whole command, over all resumes: the same result on "
            "every machine.",
        ),
    ] = None
    starts: Annotated[
        int,
        typer.Option(
            "--starts",
            min=1,
            help="Attempts at a size before it is given up: one alone, then the others side by "
            "side.",
        ),
    ] = 3
    learning_rate: Annotated[
        float,
        typer.Option(
            "--learning-rate",
            help="Adam's step for a soft prompt; a prefix takes 1.5 of it over the number of "
            "layers.",
        ),
    ] = 1.0
    max_steps: Annotated[int, typer.Option("--max-steps", help="Steps of one attempt.")] = 600
    patience: Annotated[
        int, typer.Option("--patience", help="Steps without gain after which an attempt stalls.")
    ] = 150
    search_dtype: Annotated[
        Literal["auto", "same", "bfloat16"],
        typer.Option(
            "--search-dtype",
            metavar="TYPE",
            help="What the products of the search compute with: bfloat16, same (as --dtype), or "
            "auto: bfloat16 where that is measured to be fast. What is held is always of --dtype.",
        ),
    ] = "auto"
    control: Annotated[
        bool,
        typer.Option(
            "--control/--no-control",
            help="Train for planted answers, too: tells the optimiser's limit from the model's.",
        ),
    ] = True
    memory: Annotated[
        int | None,
        parsed(
            "--memory",
            parser=_gigabytes,
            metavar="GB",
            help="Gigabytes for one pass of training; half of what is free.",
        ),
    ] = None

    def config(self, prompt_tokens: int, *, seed: int, dtype: str) -> TrainingConfig:
        """Settings of training, checked, with errors that name the option."""
        with named_as_typed():
            return TrainingConfig(
                prompt_tokens=prompt_tokens,
                learning_rate=self.learning_rate,
                max_steps=self.max_steps,
                patience=self.patience,
                seed=seed,
                relative_lead=lead_in(dtype),
            )

    def budgets(self, *, default_seconds: float) -> Budgets:
        """The budget of the command."""
        seconds, steps = self.budget, self.steps
        if seconds is not None and not seconds > 0:
            raise UserError("--budget", "be above 0 seconds", got=seconds, remedy="leave it out")
        if seconds is None:
            seconds = default_seconds if steps is None else math.inf
        return Budgets(seconds=seconds, steps=math.inf if steps is None else steps)

    def request(
        self,
        source: Source,
        config: TrainingConfig,
        budgets: Budgets,
        *,
        prompt_tokens: tuple[int, ...],
        kinds: tuple[str, ...],
        order: str,
        in_context_tokens: int,
        first_size: int | None = None,
    ) -> Request:
        """What is searched for, within the budgets."""
        from promptlimits.capacity.search.lists import FIRST_PAIRS
        from promptlimits.capacity.search.ordering import Order
        from promptlimits.capacity.search.request import Request
        from promptlimits.capacity.search.search import SearchConfig
        from promptlimits.capacity.search.texts import FIRST_TOKENS
        from promptlimits.nets.protocol import PromptKind

        first = FIRST_PAIRS
        if isinstance(source.pairs, TextSpec):
            config = replace(config, first_sharpening_share=TEXT_SHARPENING_SHARE)
            first = FIRST_TOKENS
        return Request(
            prompt_tokens=prompt_tokens,
            kinds=tuple(map(PromptKind, kinds)),
            search=SearchConfig(
                training=config, starts=self.starts, first_size=first_size or first
            ),
            order=Order(order),
            in_context_tokens=in_context_tokens,
            budget_bytes=self.memory,
            budget_seconds=budgets.seconds,
            budget_steps=budgets.steps,
            control=self.control,
            command=command_line(),
            go_on=budgets.go_on,
        )

    def on(self, model: HuggingFaceCausalLM, request: Request) -> Request:
        """The request with what the search computes with on a model settled."""
        if self.search_dtype == "same" or (
            self.search_dtype == "auto" and not narrow_search_pays(model)
        ):
            return request
        from promptlimits.capacity.train.batch import require_narrow

        with named_as_typed():
            require_narrow(model)
        training = replace(request.search.training, search_dtype=SEARCH_DTYPE)
        return replace(request, search=replace(request.search, training=training))


def narrow_search_pays(model: HuggingFaceCausalLM) -> bool:
    """Whether searches through a model should run in its faster twin here."""
    from promptlimits.nets.decoder.rate import product_rates

    return model.can_narrow and product_rates(model.card.dim, model.device).pays


def prompt_kinds(text: str) -> tuple[str, ...]:
    """Kinds of prompts from "soft", "prefix" or "soft,prefix"."""
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= set(KINDS) or len(parts) > len(set(parts)):
        rule = "be soft or prefix or both, separated by a comma"
        raise UserError("--kind", rule, got=shown(text), remedy="use soft")
    return tuple(kind for kind in KINDS if kind in parts)


def prompt_lengths(text: str) -> tuple[int, ...]:
    """Prompt lengths from "1,2,8": whole numbers above 0, in ascending order."""
    parts = [part.strip() for part in text.split(",")]
    # Up to nine digits: more is no length, and Python refuses to read very many.
    numbers = (part for part in parts if part.isascii() and part.isdigit() and len(part) < 10)
    lengths = sorted(map(int, numbers))
    if len(lengths) != len(parts) or lengths[0] < 1 or len(set(lengths)) != len(lengths):
        raise UserError(
            "--prompt-tokens",
            "be different whole numbers above 0, separated by commas",
            got=shown(text),
            remedy="write 1,2,4",
        )
    return tuple(lengths)


def noun_of(source: Source) -> str:
    """What a search over a source counts: tokens of a text, or pairs."""
    return "token" if isinstance(source.pairs, TextSpec) else "pair"


def encode_pairs(source: Source, codec: TextCodec) -> EncodedTask:
    """Encode pairs for a model."""
    with named_as_typed():
        return encode_source(source, codec)


def command_line() -> str:
    """The command line, as a person can paste it."""
    return command(["promptlimits", *sys.argv[1:]])


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What a command may use over all its resumptions; infinite for no limit."""

    seconds: float  # time, from when the model is loaded
    steps: float  # training steps

    def go_on(self, used_seconds: float) -> str:
        """The command line that goes on where this budget ends."""
        words = list(sys.argv[1:])
        if math.isfinite(self.seconds):
            times = max(2, 1 + math.ceil(used_seconds / self.seconds - 0.5))
            words = [*_without(words, "--budget"), "--budget", f"{times * self.seconds:.15g}"]
        if math.isfinite(self.steps):
            words = [*_without(words, "--steps"), "--steps", f"{2 * int(self.steps)}"]
        return command(["promptlimits", *words])


def _without(words: Sequence[str], option: str) -> list[str]:
    """The words of a command line without an option and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == option:
            skip = True
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept


def check_line(witness: Path, reference: str) -> str:
    """The line that says how to decode a witness again."""
    model = "" if find_entry(reference) is not None else f" --model {quoted(reference)}"
    return f"Check:  promptlimits verify {quoted(witness)}{model}"


def require_confirmed(record: Record | Fit) -> None:
    """Say what stock tools did not confirm, and fail where that is all that training held."""
    from promptlimits.record.record import losses

    for loss in losses(record, whole=False):
        say(f"warning: {loss}")
    lost = losses(record, whole=True)
    if lost:
        raise RunFailed(
            ", and ".join(lost),
            remedy="a floor of 0 is on record; run `promptlimits doctor`, and if it finds nothing "
            "to mend, report this with the output folder",
        )


def store_path(folder: Path) -> Path:
    """The store of an output folder."""
    return folder / STORE_FILE
