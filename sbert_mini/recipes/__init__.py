"""A training run as a file: recipe, plan, run folder, fit, record, card. Needs torch (the extra `train`)."""
