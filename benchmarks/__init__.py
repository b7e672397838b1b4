"""Side by side with peers; run by hand, never as a test."""
