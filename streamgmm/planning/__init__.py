"""Plans: how much a fit will read, its memory and its time, before it starts."""
