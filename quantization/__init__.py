"""INT8 for PyTorch: sites, observers, fake-quantize, calibration, encodings and recipes. Imports torch only."""
