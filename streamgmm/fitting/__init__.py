"""From a source to a fitted mixture: a sample, starts, and passes that candidates share."""
