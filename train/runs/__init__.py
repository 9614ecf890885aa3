"""RUN/ on disk: who holds it, what it was asked, its checkpoints and metrics.

The only place of the trainer that writes below RUN.
"""
