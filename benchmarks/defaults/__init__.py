"""Each ecosystem's documented export of transformers' SegFormer, and none of this project's code."""
