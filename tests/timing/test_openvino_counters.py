"""OpenVINO counts averages since compiling, in whole microseconds; single inferences are recovered from them."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from segformer_edge.timing.profilers.openvino import OpenVINOProfiler


class Counters:
    """A request whose one operator took ``taken`` microseconds in the inferences so far."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def get_profiling_info(self) -> list[SimpleNamespace]:
        average = sum(self.taken) // len(self.taken)
        status = "executed" if average else "not run"
        return [SimpleNamespace(real_time=timedelta(microseconds=average), status=status, EXECUTED="executed")]


@pytest.fixture
def profiler():
    made = OpenVINOProfiler.__new__(OpenVINOProfiler)
    made._request, made._runs, made._executed, made._sums, made._count = Counters(), [], set(), {}, 0
    return made


def test_one_inference_is_told_from_the_average(profiler):
    times = [9000, 1000, 1010, 4000, 1005]
    for microseconds in times:
        profiler._request.taken.append(microseconds)
        profiler._count += 1
        profiler.collect()
    found = [run[0][1] * 1e3 for run in profiler._runs]
    # As many microseconds of rounding as there were inferences.
    assert found == pytest.approx(times, abs=len(times))
    assert profiler._executed == {0}


def test_what_never_takes_a_microsecond_is_no_operator(profiler):
    for _ in range(3):
        profiler._request.taken.append(0)
        profiler._count += 1
        profiler.collect()
    assert profiler._executed == set()
    assert [run[0][1] for run in profiler._runs] == [0, 0, 0]
