"""Rows with gaps: exact EM under missing at random (Ghahramani & Jordan 1994).

The likelihood of a row is that of what was observed of it. Missing values are latent, as labels
are: an E-step completes the moments by their conditional means and covariances, and the M-step
is the ordinary one. `patterns` sorts rows by what they lack, `marginal` is the model of some of
the features, `moments` are completed moments, `steps` the E-step, and `starting` where a fit
starts.
"""
