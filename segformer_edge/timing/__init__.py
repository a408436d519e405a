"""Time per operator: what each runtime's own profiler says about a file, in one form for all."""
