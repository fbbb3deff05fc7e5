"""Cycles that nobody needs any more go, at the latest with the hourly look at everything; what lives is left alone."""

import asyncio
import gc
import weakref

import pytest
from neuron_operator import garbage


class Ring:
    def __init__(self):
        self.myself = self


@pytest.fixture(autouse=True)
def as_before():
    yield
    gc.unfreeze()


def test_what_is_garbage_already_goes_at_once():
    ring = weakref.ref(Ring())
    garbage.collect_and_freeze(everything=False)
    assert ring() is None


def test_what_became_garbage_later_is_not_looked_at_before_everything_is():
    ring = Ring()
    garbage.collect_and_freeze(everything=False)
    gone = weakref.ref(ring)
    del ring
    garbage.collect_and_freeze(everything=False)
    assert gone() is not None
    garbage.collect_and_freeze(everything=True)
    assert gone() is None


def test_what_has_no_cycle_goes_although_it_is_frozen():
    class Node:
        pass

    node = Node()
    garbage.collect_and_freeze(everything=False)
    gone = weakref.ref(node)
    del node
    assert gone() is None


async def test_full_collections_come_by_themselves_no_more_until_it_ends():
    before = gc.get_threshold()
    task = asyncio.create_task(garbage.collect())
    await asyncio.sleep(0)
    assert gc.get_threshold()[2] > 1000 * before[2]
    task.cancel()
    await asyncio.wait([task])
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
