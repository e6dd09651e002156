"""What a backup does in other threads while it waits for something else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ...hosts import POLL
from ...progress import Progress

T = TypeVar("T")


class Meanwhile:
    """Makes calls in threads, two at a time. A context manager: its end cancels those that use its `progress`, and
    waits for all of them."""

    def __init__(self) -> None:
        self.progress = Progress()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="meanwhile")

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Make a call in a thread. What it raises comes out of `result`, or nowhere."""
        return self._pool.submit(call)

    def __enter__(self) -> Meanwhile:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.cancel()
        self._pool.shutdown(cancel_futures=True)


def result(of: Future[T], progress: Progress) -> T:
    """Wait for a call's result. Raises Cancelled, or what the call raised."""
    while not wait([of], POLL).done:
        progress.check()
    return of.result()
