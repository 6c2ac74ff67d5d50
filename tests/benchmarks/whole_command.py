"""Seconds of the whole command `rnntune train`, with a cold and then with a warm cache.

    python tests/benchmarks/whole_command.py DATA_DIR [FLAGS OF rnntune train ...]

Prints a JSON line.
"""

import json
import subprocess
import sys
import tempfile
import time


def main() -> None:
    """Measure and print."""
    data, *flags = sys.argv[1:]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            command = [sys.executable, "-m", "rnntune", "train", "--data", data, "--json"]
            command += ["--data.cache_dir", f"{folder}/cache", "--output", f"{folder}/{name}"]
            start = time.perf_counter()
            done = subprocess.run([*command, *flags], check=True, capture_output=True, text=True)
            result = json.loads(done.stdout)
            found[name] = {
                "wall_s": round(time.perf_counter() - start, 1),
                "seconds": result["seconds"],
                "test_accuracy": result["test_accuracy"],
                "train_rows_per_s": result["train_rows_per_s"],
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
