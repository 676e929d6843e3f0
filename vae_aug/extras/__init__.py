"""What is built on the core: Albumentations, denoised files, augmented records, replay."""
