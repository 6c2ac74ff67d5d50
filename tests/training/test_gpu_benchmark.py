import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
SMALL = "--device cpu --cells gru --hidden 8 --batch-rows 16 --widths 1 --precisions fp32"
WITHOUT = """
import sys
for name in ("ray", "torchtext", "requests"):
    sys.modules[name] = None
import runpy
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs_on_a_cpu_without_ray():
    command = [sys.executable, "-c", WITHOUT, str(PROGRAM), *SMALL.split()]
    command += ["--steps=5", "--rounds=1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    one, whole = (json.loads(line) for line in done.stdout.splitlines())
    assert (one["cell"], one["hidden"], one["batch_rows"]) == ("gru", 8, 16)
    assert one["ours_rows_per_s"] > 0
    assert one["ours_over_bare"] > 0
    assert one["steps"] >= 20
    assert whole["device"] == "cpu"
