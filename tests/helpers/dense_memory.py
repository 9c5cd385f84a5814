"""Reference: the memory update as the method words it, with upsampled features and loops. Slow, short, obvious."""

import torch
import torch.nn.functional as F

IGNORE = 255


def dense_update(memory, representations, labels, momentum, strategy):
    """Memory (K, S, C) after a mini-batch of representations (B, C, h, w) with labels (B, H, W)."""
    upsampled = F.interpolate(representations, size=labels.shape[1:], mode="bilinear", align_corners=False)
    pixels = upsampled.permute(0, 2, 3, 1).reshape(-1, memory.shape[2])
    labels = labels.reshape(-1)
    result = memory.clone()
    for c in labels[labels != IGNORE].unique().tolist():
        own = pixels[labels == c]
        empty = (memory[c] == 0).all(dim=1)
        if empty.any():
            result[c, int(empty.int().argmax())] = own.mean(dim=0)
            continue
        similarity = F.cosine_similarity(own[:, None], memory[c][None], dim=2, eps=1e-8)  # (n, S)
        nearest = similarity.argmax(dim=1)
        for s in range(memory.shape[1]):
            estimate = _estimate(own[nearest == s], similarity[nearest == s, s], strategy)
            result[c, s] = (1 - momentum) * memory[c, s] + momentum * estimate
    return result


def dense_distribution_update(memory, representations, labels, momentum):
    """Mean and deviation (K, 2) of MCIBI++ after representations (B, C, h, w) with labels (B, H, W)."""
    upsampled = F.interpolate(representations, size=labels.shape[1:], mode="bilinear", align_corners=False)
    pixels = upsampled.permute(0, 2, 3, 1).reshape(-1, representations.shape[1])
    labels = labels.reshape(-1)
    result = memory.clone()
    for c in labels[labels != IGNORE].unique().tolist():
        mean = pixels[labels == c].mean(dim=0)
        result[c] = (1 - momentum) * memory[c] + momentum * torch.stack([mean.mean(), mean.std()])
    return result


def _estimate(pixels, similarity, strategy):
    if len(pixels) == 0:  # the authors' behaviour: an unassigned slot decays
        return torch.zeros(pixels.shape[1])
    weight = 1 - similarity
    if strategy == "mean" or weight.sum() < 1e-6 * len(weight):
        return pixels.mean(dim=0)
    return (weight[:, None] * pixels).sum(dim=0) / weight.sum()
