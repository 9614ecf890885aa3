"""The model: a batch in, losses out.

Everything else in `train` may import it. It touches no file and no rank.
"""
