"""The BERT encoder, written from scratch: ids -> token vectors -> a sentence vector, trainable. Needs torch."""
