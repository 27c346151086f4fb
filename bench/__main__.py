"""`python -m bench ingest [MESSAGES]`: the last line of standard output is one JSON object."""

import argparse
import json
import sys
from dataclasses import asdict

from bench.ingest import run_ingest_bench
from zenthos_core.errors import ZenthosError


def main() -> int:
    """Run one benchmark; 1 where a message was lost or doubled, 2 where it could not run."""
    parser = argparse.ArgumentParser(prog="bench", description="Benchmarks of Zenthos.")
    parser.add_argument("name", choices=["ingest"])
    parser.add_argument("messages", type=int, nargs="?", default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    try:
        result = run_ingest_bench(arguments.messages, runs=arguments.runs)
    except ZenthosError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(result)))
    return 1 if result.lost or result.duplicated else 0


if __name__ == "__main__":
    sys.exit(main())
