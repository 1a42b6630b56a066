"""Tasks -> one optimizer step -> a model directory: losses, heads, schedules, gradient surgery, the multi-task fitter.

Needs torch and sentence-transformers (the extra `train`).
"""
