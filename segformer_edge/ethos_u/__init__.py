"""Arm Ethos-U NPUs: what they are, how their compiler is driven, and what the graph needs to run on them whole."""
