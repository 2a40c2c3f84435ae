"""What a training step is made of: recipe, optimizer, step, devices, evaluation."""
