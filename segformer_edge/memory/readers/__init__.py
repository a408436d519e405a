"""One file per format: from an exported file to a MemoryGraph and the runtime's own plan. No torch."""
