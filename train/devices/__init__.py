"""Ranks, devices and their memory.

Only this folder uses torch.distributed. It reads and writes no file of a run.
"""
