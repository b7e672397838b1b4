"""Rows in memory and K clusters: k-means++ and Lloyd's k-means."""

from streamgmm.clustering.lloyd import Clusters, k_means, lloyd, nearest
from streamgmm.clustering.rows import Rows, parse_rows
from streamgmm.clustering.seeds import kmeans_plusplus

__all__ = [
    "Clusters",
    "Rows",
    "k_means",
    "kmeans_plusplus",
    "lloyd",
    "nearest",
    "parse_rows",
]
