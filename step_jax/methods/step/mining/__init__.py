"""Triplets by style: features, tables of neighbors, batches."""
