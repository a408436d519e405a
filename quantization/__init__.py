"""INT8 for PyTorch: sites, observers, calibration, encodings, recipes, training. Imports torch only."""
