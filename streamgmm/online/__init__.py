"""Stepwise EM: state in, state out; drift, and sources that grow."""
