"""What a file must be like before a native library sees it: every offset, index and size in it is checked.

Native loaders trust their input; a damaged file can end the process, or compute from memory that is not its own. One
module a format, with the standard library alone, so that a device checks its files too.
"""
