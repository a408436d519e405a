"""Training on Hugging Face Accelerate: recipe, augmentation, loop."""
