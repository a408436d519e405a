"""What a run found: ``report.json``, the terminal's table and ``report.html``. Torch-free."""
