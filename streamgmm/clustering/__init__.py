"""Rows in memory and K clusters: k-means++, Lloyd's k-means, moments of given labels."""

from streamgmm.clustering.lloyd import Clusters, k_means, lloyd, nearest
from streamgmm.clustering.moments import label_moments, resp_moments
from streamgmm.clustering.rows import Rows, parse_rows
from streamgmm.clustering.seeds import kmeans_plusplus

__all__ = [
    "Clusters",
    "Rows",
    "k_means",
    "kmeans_plusplus",
    "label_moments",
    "lloyd",
    "nearest",
    "parse_rows",
    "resp_moments",
]
