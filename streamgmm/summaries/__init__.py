"""What is seen of all rows: values that merge, made in a pass, of which pictures are drawn.

Histograms, quantiles, occupancies, audits. Nothing here draws, and nothing that draws reads.
"""
