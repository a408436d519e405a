"""Peak memory of an inference: what a file plans for, and what running it takes."""
