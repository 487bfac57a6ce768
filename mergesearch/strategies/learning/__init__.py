"""Learning coefficients step by step from gradients: what the learners share."""
