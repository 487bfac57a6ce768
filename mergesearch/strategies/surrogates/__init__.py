"""Models of the losses, and what is done with them: what the strategies with a surrogate share."""
