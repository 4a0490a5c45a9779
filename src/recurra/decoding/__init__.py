"""Choosing outputs from the probabilities of a recurrent model, one step at a time."""
