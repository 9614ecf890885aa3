"""Ranks, devices and their memory.

The door of torch.distributed. It touches no file of a run.
"""
