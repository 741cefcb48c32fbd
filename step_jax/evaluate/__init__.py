"""How good a trained run is: metrics, learned distances, scores of whole splits."""
