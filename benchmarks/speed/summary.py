"""Our speed against PyTorch's in one table, each of its parts measured in a process of its own.

So glibc's allocator can be set for a part, and no network of one part disturbs the next.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.plan import Plan
from benchmarks.speed.work import OURS, Row, last_line

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "bench.py"

# glibc keeps freed memory instead of returning large blocks to the system, in one heap for all
# threads; see benchmarks/results/README.md. scripts/train.py does this by itself.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}


@dataclass(frozen=True)
class Part:
    """One call of scripts/bench.py.

    Attributes:
        arguments: of the call, without the number of rounds.
        keep_memory: whether glibc keeps freed memory.
        rounds: times the plan's rounds; short calls need more.
    """

    arguments: str
    keep_memory: bool = False
    rounds: int = 1


NETWORKS = "--variants nin nin15"
PARTS = (
    Part(f"train {NETWORKS} --batch-sizes 32 128"),
    Part(f"train {NETWORKS} --batch-sizes 32", keep_memory=True),
    Part(f"train {NETWORKS} --batch-sizes 32 --precision bfloat16"),
    Part(f"train {NETWORKS} --batch-sizes 32 --precision bfloat16", keep_memory=True),
    Part("train --variants nin --batch-sizes 64 --image-size 67", rounds=3),
    Part("train --variants nin --batch-sizes 64 --image-size 67", keep_memory=True, rounds=3),
    Part(f"predict {NETWORKS} --batch-sizes 1", rounds=3),
    Part(f"predict {NETWORKS} --batch-sizes 128"),
    Part(f"predict {NETWORKS} --batch-sizes 128 --precision bfloat16"),
    Part(f"startup {NETWORKS} --batch-sizes 128"),
    Part("settings --variants nin --batch-sizes 64"),
    Part(f"profile {NETWORKS} --batch-sizes 32", keep_memory=True),
)


def measure(plan: Plan) -> Iterator[Row]:
    """Yield the rows of all parts, then a row for each comparison with PyTorch."""
    compared = []
    for number, part in enumerate(PARTS, 1):
        plan.say(f"part {number} of {len(PARTS)}: {part.arguments}")
        for row in _rows(part, plan.rounds * part.rounds):
            yield row
            if "best_rival_over_ours" in row:
                compared.append(row | {"benchmark": "summary", "task": row["benchmark"]})
    for row in compared:
        del row["contender"]
        yield row | {"rival": row.pop("best_rival")}


def _rows(part: Part, rounds: int) -> list[Row]:
    arguments = [*part.arguments.split(), "--rounds", str(rounds), "--format", "json"]
    environment = os.environ | (KEEP_MEMORY if part.keep_memory else {})
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, env=environment
    )
    allocator = {"allocator": "keeps memory"} if part.keep_memory else {}
    if done.returncode:
        error = {"contender": OURS, "error": last_line(done.stderr)}
        return [{"benchmark": arguments[0]} | allocator | error]
    return [row | allocator for row in json.loads(done.stdout)["rows"]]
