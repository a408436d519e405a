"""The readers of files from outside: what is kept in the corpus, and damaged versions of it, ends in documented errors.

``make fuzz`` looks much longer, guided by coverage, and adds what it finds to the corpus.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutated, mutated_json
from tests.fuzz.readers import JSON, READERS, corpus

#: Shared machines stall, and every run tries the same examples.
relaxed = settings(
    deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow], database=None
)


@pytest.mark.parametrize("reader", READERS)
def test_the_corpus_is_read_or_refused(reader):
    inputs = corpus(reader)
    assert inputs
    for path in inputs:
        READERS[reader](path.read_bytes())


@pytest.mark.parametrize("reader", READERS)
@relaxed
@given(seed=st.integers(0, 2**32))
def test_damaged_inputs_are_read_or_refused(reader, seed):
    chance = random.Random(seed)
    content = chance.choice(corpus(reader)).read_bytes()
    changed = mutated_json(content, chance) if reader in JSON and chance.random() < 0.7 else None
    READERS[reader](changed or mutated(content, chance))
