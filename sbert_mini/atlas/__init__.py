"""What a collection of texts holds, as a whole: groups of similar rows and what they are called. No torch."""
