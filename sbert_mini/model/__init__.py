"""A model directory on disk: names, layout, weights, heads. No torch."""
