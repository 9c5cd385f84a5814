"""Hand a trained model over: weights, and a card that alone says how to rebuild and use them.

`card` (what it says) -> `describe` (the card of a run) -> `source` (the run or file that a command names) -> `graph`
(the network as a torch.export or ONNX file, compared with the network) -> `export` (the command).
"""
