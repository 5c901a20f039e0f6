"""Certificates checked: nothing here imports the rest of the package.

`check(certificate)` raises `Refuted` if it is false, ValueError if it is no certificate. A kind is
one function of a module named here.
"""

from promptlimits.checker import context as context
from promptlimits.checker import model as model
from promptlimits.checker import prompts as prompts
from promptlimits.checker.core import KINDS as KINDS
from promptlimits.checker.core import Refuted as Refuted
from promptlimits.checker.core import check as check
