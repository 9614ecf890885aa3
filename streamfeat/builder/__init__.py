"""From event files to histories: the plan, the tasks, the commit, the repair.

The command line and `streamfeat` itself import it. It writes below OUT, through `store`, in processes of `workers`.
"""
