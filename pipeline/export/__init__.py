"""Hand a trained model over: weights with a card, and graphs that run without this project."""
