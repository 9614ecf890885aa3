"""Builds datasets of event files: the plan, the tasks, the commit, the repair.

The command line and `streamfeat` itself import it. It writes below OUT, by `store`, in processes of `workers`.
"""
