"""How networks are trained: data of a fold, augmentation, losses, optimiser, epochs, checkpoints."""
