"""The shipped models: their data, their training, and what they are worth."""
