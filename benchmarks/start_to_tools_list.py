"""How long a host waits for the list of tools: this server and an empty one of the same SDK, in turn.

    python benchmarks/start_to_tools_list.py [PAIRS]

From the start of the process to the answer of tools/list, over stdio. Quote the medians of the ratios: seconds depend
on the machine, and what else it does shows less in processor time.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

EMPTY = "from mcp.server.mcpserver import MCPServer; MCPServer('empty').run()"
SERVERS = {"this server": ["-m", "scarlet_backup_mcp", "serve"], "an empty one": ["-c", EMPTY]}
CLIENT = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "0"}}
MESSAGES: list[dict[str, Any]] = [
    {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": CLIENT},
    {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}},
]


def main(pairs: int) -> None:
    """Time both in turn, after a round that is not counted, and print the medians and the ratio."""
    runs = [[timed(arguments) for arguments in SERVERS.values()] for _ in range(pairs + 1)][1:]
    for number, measure in enumerate(("wall-clock", "processor")):
        ours, empty = ([run[server][number] for run in runs] for server in range(2))
        ratios = [one / other for one, other in zip(ours, empty, strict=True)]
        for name, seconds in zip(SERVERS, (ours, empty), strict=True):
            print(f"{measure}, {name}: {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
        print(f"{measure}, ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def timed(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock seconds to the list of tools, and processor seconds of the whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = start_to_list(arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def start_to_list(arguments: list[str]) -> float:
    """Seconds from the start of a server to its tools."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in MESSAGES))
        process.stdin.flush()
        while json.loads(process.stdout.readline()).get("id") != 1:
            pass
        took = time.perf_counter() - began
        process.stdin.close()
    return took


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
