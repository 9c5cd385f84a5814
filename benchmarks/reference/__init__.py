"""What the authors' toolbox does, in its order and with its intermediate tensors, written from the description."""
