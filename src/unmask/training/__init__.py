"""Training: crops from Parquet, augmentation, a small loop, exact resume, checkpoints chosen on val."""
