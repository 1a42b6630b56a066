"""Training on the three tasks of De La Cruz, Musa and Ndotu's paper."""
