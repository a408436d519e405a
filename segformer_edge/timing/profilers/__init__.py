"""One file a runtime: how its profiler is turned on, and what its events are called."""
