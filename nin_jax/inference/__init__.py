"""A trained network in use: predictions, class maps, scores, weights to ship."""
