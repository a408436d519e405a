"""What this machine has and lacks, and the command that mends it: ``segformer-edge doctor``.

Each file of the package looks at one area and returns findings; nothing is changed on the machine.
"""
