"""What a trained network answers: predictions, class maps, scores, files to ship."""
