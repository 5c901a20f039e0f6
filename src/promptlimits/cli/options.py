"""Options that several commands share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from promptlimits.base.checks import require_positive
from promptlimits.base.errors import UserError
from promptlimits.capacity.tables.files import shown
from promptlimits.capacity.tables.formats import ENDINGS

Model = Annotated[
    str,
    typer.Option(
        "--model", help="Catalog name, directory, .gguf file or hub id. See `promptlimits models`."
    ),
]
Pairs = Annotated[
    str,
    typer.Option(
        "--pairs",
        help="`capitals`, `random:COUNT[,KEY_TOKENS[,VALUE_TOKENS]]`, `text:FILE[,TOKENS]`, or a "
        f"file: {ENDINGS}.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns of a file: KEY=VALUE, such as question=answer. By default key=value.",
    ),
]
Answer = Annotated[
    str | None,
    typer.Option(
        "--answer",
        help="The value's column alone, with --choices, or where the template names the others.",
    ),
]
Choices = Annotated[
    str | None,
    typer.Option(
        "--choices",
        help="Columns of the choices, such as A,B,C,D, or one that holds a list. The key shows "
        "them, the value is the letter of the right one.",
    ),
]
KINDS: Final = ("soft", "prefix")
"""What a prompt can be, as `--kind` calls it."""

Kind = Annotated[
    str,
    typer.Option(
        "--kind",
        help="What a prompt is: soft (input vectors), prefix (keys and values of every layer).",
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="How a pair of a list is asked: {key}, or columns, such as '{instruction}\\n{input}'. "
        "By default `{key}:`, and with --chat `{key}`.",
    ),
]
Chat = Annotated[
    bool,
    typer.Option(
        "--chat", help="Write a key as a user's message, by the tokenizer's chat template."
    ),
]
Joiner = Annotated[
    str,
    typer.Option(
        "--joiner",
        help="What stands between key and value: auto, none, or a text such as ' ' or '\\n'. "
        "auto: a space where words of a spaced script meet; nothing behind or before white space, "
        "special tokens, Chinese, Japanese, Thai and the like.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", help="Keep so many of the pairs.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
Out = Annotated[Path, typer.Option("--out", help="Output folder; run again there to go on.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")]
LearningRate = Annotated[
    float,
    typer.Option(
        "--learning-rate",
        help="Adam's step for a soft prompt; a prefix takes 1.5 of it over the number of layers.",
    ),
]
MaxSteps = Annotated[int, typer.Option("--max-steps", help="Steps of one attempt.")]
Patience = Annotated[
    int, typer.Option("--patience", help="Steps without gain after which an attempt stalls.")
]
Starts = Annotated[
    int,
    typer.Option(
        "--starts",
        help="Attempts at a size before it is given up: one alone, then the others side by side.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="SECONDS",
        help="Seconds for the whole command once the model is loaded, over all resumes; 240 "
        "(fit: 600) if --steps is not given either.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        help="Training steps for the whole command, over all resumes: the same result on every "
        "machine.",
    ),
]
Control = Annotated[
    bool,
    typer.Option(
        "--control/--no-control",
        help="Train for planted answers, too: tells the optimiser's limit from the model's.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")]
Dtype = Annotated[str, typer.Option("--dtype", help="What the model computes with.")]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads; PyTorch's choice if not given.")
]
Memory = Annotated[
    float | None,
    typer.Option("--memory", help="Gigabytes for one pass of training; half of what is free."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask a hub for a model.")]

DTYPES = ("float32", "float64", "bfloat16", "float16")
MOST_THREADS: Final = 1024

_OPTION_OF: Final = {
    "the task": "--pairs",
    "the template": "--template",
    **{name: f"--{name}" for name in ("columns", "answer", "choices")},
    "least_deviation": "--least-deviation",
    "prompt_tokens": "--prompt-tokens",
    "learning_rate": "--learning-rate",
    "max_steps": "--max-steps",
    "first_size": "--first-size",
    **{name: f"--{name}" for name in ("chat", "device", "joiner", "limit", "model", "patience")},
    **{name: f"--{name}" for name in ("seed", "starts")},
}


@contextmanager
def named_as_typed() -> Iterator[None]:
    """Have errors about an option's value name the option, as the user typed it."""
    try:
        yield
    except UserError as error:
        option = _OPTION_OF.get(error.name)
        if option is None:
            raise
        raise UserError(option, error.rule, got=error.got, remedy=error.remedy) from error


def memory_bytes(gigabytes: float | None) -> int | None:
    """A budget of memory in bytes."""
    if gigabytes is None:
        return None
    return int(1e9 * require_positive("--memory", gigabytes))


def prompt_kind(text: str) -> str:
    """One kind of prompt."""
    (kind,) = _kinds(text, most=1)
    return kind


def prompt_kinds(text: str) -> tuple[str, ...]:
    """Kinds of prompts from "soft", "prefix" or "soft,prefix"."""
    return _kinds(text, most=len(KINDS))


def _kinds(text: str, *, most: int) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= set(KINDS) or len(parts) > min(most, len(set(parts))):
        joined = " or both, separated by a comma" if most > 1 else ""
        raise UserError(
            "--kind", f"be {' or '.join(KINDS)}{joined}", got=shown(text), remedy="use soft"
        )
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


def require_dtype(name: str) -> str:
    """Return `name` if the model can compute with it."""
    if name not in DTYPES:
        raise UserError("--dtype", f"be one of {', '.join(DTYPES)}", got=name, remedy="use float32")
    return name


def require_threads(number: int | None) -> int | None:
    """Return a number of threads that torch can be given, or None for its own choice."""
    if number is not None and not 1 <= number <= MOST_THREADS:
        raise UserError(
            "--threads",
            f"be from 1 to {MOST_THREADS}",
            got=number,
            remedy="leave it out for PyTorch's choice",
        )
    return number


def require_unicode(name: str, path: Path) -> Path:
    """Return a folder that stock tools can open: safetensors takes no other path than UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            name,
            "be a path of UTF-8 characters, as safetensors takes no other",
            got=repr(os.fsencode(path)),
            remedy="choose another folder, or rename it",
        ) from error
    return path


def require_folder(path: Path) -> Path:
    """Return the output folder, made if need be."""
    require_unicode("--out", path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # a name of its own: nothing there is touched
            pass
    except OSError as error:
        raise UserError(
            "--out",
            "be a folder that can be written",
            got=f"{path} ({error.strerror or error})",
            remedy="choose another folder",
        ) from error
    return path
