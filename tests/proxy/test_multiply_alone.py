"""A replica's products take one thread, and an operator may say otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

from farthing.proxy.serve import multiply_alone

# What `farthing serve` does, in its order; then how many threads there are.
SCRIPT = """
import os, sys
import farthing.proxy.cli
from farthing.proxy.serve import multiply_alone
assert "numpy" not in sys.modules, "its threads begin with its import"
multiply_alone(os.environ)
import numpy
numpy.ones((500, 500)) @ numpy.ones((500, 500))
print(len(os.listdir("/proc/self/task")))
"""


def test_numpy_starts_no_threads() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=clean, capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n"


def test_what_the_operator_says_stands() -> None:
    told = {"OPENBLAS_NUM_THREADS": "4"}
    multiply_alone(told)
    assert told == {"OPENBLAS_NUM_THREADS": "4"}
