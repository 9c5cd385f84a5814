"""What a training and an evaluation leave behind: records, scores, intervals, published numbers."""
