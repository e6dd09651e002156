"""Serving MCP over stdio, to an orderly end."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys

import anyio
from mcp.server.mcpserver import MCPServer

from ..errors import ConfigurationError
from ..logs import log_to_stderr
from ..settings import Settings
from .tool_calls import ALIVE, App
from .tools import create_server

OUTPUT_LOST = 2
log = logging.getLogger(__name__)


def serve(settings: Settings | ConfigurationError) -> None:
    """Serve over stdio until its end of input or a signal. Nothing but protocol goes to stdout."""
    if os.name != "nt":  # until `_end_on_signal` listens there is nothing to clean up, and a loop would show tracebacks
        signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))
    log_to_stderr("%(asctime)s %(levelname)s %(name)s: %(message)s")
    if isinstance(settings, ConfigurationError):
        log.error("%s", settings)
    code = 0
    try:
        anyio.run(_serve, create_server(settings))
    except* OSError as gone:
        if any(error.errno != errno.EPIPE for error in _errors_of(gone)):
            log.error("The answers can't be written to stdout: %s.", _errors_of(gone)[0].strerror)
            code = OUTPUT_LOST
    sys.stderr.flush()
    os._exit(code)  # a worker thread that is still blocked must not keep the process


def _errors_of(group: BaseExceptionGroup[OSError]) -> list[OSError]:
    return [
        found
        for error in group.exceptions
        for found in (_errors_of(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


async def _serve(server: MCPServer[App]) -> None:
    async with anyio.create_task_group() as tasks:
        if os.name != "nt":  # Windows has no signal receiver, and ends a process without asking
            tasks.start_soon(_end_on_signal)
        await server.run_stdio_async()
        tasks.cancel_scope.cancel()


async def _end_on_signal() -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            for app in list(ALIVE):
                await app.jobs.shut_down()
            os._exit(128 + number)
