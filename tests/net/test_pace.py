"""Rates on trio's own clock, which the tests move: exact, and without waiting."""

import random
from collections.abc import Awaitable, Callable

import pytest
import trio

from ssfs.net.options import MIN_RATE_BYTES_S
from ssfs.net.pace import Pacer

WINDOW_S = 10


async def sent_times(
    pacer: Pacer, duration_s: float, delay: Callable[[], Awaitable[None]], overhead: int = 0
) -> list[tuple[float, int]]:
    """(when, bytes) of each piece of an endless send; `delay` is what happens beside the pacing."""
    times = []
    ends_s = trio.current_time() + duration_s
    while trio.current_time() < ends_s:
        await pacer.wait()
        sent = pacer.piece_bytes + overhead
        times.append((trio.current_time(), sent))
        await delay()
        pacer.spend(sent)
    return times


def window_rates(times: list[tuple[float, int]]) -> list[float]:
    """Average of every window that begins with a piece, or right after one."""
    end_s = times[-1][0]
    rates = []
    for edge in (0.0, 1e-9):
        for start, _ in times:
            if start + edge + WINDOW_S <= end_s:
                inside = [n for at, n in times if start + edge <= at < start + edge + WINDOW_S]
                rates.append(sum(inside) / WINDOW_S)
    return rates


async def no_delay() -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("rate", [MIN_RATE_BYTES_S, 20_000, 1_000_000, 300_000_000])
async def test_every_window_keeps_the_average(rate: int, autojump_clock):
    times = await sent_times(Pacer(rate), 30, no_delay)
    rates = window_rates(times)
    assert len(rates) > 100
    assert min(rates) > 0.95 * rate
    assert max(rates) < 1.05 * rate


async def test_late_wake_ups_are_made_up_for(autojump_clock):
    rng = random.Random(3)

    async def late() -> None:
        await trio.sleep(rng.choice([0, 0, 0.02, 0.15]))

    rates = window_rates(await sent_times(Pacer(50_000), 60, late))
    assert min(rates) > 0.95 * 50_000
    assert max(rates) < 1.05 * 50_000


async def test_headers_of_the_wire_count(autojump_clock):
    rates = window_rates(await sent_times(Pacer(10_000), 30, no_delay, overhead=300))
    assert max(rates) < 1.05 * 10_000


async def test_silence_saves_nothing_up(autojump_clock):
    pacer = Pacer(20_000)
    await trio.sleep(1000)
    times = await sent_times(pacer, 12, no_delay)
    await trio.sleep(1000)
    times += await sent_times(pacer, 12, no_delay)
    assert max(window_rates(times)) < 1.05 * 20_000


async def test_rate_can_change(autojump_clock):
    pacer = Pacer(1000)
    await sent_times(pacer, 12, no_delay)
    pacer.rate_bytes_s = 100_000
    rates = window_rates(await sent_times(pacer, 22, no_delay))
    assert min(rates) > 95_000
    assert max(rates) < 105_000
