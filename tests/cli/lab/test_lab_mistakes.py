"""Mistakes in the options of the commands on small networks: one line each, exit code 2."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest

MISTAKES = [
    # command, words that the line must hold
    ("oracle --random-layer d=6,h=2,seed=1", "one of --pairs and --k, got neither"),
    ("oracle --random-layer d=6,h=2,seed=1 --k 2 --pairs x", "got both"),
    ("oracle --random-layer d=6,h=2,seed=1 --k 0", "--k must be 1 or more"),
    ("oracle --random-layer d=6,h=2,seed=1 --k 2 --boxes 0", "--boxes must be 1 or more"),
    ("oracle --random-layer d=6,h=2,seed=1 --k 65", "the pairs must be at most 64"),
    ("oracle --random-layer d=6,h=2,seed=1 --pairs missing.json", "--pairs must be a file of JSON"),
    ("oracle --random-layer d=6,h=0 --k 2", "h of --random-layer"),
    ("oracle --random-layer d=6,h=2,seed=1 --k 2 --seed -1", "--seed must be 0 or more"),
    ("oracle --k 2", "got neither"),
    ("oracle --random-layer d=6,h=2,seed=1 --k 2 --tokens 2", "the layer must have one head"),
    ("oracle --random-layer d=4 --k 2 --tokens 99999", "--tokens must be at most"),
    ("oracle --random-layer d=4 --k 2 --tokens 0", "--tokens must be"),
    ("unmemorizable", "one of --random-layer and --weights, got neither"),
    ("unmemorizable --random-layer d=8 --weights x", "got both"),
    ("unmemorizable --random-layer d=8,h=0", "h of --random-layer must be from 1"),
    ("unmemorizable --random-layer d=0", "d of --random-layer must be from 1"),
    ("unmemorizable --random-layer d=8,d=9", "NAME=NUMBER"),
    ("unmemorizable --random-layer width=9", "NAME=NUMBER"),
    ("unmemorizable --random-layer d=-8", "NAME=NUMBER"),
    ("unmemorizable --random-layer d=8,scale=nan", "scale of --random-layer"),
    ("unmemorizable --random-layer d=3", "width d must be at least 4"),
    ("unmemorizable --random-layer d=8,s=3", "V = W_o W_v must be regular, got rank 3 of 8"),
    ("unmemorizable --random-layer d=8,h=2", "must leave 3 directions"),
    ("unmemorizable --random-layer d=9,h=2 --kind pair", "have one head"),
    ("unmemorizable --random-layer d=9 --kind triple", "--kind must be one of"),
    ("unmemorizable --random-layer d=9 --kind length", "--pairs must be given"),
    ("unmemorizable --random-layer d=9 --kind any --pairs 2", "--pairs must be given"),
    ("unmemorizable --random-layer d=9 --pairs 9", "pairs must be at most dim less heads, 8"),
    ("unmemorizable --random-layer d=9 --pairs x", "--pairs must be a whole number"),
    ("unmemorizable --random-layer d=9 --seed -1", "--seed must be 0 or more"),
    ("unmemorizable --random-layer d=9 --out pairs.csv/file", "--out must be a file"),
    ("unmemorizable --weights missing.safetensors", "whole safetensors file"),
    ("construct universal --function sin --eps 0", "--eps must be a finite number above 0"),
    ("construct universal --function sin --eps nan", "--eps must be a finite number above 0"),
    ("construct universal --function sin --eps=-1", "--eps must be a finite number above 0"),
    ("construct universal --function sin --eps 1e-9", "got 3,14", "tokens"),
    ("construct universal --function sin --eps 1e-7", "fit in", "which take"),
    ("construct universal --function sin --eps 1e-99", "above what float64 resolves"),
    ("construct universal --function tan", "--function must be one of sin, cos"),
    ("construct universal", "--function"),
    (
        "construct universal --function sin --lipschitz 0.5",
        "--lipschitz must be at least 1, the constant of sin",
    ),
    (
        "construct universal --function sin --route x",
        "--route must be one of table, paper, got 'x'",
    ),
    (
        "construct universal --function abs --route paper --eps 0.05",
        "eps must be at least 0.500001",
        "a grid of 5 steps takes 93,750 layers",
    ),
    ("construct universal --function sin --plot pairs.csv/where.svg", "--plot must be a file"),
    ("construct universal --function square --lipschitz 1.1 --eps 0.5", "must be at least 2"),
    ("construct universal --function sin --lipschitz 1e-400", "be from 1e-300 to 1e300"),
    ("construct universal --function sin --eps 1e309", "--eps must be from 1e-300 to 1e300"),
    ("invert", "--radius must be given"),
    ("invert --radius 1", "one of --random and --weights, got neither"),
    ("invert --random d=2 --weights x --radius 1", "got both"),
    ("invert --random d=2 --radius 0", "--radius must be a finite number above 0"),
    ("invert --random d=2 --radius -1", "--radius must be a finite number above 0"),
    ("invert --random d=2 --radius nan", "--radius must be a finite number above 0"),
    ("invert --random d=2 --radius 1e61", "--radius must be from 1e-60 to 1e60"),
    ("invert --random d=0 --radius 1", "d of --random must be from 1"),
    ("invert --random d=2,layers=0 --radius 1", "layers of --random must be from 1"),
    ("invert --random d=2,d=3 --radius 1", "NAME=NUMBER"),
    ("invert --random d=2,scale=nan --radius 1", "scale of --random"),
    ("invert --random d=2 --radius 1 --prompt-tokens 0", "--prompt-tokens must be"),
    ("invert --random d=2 --radius 1 --prompt-tokens 9999", "at most 1,024"),
    ("invert --random d=2 --radius 1 --prompt none.json", "--prompt must be a file"),
    ("invert --random d=2 --radius 1 --prompt x --prompt-tokens 2", "once"),
    ("invert --random d=2 --radius 1 --plot x.svg", "--plot must come with"),
    ("invert --random d=2 --radius 1 --seed -1", "--seed must be 0 or more"),
    ("invert --experiment other", "--experiment must be one of threshold, norm"),
    ("invert --experiment norm --radius 1", "come alone"),
    ("invert --weights nowhere --radius 1", "nowhere"),
    ("errata E99", "one of E1 to E18 and W4"),
    ("errata E13 --heads 0", "1 or more"),
    ("errata E13 --heads many", "--heads"),
    ("errata E4 --heads 2", "E11"),
    ("errata --seed 2", "come with an erratum"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[0])
def test_a_mistake_is_one_line(mistake: tuple[str, ...], call: Callable[..., Any]) -> None:
    command, *words = mistake
    call(*shlex.split(command)).says(2, *words)
