"""An event loop whose time jumps: nobody waits, and a test that would hang for ever fails at once."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Deadlock(AssertionError):
    """Everybody waits, and nothing is left that could wake anybody."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """When nothing is ready, the clock moves to the next timer. No sockets, no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_seconds = 1_000.0
        really_select = self._selector.select

        def select(timeout: float | None) -> Any:
            events = really_select(0)
            if not events and timeout is None:
                raise Deadlock
            if not events and timeout is not None:
                self._virtual_seconds += timeout
            return events

        self._selector.select = select

    def time(self) -> float:
        return self._virtual_seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """To its end in virtual time. What it leaves behind is cancelled."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes an async test one that runs in virtual time."""

    @functools.wraps(test)
    def in_virtual_time(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return in_virtual_time
