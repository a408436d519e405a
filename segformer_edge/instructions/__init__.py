"""Counts the instructions of one inference on an emulated ARM CPU: the same number on every machine, unlike time."""
