"""Text -> token ids, and the order in which texts are computed. No torch."""
