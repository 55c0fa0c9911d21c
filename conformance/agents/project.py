"""The throw-away project with a bug, and the model's way to fix it."""

import subprocess
import sys

SOURCE = '''def mean(values):
    """The arithmetic mean; 0 for no values."""
    if not values:
        return 0
    return sum(values) / (len(values) + 1)
'''
FIXED_LINE = "    return sum(values) / len(values)\n"
BROKEN_LINE = "    return sum(values) / (len(values) + 1)\n"
TEST = '''from average import mean

assert mean([]) == 0
assert mean([2, 4]) == 3, mean([2, 4])
assert mean([1, 2, 3, 4]) == 2.5
print("average: every check passes")
'''
PASSES = "average: every check passes"
TASK = "The check in check.py fails. Find the bug in average.py, fix it, and run the check."
FINAL = "The mean was divided by one too many. Fixed; the check passes now."


def write(directory):
    (directory / "average.py").write_text(SOURCE, encoding="utf-8")
    (directory / "check.py").write_text(TEST, encoding="utf-8")


def check(directory):
    """Whether the project's own check passes."""
    done = subprocess.run(
        [sys.executable, "-B", "check.py"], cwd=directory, capture_output=True, text=True, timeout=60
    )
    return done.returncode == 0 and PASSES in done.stdout
