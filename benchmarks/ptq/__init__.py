"""Post-training methods side by side: the ones in use come from ``quantization``, the others live here."""
