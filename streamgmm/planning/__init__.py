"""What a fit reads, holds and takes, before it starts."""
