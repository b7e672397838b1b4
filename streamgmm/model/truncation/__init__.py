"""Truncated EM: each row looks at a few candidate components, and keeps the likeliest of them.

q(z | x) is the posterior restricted to a set K_n of C components, so that

    F_n = log Σ_{k ∈ K_n} π_k N(x_n | k) ≤ log p(x_n),    KL_n = log p(x_n) - F_n.

A set changes only for a likelier one, by candidates that neighbours of its likeliest component
are, so F never falls (Forster & Lücke 2018, "Can clustering scale sublinearly with its clusters?";
Hirschberger, Forster & Lücke 2022, "A variational EM acceleration for efficient clustering at very
large scales"). The cost of a row does not grow with K.
"""
