"""What a mixture is: moments, kinds of covariances, the two steps of EM."""
